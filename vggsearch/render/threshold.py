"""How the pairs that are called duplicates were chosen, to text: a sentence, a table, a histogram."""

import math
from collections.abc import Sequence

import numpy as np

from vggsearch.duplicates.calibration import Calibration
from vggsearch.duplicates.classify import ClassifiedPairs
from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.render.text import as_table

BAR = 40  # characters of the longest bar


def chosen_line(report: DuplicatesReport) -> str:
    """Say in a sentence how pairs were chosen, and what is expected of that."""
    found = report.found
    looked_at = f"{len(found.compared):,} pairs of {report.photos:,} photos looked at"
    if found.threshold is not None:
        return f"{looked_at}; duplicates have a similarity of {found.threshold:g} or more, as was asked"
    if found.least_confidence is None:
        return f"{looked_at}; none is likely enough a pair of duplicates"
    said = f"{looked_at}; duplicates have a confidence of {found.least_confidence:.0%} or more"
    if found.precision is not None:
        said += f": {found.precision:.1%} of their pairs are expected to be right"
    if found.recall is not None:
        said += f", and {found.recall:.0%} of edited copies to be found"
    return said


def notes(report: DuplicatesReport) -> list[str]:
    """Return what a person should know besides: what was left out, and why."""
    lines = [f"{count:,} pairs left alone: {why}" for why, count in sorted(report.found.left_alone.items())]
    if report.blank:
        lines.append(f"{report.blank:,} blank photos left out: all are alike")
    if not report.was_compared:
        lines.append("the photos were not looked at: look-alikes may be taken for duplicates")
    if not report.found.is_whole:
        lines.append("stopped early: the less similar pairs were not looked at; run it again to go on")
    return lines


def explanation(report: DuplicatesReport) -> str:
    """Render the calibration: what keypoints are worth, how the pairs spread over similarity, and what follows."""
    found = report.found
    blocks = [chosen_line(report)]
    if found.calibration is not None and report.was_compared:
        blocks.append(_evidence(found.calibration))
    blocks.append(_histogram(found))
    blocks.append(_choices(found))
    return "\n\n".join(blocks)


def _evidence(calibration: Calibration) -> str:
    starts = calibration.inliers
    rows = [
        (_between(start, end), f"{np.exp(value):,.3g}")
        for start, end, value in zip(starts, (*starts[1:], None), calibration.evidence, strict=True)
    ]
    return (
        "Keypoints that fit in both photos, and how many times likelier that is for a copy than for others\n"
        "(learned from edited copies of this folder's photos, and from pairs that have nothing in common):\n\n"
    ) + as_table(("keypoints", "times likelier"), rows, right=[1])


def _between(start: int, end: int | None) -> str:
    if end is None:
        return f"{start} and more"
    return "none" if start == 0 else f"{start}" if end == start + 1 else f"{start} to {end - 1}"


def _histogram(found: ClassifiedPairs) -> str:
    similarity = found.compared.similarity
    bins = np.arange(0.2, 1.0001, 0.05)
    counts = np.histogram(similarity, bins)[0]
    sure = np.histogram(similarity, bins, weights=found.compared.confidence)[0]
    most = max(1, int(counts.max(initial=1)))
    rows = [
        (f"{low:.2f}", f"{count:,}", f"{expected:,.0f}", _bar(count, expected, most))
        for low, count, expected in zip(bins[:-1], counts.tolist(), sure.tolist(), strict=True)
    ]
    return (
        "Pairs by the similarity of their embeddings; # are expected to be duplicates, . are not:\n\n"
        + as_table(("from", "pairs", "duplicates", ""), rows, right=[0, 1, 2])
    )


def _bar(count: int, expected: float, most: int) -> str:
    """Return a bar on a logarithmic scale, so that a few pairs are seen beside many."""
    if not count:
        return ""
    length = max(1, round(BAR * math.log1p(count) / math.log1p(most)))
    full = round(length * expected / count)
    return "#" * full + "." * (length - full)


def _choices(found: ClassifiedPairs) -> str:
    """Return a table of what other confidences would give."""
    confidence = found.compared.confidence
    rows = []
    for least in (0.999, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5):
        chosen = confidence[confidence >= least]
        right = f"{chosen.mean():.2%}" if len(chosen) else ""
        recall = found.calibration.recall(least) if found.calibration is not None else 0.0
        rows.append((f"{least:.1%}", f"{len(chosen):,}", right, f"{recall:.0%}" if recall else ""))
    return "What each least confidence gives:\n\n" + as_table(
        ("confidence from", "pairs", "right, expected", "copies found, expected"), rows, right=range(4)
    )


def as_values(report: DuplicatesReport) -> dict[str, object]:
    """Return the same for JSON."""
    found = report.found
    calibration = found.calibration
    return {
        "photos": report.photos,
        "blank": report.blank,
        "pairs_looked_at": len(found.compared),
        "least_confidence": found.least_confidence,
        "threshold": found.threshold,
        "expected_precision": found.precision,
        "expected_recall": found.recall,
        "left_alone": found.left_alone,
        "was_compared": report.was_compared,
        "is_whole": found.is_whole,
        "evidence": _pairs(calibration.inliers, calibration.evidence) if calibration is not None else [],
        "shares": _pairs(calibration.similarities, calibration.shares) if calibration is not None else [],
    }


def _pairs(firsts: Sequence[float], seconds: Sequence[float]) -> list[list[float]]:
    return [list(pair) for pair in zip(firsts, seconds, strict=True)]
