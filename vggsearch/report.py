"""Turn results into text: tables for people, JSON and CSV for programs."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from vggsearch.bench import BenchReport, EngineReport
from vggsearch.defaults import BUILD, WHITENING, Format
from vggsearch.evaluate import CopiesReport
from vggsearch.geometry import Alignment
from vggsearch.image_index import BuildReport, Info
from vggsearch.index.recipes import RECIPES, Plan
from vggsearch.measure.edits import EDITS
from vggsearch.measure.probe import ProbeReport
from vggsearch.measure.retrieval import Figures, Interval
from vggsearch.model.layers import parts
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.vgg import describe
from vggsearch.photos import Skipped
from vggsearch.queries import QueryResult
from vggsearch.store.manifest import SearchFacts
from vggsearch.update import UpdateReport
from vggsearch.verify import Finding, VerifyReport

WIDE = 10_000  # columns; a table is never folded, so that a path stays whole
EXAMPLE_PHOTOS = 100_000
PART_BELOW = 0.85  # scale from which a query is told to be a part
UNITS = ("B", "kB", "MB", "GB", "TB")


def one_line(text: str) -> str:
    """Return `text` with control characters escaped, so that a file name cannot break a table or a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def query_results(results: Sequence[QueryResult], format: Format, root: Path | None) -> str:
    """Render the results of some queries. `paths` joins each path to the photo folder, so that it can be opened."""
    return QUERY_FORMATS[format](results, root)


def _query_table(results: Sequence[QueryResult], _root: Path | None) -> str:
    blocks = []
    for result in results:
        lines = [one_line(result.query)]
        lines += [
            f"  {_shown(match.similarity)}  {one_line(match.path)}{_how(match.alignment)}"
            for match in result.matches
        ]
        blocks.append("\n".join(lines if result.matches else [*lines, "  nothing found"]))
    return "\n\n".join(blocks)


def _how(alignment: Alignment | None) -> str:
    """Say in words how the query lies in a photo, where that is not simply as a whole."""
    if alignment is None:
        return ""
    quarter = round(alignment.turned / 90) * 90 % 360
    words = [
        "mirrored" if alignment.mirrored else "",
        f"turned {quarter}°" if quarter else "",
        f"a part, {alignment.scale**2:.0%} of it" if alignment.scale < PART_BELOW else "",
        "holds more" if alignment.scale > 1 / PART_BELOW else "",
    ]
    told = ", ".join(filter(None, words))
    return f"  ({told})" if told else ""


def _shown(similarity: float) -> str:
    """Return three decimals, of which 1.000 is kept for the same picture."""
    return f"{similarity if similarity == 1 else min(similarity, 0.999):.3f}"


def _query_json(results: Sequence[QueryResult], _root: Path | None) -> str:
    return json.dumps([_query_values(result) for result in results], ensure_ascii=False, indent=2)


def _query_values(result: QueryResult) -> dict[str, object]:
    """Return a result as JSON has it: an alignment only where there is one."""
    matches = [
        {name: value for name, value in asdict(match).items() if value is not None} for match in result.matches
    ]
    return {"query": result.query, "matches": matches}


def _query_jsonl(results: Sequence[QueryResult], _root: Path | None) -> str:
    return "\n".join(json.dumps(_query_values(result), ensure_ascii=False) for result in results)


def _query_csv(results: Sequence[QueryResult], _root: Path | None) -> str:
    rows = [(result.query, match.path, f"{match.similarity:.4f}") for result in results for match in result.matches]
    return _csv(("query", "path", "similarity"), rows)


def _query_paths(results: Sequence[QueryResult], root: Path | None) -> str:
    folder = root or Path()
    return "\n".join(str(folder / match.path) for result in results for match in result.matches)


QUERY_FORMATS: dict[Format, Callable[[Sequence[QueryResult], Path | None], str]] = {
    "table": _query_table,
    "json": _query_json,
    "jsonl": _query_jsonl,
    "csv": _query_csv,
    "paths": _query_paths,
}


def skipped_files(skipped: Sequence[Skipped], format: Format) -> str:
    """Render the files that could not be used, with their reasons."""
    rows = [{"path": row.path, "kind": row.kind, "reason": row.reason} for row in skipped]
    if format == "json":
        return json.dumps(rows, ensure_ascii=False, indent=2)
    if format == "jsonl":
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    if format == "csv":
        return _csv(("path", "kind", "reason"), [tuple(row.values()) for row in rows])
    if format == "paths":
        return "\n".join(row.path for row in skipped)
    return _table(("path", "kind", "reason"), [tuple(row.values()) for row in rows])


