"""What a FAISS index is going to be made of, and what was made, to text."""

import json
from dataclasses import asdict

from vggsearch.defaults import BUILD, WHITENING, Format
from vggsearch.image_index import BuildReport
from vggsearch.knn.recipes import RECIPES, BuildPlan
from vggsearch.render.text import as_table, bytes_text
from vggsearch.store.manifest import VectorIndexInfo


def recipes(format: Format) -> str:
    """Render the recipes there are, with what each takes and can, as a table or as JSON."""
    dim = WHITENING.dim
    can = ("exact", "remove", "merge", "range", "memory-map", "card")
    rows = [
        (
            each.name,
            each.says,
            each.factory,
            each.code_bytes(dim),
            (each.is_exact, each.can_remove, each.can_merge, each.has_range, each.can_map, each.on_gpu),
        )
        for each in RECIPES.values()
    ]
    if format == "json":
        values = [
            {"recipe": name, "says": says, "factory": factory, "bytes_per_photo": size}
            | dict(zip(can, answers, strict=True))
            for name, says, factory, size, answers in rows
        ]
        return json.dumps(values, indent=2)
    cells = [
        (name, says, f"{size:,.0f}", *("yes" if answer else "no" for answer in answers))
        for name, says, _, size, answers in rows
    ]
    return (
        as_table(("recipe", "what it is", f"bytes of {dim} numbers", *can), cells, right=[2])
        + f"\n\nauto is flat up to {BUILD.most_flat_rows:,} photos, then ivf-pq; ivf-sq8 where that finds too "
        "little, ivf-rabitq where memory is short. Beside it lie "
        f"{2 * dim:,} bytes a photo, which are only mapped: every similarity is computed from them, so that it is "
        "exact with every recipe. A FAISS factory string is a recipe, too: IVF1024,PQ48."
    )


SPLIT = ": more would not fit, so that the lists stay on disk, and a query may read there"


def plan(planned: BuildPlan, format: Format) -> str:
    """Render what a build is going to do, as a table or as JSON."""
    if format == "json":
        return json.dumps(asdict(planned), indent=2)
    named = planned.recipe if planned.recipe == planned.factory else f"{planned.recipe} ({planned.factory})"
    rows = [
        ("recipe", named),
        ("photos", f"{planned.rows:,} of {planned.dim:,} numbers each"),
        ("learned from", f"{planned.training_rows:,} of them" if planned.lists else "nothing to learn"),
        ("memory", bytes_text(planned.memory) + (SPLIT if planned.shard_rows < planned.rows else "")),
        ("on disk", bytes_text(planned.bytes + planned.vector_bytes)),
        ("time", _duration(planned.seconds)),
        ("compared by", planned.metric),
        ("recall wanted", f"{planned.recall:g} of the ten nearest"),
    ]
    return "\n".join(f"{name:<13}  {value}" for name, value in rows)


def _duration(seconds: float) -> str:
    if seconds < 10:
        return "a few seconds"
    return f"about {seconds:.0f} seconds" if seconds < 90 else f"about {seconds / 60:,.0f} minutes"


def built(made: BuildReport, format: Format) -> str:
    """Render what a build made, as a line or as JSON."""
    if format == "json":
        return json.dumps(asdict(made) | {"directory": str(made.directory)}, ensure_ascii=False, indent=2)
    return (
        f"{made.photos:,} photos in {made.seconds:.1f} s: {search_facts(made.facts)}, {bytes_text(made.bytes)} in "
        f"{made.directory}"
    )


def search_facts(facts: VectorIndexInfo) -> str:
    """Say how photos are searched, and what that gave: ivf-sq8, 8 of 1,024 lists, recall 0.993 in 0.4 ms."""
    told = [facts.recipe]
    if facts.lists:
        told.append(f"{facts.effort:,} of {facts.lists:,} lists")
    elif facts.effort:
        told.append(f"a queue of {facts.effort:,}")
    if facts.candidates > 1:
        told.append(f"{facts.candidates} times as many scored exactly")
    if facts.milliseconds is not None:
        told.append(f"recall {facts.recall:.3f} of the ten nearest in {facts.milliseconds:.2g} ms")
    return ", ".join(told)
