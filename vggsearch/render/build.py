"""Recipes for a FAISS index, the plan of a build and its result, to text."""

import json
from dataclasses import asdict

from vggsearch.defaults import BUILD, WHITENING, Format
from vggsearch.indexing.build import BuildReport
from vggsearch.knn.recipes import RECIPES, BuildPlan, Recipe
from vggsearch.photos.walk import one_line
from vggsearch.render.text import as_table, quantity
from vggsearch.store.manifest import VectorIndexInfo
from vggsearch.system.units import decimal

ON_DISK = "; the inverted lists stay on disk, which slows queries down"  # where they do not fit into memory


def recipes(format: Format) -> str:
    """Render all recipes, with their size and capabilities, as a table or as JSON."""
    dim = WHITENING.dim
    if format == "json":
        return json.dumps([_recipe_values(recipe, dim) for recipe in RECIPES.values()], indent=2)
    rows = [
        (
            recipe.name,
            recipe.description,
            f"{recipe.code_bytes(dim):,.0f}",
            *("yes" if is_so else "no" for is_so in (recipe.can_remove, recipe.can_map, recipe.on_gpu)),
        )
        for recipe in RECIPES.values()
    ]
    head = ("recipe", "description", "bytes", "removal", "mapped", "GPU")
    return (
        as_table(head, rows, right=[2])
        + f"\n\nbytes: per photo, at {dim} dimensions. removal: removed photos leave the index at once.\n"
        "mapped: opens without being read into memory. GPU: many queries can run on a GPU.\n\n"
        f"auto chooses flat up to {BUILD.most_flat_rows:,} photos, then ivf-pq; ivf-sq8 if ivf-pq misses\n"
        "the target recall, ivf-rabitq if memory is short. Any FAISS factory string is a\n"
        "recipe, too: IVF1024,PQ48.\n\n"
        f"Every recipe also stores float16 vectors, {2 * dim:,} bytes per photo, memory-mapped.\n"
        "All similarities are computed from them, so they are exact with every recipe."
    )


def _recipe_values(recipe: Recipe, dim: int) -> dict[str, object]:
    return {
        "recipe": recipe.name,
        "description": recipe.description,
        "factory": recipe.factory,
        "bytes_per_photo": recipe.code_bytes(dim),
        "exact": recipe.is_exact,
        "remove": recipe.can_remove,
        "merge": recipe.can_merge,
        "range": recipe.has_range,
        "memory_map": recipe.can_map,
        "gpu": recipe.on_gpu,
    }


def plan(planned: BuildPlan, format: Format) -> str:
    """Render what a build is going to do, as a table or as JSON."""
    if format == "json":
        return json.dumps(asdict(planned) | {"seconds": planned.seconds}, indent=2)
    named = planned.recipe if planned.recipe == planned.factory else f"{planned.recipe} ({planned.factory})"
    trained = f"on {quantity(planned.training_rows, 'photo')}" if planned.lists else "not needed"
    rows = [
        ("recipe", named),
        ("vectors", f"{planned.rows:,}, {quantity(planned.dim, 'dimension')} each"),
        ("training", trained),
        ("memory", decimal(planned.memory) + (ON_DISK if planned.shard_rows < planned.rows else "")),
        ("on disk", decimal(planned.bytes + planned.vector_bytes)),
        ("time", _duration(planned.seconds)),
        ("metric", planned.metric),
        ("target recall", f"{planned.recall:g} of the ten nearest photos"),
    ]
    return "\n".join(f"{name:<13}  {value}" for name, value in rows)


def _duration(seconds: float) -> str:
    if seconds < 10:
        return "a few seconds"
    return f"about {seconds:.0f} seconds" if seconds < 90 else f"about {seconds / 60:,.0f} minutes"


def built(made: BuildReport, format: Format) -> str:
    """Render the result of a build, as a line or as JSON."""
    if format == "json":
        return json.dumps(asdict(made) | {"directory": str(made.directory)}, ensure_ascii=False, indent=2)
    return (
        f"Built from {quantity(made.photos, 'photo')} in {made.seconds:.1f} s: {vector_index_text(made.facts)}, "
        f"{decimal(made.bytes)} in {one_line(str(made.directory))}"
    )


def vector_index_text(facts: VectorIndexInfo) -> str:
    """Describe how photos are searched: ivf-sq8, probes 8 of 1,024 lists, recall@10 0.993 in 0.4 ms."""
    words = [facts.recipe]
    if facts.lists:
        words.append(f"probes {facts.effort:,} of {quantity(facts.lists, 'list')}")
    elif facts.effort:
        words.append(f"efSearch {facts.effort:,}")
    if facts.candidates > 1:
        words.append(f"{facts.candidates} times the candidates re-scored exactly")
    if facts.milliseconds is not None:
        words.append(f"recall {facts.recall:.3f} of the ten nearest in {facts.milliseconds:.2g} ms")
    return ", ".join(words)