def info(facts: Info, format: Format) -> str:
    """Render what an index holds and how it was made, as a table or as JSON."""
    if format in ("json", "jsonl"):
        values = asdict(facts) | {
            "directory": str(facts.directory),
            "root": str(facts.root) if facts.root else None,
        }
        return json.dumps(values, ensure_ascii=False, indent=2 if format == "json" else None)
    spec = facts.spec
    skipped = ", ".join(f"{count:,} {kind}" for kind, count in sorted(facts.skipped.items()))
    search = _search(facts.search) if facts.search is not None else "none"
    if facts.search is not None and (whitening := facts.search.whitening) is not None:
        search += f"; whitened to {whitening.dim} numbers, as learned on {whitening.rows:,} photos"
    rows = [
        ("index", str(facts.directory)),
        ("photo folder", str(facts.root) if facts.root else "none yet"),
        ("photos", f"{facts.photos:,}"),
        ("blank photos", f"{facts.blank:,}, which match no other" if facts.blank else "none"),
        ("skipped files", skipped or "none"),
        ("network", f"{spec.model}, cut at {spec.layer}, {spec.pooling} pooling"),
        ("input", _input(spec)),
        ("weights", f"sha256 {spec.weights_sha256}"),
        ("embedding", f"{spec.dim:,} numbers, float16, unit length"),
        ("made by", ", ".join(facts.made_by) or "nothing yet"),
        ("search", search if facts.is_search_fresh else f"{search}, out of date: run index again"),
        ("local features", f"of {facts.local_features:,} photos" if facts.local_features else "none"),
        ("on disk", f"{bytes_text(facts.bytes)} in {facts.parts} part{'s' if facts.parts != 1 else ''}"),
    ]
    if format == "csv":
        return _csv(("what", "value"), rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {one_line(value)}" for name, value in rows)


def _input(spec: EmbeddingSpec) -> str:
    """Return what the network sees of a photo: 160 x 160 and 224 x 224 pixels, squash, and mirrored."""
    squares = " and ".join(f"{size} x {size}" for size in spec.sizes)
    return f"{squares} pixels, {spec.resize}{', and mirrored' if spec.mirror else ''}"


def verified(result: VerifyReport, format: Format) -> str:
    """Render what a check found. `paths` lists the photos that are lost until they are indexed again."""
    if format == "json":
        values = asdict(result) | {"directory": str(result.directory), "is_whole": result.is_whole}
        return json.dumps(values, ensure_ascii=False, indent=2)
    if format == "jsonl":
        return "\n".join(json.dumps(asdict(finding), ensure_ascii=False) for finding in result.findings)
    rows = [(finding.file, finding.problem, finding.way_out) for finding in result.findings]
    if format == "csv":
        return _csv(("file", "problem", "way_out"), rows)
    if format == "paths":
        return "\n".join(path for finding in result.findings for path in finding.photos)
    lines = [f"{one_line(file)} {one_line(problem)}: {way_out}." for file, problem, way_out in rows]
    return "\n".join([*lines, *_lost_photos(result.findings), *result.notes, _verdict(result)])


def _lost_photos(findings: Sequence[Finding], most: int = 10) -> list[str]:
    photos = [path for finding in findings for path in finding.photos]
    lines = [f"  {one_line(path)}" for path in photos[:most]]
    if len(photos) > most:
        lines.append(f"  and {len(photos) - most:,} more: vggsearch verify --format paths lists all")
    return lines


def _verdict(result: VerifyReport) -> str:
    found = len(result.findings)
    problems = f"{found:,} problem{'' if found == 1 else 's'}"
    state = "whole" if not found else f"{problems} repaired" if result.is_repaired else f"damaged, {problems}"
    held = f"{result.photos:,} photos, {result.parts:,} part{'' if result.parts == 1 else 's'}"
    read = f"{bytes_text(result.bytes)} read in {result.seconds:.1f} s"
    return f"{result.directory}: {state}; {held}, {read}"


def model(name: str, layer: str, size: int) -> str:
    """Render a network layer by layer; what `layer` cuts is marked."""
    wanted = parts(layer)
    reports = describe(name, size)
    deepest = max(number for number, report in enumerate(reports) if report.module.name in wanted)
    rows = []
    for number, report in enumerate(reports):
        module = report.module
        shape = " x ".join(str(side) for side in report.shape)
        mark = "<- embedding" if module.name in wanted else "" if number <= deepest else "not built"
        field = str(report.receptive_field)
        work = f"{report.multiply_adds / 1e6:,.1f}" if report.multiply_adds else ""
        parameters = f"{module.parameters:,}" if module.parameters else ""
        rows.append((module.name, shape, parameters, work, field, mark))
    built, whole = reports[: deepest + 1], reports
    for title, part in ((f"up to {reports[deepest].module.name}", built), ("whole network", whole)):
        parameters = f"{sum(report.module.parameters for report in part):,}"
        rows.append((title, "", parameters, f"{sum(report.multiply_adds for report in part) / 1e6:,.1f}", "", ""))
    head = ("module", f"output at {size}", "parameters", "M multiply-adds", "sees, pixels", layer)
    return _table(head, rows, right=range(1, 5), rule_before=len(reports))


def bench(measured: BenchReport, format: Format) -> str:
    """Render how fast each stage is, next to what bounds it, as a table or as JSON."""
    if format == "json":
        return json.dumps(asdict(measured), ensure_ascii=False, indent=2)
    each = measured
    rows = [
        ("decoding alone", each.decode_per_s, ""),
        ("the network alone", each.forward_per_s, f"{each.forward_per_s / each.limit_per_s:.0%} of the limit"),
        (
            "both together",
            each.end_to_end_per_s,
            f"{each.end_to_end_per_s / each.forward_per_s:.0%} of the network",
        ),
        ("this machine's limit", each.limit_per_s, "large convolutions in the same precision"),
    ]
    table = _table(
        ("stage", "photos/s", ""), [(name, f"{rate:,.1f}", note) for name, rate, note in rows], right=[1]
    )
    example = timedelta(seconds=round(EXAMPLE_PHOTOS / each.end_to_end_per_s))
    return (
        f"{each.engine}, {each.device}, {each.precision}\n\n{table}\n\n"
        f"{EXAMPLE_PHOTOS:,} photos take about {example} (hours:minutes:seconds)."
    )


def engines(measured: Sequence[EngineReport], format: Format) -> str:
    """Render how fast each engine and precision is, and how near to fp32, as a table or as JSON."""
    if format == "json":
        return json.dumps([asdict(each) for each in measured], ensure_ascii=False, indent=2)
    rows = [
        (each.engine, each.device, each.precision, f"{each.forward_per_s:,.1f}",
         f"{each.cosine:.5f}", f"{each.worst_cosine:.5f}")
        for each in measured
    ]  # fmt: skip
    return _table(("engine", "device", "precision", "photos/s", "cosine", "worst"), rows, right=range(3, 6))


def recipes(format: Format) -> str:
    """Render the recipes there are, with what each takes and can, as a table or as JSON."""
    dim = WHITENING.dim
    can = ("exact", "remove", "merge", "range", "memory-map", "card")
    rows = [
        (each.name, each.says, each.factory, each.code_bytes(dim),
         (each.is_exact, each.can_remove, each.can_merge, each.has_range, each.can_map, each.on_card))
        for each in RECIPES.values()
    ]  # fmt: skip
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
        _table(("recipe", "what it is", f"bytes of {dim} numbers", *can), cells, right=[2])
        + f"\n\nauto is flat up to {BUILD.most_flat_rows:,} photos, then ivf-pq; ivf-sq8 where that finds too "
        "little, ivf-rabitq where memory is short. Beside it lie "
        f"{2 * dim:,} bytes a photo, which are only mapped: every similarity is computed from them, so that it is "
        "exact with every recipe. A FAISS factory string is a recipe, too: IVF1024,PQ48."
    )


