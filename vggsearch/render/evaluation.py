"""Measured retrieval quality to text."""

import json
from dataclasses import asdict

from vggsearch.defaults import Format
from vggsearch.evaluation.compare import ComparisonReport, Gain
from vggsearch.evaluation.evaluate import CopiesReport
from vggsearch.evaluation.linear_probe import ProbeReport
from vggsearch.measures.metrics import Figures, Interval
from vggsearch.photos.edits import EDITS
from vggsearch.render.text import as_table, quantity


def figures(measured: Figures, format: Format) -> str:
    """Render the retrieval quality on labelled photos, as a table or as JSON."""
    if format == "json":
        return json.dumps(asdict(measured), indent=2)
    threshold = measured.threshold_at_p99
    rows = [
        ("mAP", f"{measured.map:.3f}", ""),
        *((f"recall@{k}", f"{share:.3f}", "") for k, share in measured.recall_at.items()),
        *([("N-S score, of 4", f"{measured.ns:.3f}", "")] if measured.ns is not None else []),
        ("micro-AP over all pairs", f"{measured.pair_ap:.3f}", _interval(measured.pair_ap_interval)),
        ("recall at 99% precision", f"{measured.recall_at_p99:.3f}", _interval(measured.recall_at_p99_interval)),
        ("  similarity threshold", f"{threshold:.4f}" if threshold is not None else "none", ""),
    ]
    counts = f"{quantity(measured.queries, 'query', 'queries')}, {quantity(measured.images, 'photo')}"
    alone = f", {measured.without_partner:,} with a label of their own" if measured.without_partner else ""
    return as_table(("metric", "value", "95% interval"), rows, right=[1]) + f"\n\n{counts}{alone}"


def _interval(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def comparison(found: ComparisonReport, format: Format) -> str:
    """Render the figures of several indexes, and their gains over the first one, as a table or as JSON."""
    if format == "json":
        return json.dumps(asdict(found), ensure_ascii=False, indent=2)
    rows = [
        (
            each.index,
            f"{each.figures.map:.3f}",
            _gain(each.map_gain) if place else "",
            f"{each.figures.recall_at[1]:.3f}",
            _gain(each.recall_at_1_gain) if place else "",
            f"{each.figures.pair_ap:.3f}",
        )
        for place, each in enumerate(found.indexes)
    ]
    head = ("index", "mAP", "gain", "recall@1", "gain", "micro-AP")
    return (
        as_table(head, rows, right=[1, 3, 5])
        + f"\n\n{quantity(found.queries, 'query', 'queries')}, the same of each "
        "index. Gains are over the first index, with 95% intervals."
    )


def _gain(gain: Gain) -> str:
    return f"{gain.value:+.3f} ({gain.interval.low:+.3f} to {gain.interval.high:+.3f})"


def copies(found: CopiesReport, format: Format) -> str:
    """Render how well edited copies are found, by edit and in all, as a table or as JSON."""
    if format == "json":
        by_edit = {edit: asdict(each) for edit, each in found.by_edit.items()}
        return json.dumps({**asdict(found.figures), "photos": found.photos, "by_edit": by_edit}, indent=2)
    rows = [(name, *_shares(each), EDITS[name].description) for name, each in found.by_edit.items()]
    rows.append(("all edits", *_shares(found.figures), "with one threshold"))
    head = ("edit", "R@1", "R@10", "micro-AP", "R@P99", "threshold", "description")
    table = as_table(head, rows, right=range(1, 6), rule_before=len(found.by_edit))
    made = quantity(found.figures.queries, "edited copy", "edited copies")
    return (
        f"{table}\n\n{made} of {quantity(found.photos, 'photo')}, searched among "
        f"{quantity(found.figures.images, 'photo')}.\n"
        "R@1, R@10: recall at 1 and 10 results; R@P99: recall at 99% precision, and its threshold.\n"
        f"95% intervals over all edits: micro-AP {_interval(found.figures.pair_ap_interval)}, "
        f"R@P99 {_interval(found.figures.recall_at_p99_interval)}."
    )


def _shares(measured: Figures) -> tuple[str, ...]:
    threshold = measured.threshold_at_p99
    shares = (measured.recall_at[1], measured.recall_at[10], measured.pair_ap, measured.recall_at_p99)
    return (*(f"{share:.3f}" for share in shares), f"{threshold:.4f}" if threshold is not None else "none")


def probe(measured: ProbeReport, format: Format) -> str:
    """Render the accuracy of a linear classifier on the embeddings, as a table or as JSON."""
    if format == "json":
        return json.dumps(asdict(measured), ensure_ascii=False, indent=2)
    rows = [
        ("mean class recall", f"{measured.mean_class_recall:.1%} ± {measured.std:.1%}"),
        ("per split", ", ".join(f"{recall:.1%}" for recall in measured.by_split)),
        ("classes", f"{measured.classes:,}"),
        ("training, test photos", f"{measured.train:,}, {measured.test:,}"),
    ]
    if measured.single:
        rows.append(("excluded, one photo each", ", ".join(measured.single)))
    return as_table(("linear probe", ""), rows)
