"""Measured quality to text."""

import json
from dataclasses import asdict

from vggsearch.defaults import Format
from vggsearch.evaluation.evaluate import CopiesReport
from vggsearch.evaluation.linear_probe import ProbeReport
from vggsearch.evaluation.metrics import Figures, Interval
from vggsearch.photos.edits import EDITS
from vggsearch.render.text import as_table


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
    return as_table(("figure", "value", "95 % interval"), rows, right=[1]) + f"\n\n{asked}{alone}"


def _interval(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def copies(found: CopiesReport, format: Format) -> str:
    """Render how well edited copies are found again, of each edit and of all, as a table or as JSON."""
    if format == "json":
        by_edit = {edit: asdict(each) for edit, each in found.by_edit.items()}
        return json.dumps({**asdict(found.figures), "photos": found.photos, "by_edit": by_edit}, indent=2)
    rows = [(name, EDITS[name].description, *_shares(each)) for name, each in found.by_edit.items()]
    rows.append(("all", "under one threshold", *_shares(found.figures)))
    head = ("edit", "what it does", "recall@1", "recall@10", "micro-AP", "r@P99", "threshold")
    table = as_table(head, rows, right=range(2, 7), rule_before=len(found.by_edit))
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
    return as_table(("linear probe", ""), rows)