SPLIT = ": more would not fit, so that the lists stay on disk, and a query may read there"


def plan(planned: Plan, format: Format) -> str:
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
        f"{made.photos:,} photos in {made.seconds:.1f} s: {_search(made.facts)}, {bytes_text(made.bytes)} in "
        f"{made.directory}"
    )


def _search(facts: SearchFacts) -> str:
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


def figures(measured: Figures, format: Format) -> str:
    """Render how good the answers were, as a table or as JSON."""
    if format == "json":
        return json.dumps(asdict(measured), indent=2)
    threshold = measured.threshold_at_p99
    rows = [
        ("mAP", f"{measured.map:.3f}", ""),
        *((f"recall@{k}", f"{share:.3f}", "") for k, share in measured.recall_at.items()),
        *([("N-S, of 4", f"{measured.ns:.3f}", "")] if measured.ns is not None else []),
        ("micro-AP of all pairs", f"{measured.pair_ap:.3f}", _interval(measured.pair_ap_interval)),
        ("recall at 99 % precision", f"{measured.recall_at_p99:.3f}", _interval(measured.recall_at_p99_interval)),
        ("  at a similarity of", f"{threshold:.4f}" if threshold is not None else "none", ""),
    ]
    asked = f"{measured.queries:,} queries, {measured.images:,} photos"
    alone = f", {measured.without_partner:,} without another of their label" if measured.without_partner else ""
    return _table(("figure", "value", "95 % interval"), rows, right=[1]) + f"\n\n{asked}{alone}"


def _interval(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def copies(found: CopiesReport, format: Format) -> str:
    """Render how well edited copies are found again, of each edit and of all, as a table or as JSON."""
    if format == "json":
        by_edit = {edit: asdict(each) for edit, each in found.by_edit.items()}
        return json.dumps({**asdict(found.figures), "photos": found.photos, "by_edit": by_edit}, indent=2)
    rows = [(name, EDITS[name].says, *_shares(each)) for name, each in found.by_edit.items()]
    rows.append(("all", "under one threshold", *_shares(found.figures)))
    head = ("edit", "what it does", "recall@1", "recall@10", "micro-AP", "r@P99", "threshold")
    table = _table(head, rows, right=range(2, 7), rule_before=len(found.by_edit))
    return (
        f"{table}\n\n{found.figures.queries:,} copies of {found.photos:,} photos, searched among "
        f"{found.figures.images:,}. 95 % intervals of the last line: micro-AP "
        f"{_interval(found.figures.pair_ap_interval)}, r@P99 {_interval(found.figures.recall_at_p99_interval)}."
    )


def _shares(measured: Figures) -> tuple[str, ...]:
    threshold = measured.threshold_at_p99
    shares = (measured.recall_at[1], measured.recall_at[10], measured.pair_ap, measured.recall_at_p99)
    return (*(f"{share:.3f}" for share in shares), f"{threshold:.4f}" if threshold is not None else "none")


def probe(measured: ProbeReport, format: Format) -> str:
    """Render how well a linear classifier tells the classes apart, as a table or as JSON."""
    if format == "json":
        return json.dumps(asdict(measured), ensure_ascii=False, indent=2)
    rows = [
        ("mean class recall", f"{measured.mean_class_recall:.1%} ± {measured.std:.1%}"),
        ("of each split", ", ".join(f"{recall:.1%}" for recall in measured.by_split)),
        ("classes", f"{measured.classes:,}"),
        ("photos to train, to test", f"{measured.train:,}, {measured.test:,}"),
    ]
    if measured.single:
        rows.append(("left out, one photo each", ", ".join(measured.single)))
    return _table(("linear probe", ""), rows)


def update_line(report: UpdateReport, directory: Path) -> str:
    """Return the closing line of an update: what was done, how fast, where it is."""
    others = sum(skipped.kind == "not a picture" for skipped in report.skipped)
    counts = [
        f"{report.indexed:,} indexed",
        f"{report.reused:,} renamed or copied" if report.reused else "",
        f"{report.unchanged:,} unchanged",
        f"{report.gone:,} gone" if report.gone else "",
        f"{len(report.skipped) - others:,} skipped",
        f"{others:,} other file{'s' if others > 1 else ''}" if others else "",
    ]
    rate = f" ({report.indexed / report.seconds:.1f} photos/s)" if report.indexed else ""
    done = ", ".join(filter(None, counts))
    return f"{done} in {report.seconds:.1f} s{rate}: {report.photos:,} photos in {directory}"


def skipped_lines(skipped: Sequence[Skipped], most: int = 10) -> list[str]:
    """Return a line for each of the first files that were skipped, and one for the rest; non-pictures aside."""
    told = [row for row in skipped if row.kind != "not a picture"]
    lines = [f"skipped {one_line(row.path)}: {row.reason}" for row in told[:most]]
    if len(told) > most:
        lines.append(f"skipped {len(told) - most:,} more: vggsearch info --skipped lists all")
    return lines


def bytes_text(count: float) -> str:
    """Return a number of bytes for a person: 1_234_567 -> "1.2 MB"."""
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _csv(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    rule_before: int | None = None,
) -> str:
    """Return aligned columns; those in `right` are numbers. A rule goes before row `rule_before`."""
    from rich.box import SIMPLE_HEAD  # here, since JSON needs none of it
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, title in enumerate(head):
        table.add_column(title, justify="right" if number in right else "left", no_wrap=True)
    for number, row in enumerate(rows):
        if number == rule_before:
            table.add_section()
        table.add_row(*(Text(one_line(cell)) for cell in row))
    text = io.StringIO()
    Console(file=text, width=WIDE, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
