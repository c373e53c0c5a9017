"""How pairs were classified as duplicates, to text: a sentence, tables, a histogram."""

import math
from collections.abc import Sequence

import numpy as np

from vggsearch.defaults import PAIRS
from vggsearch.duplicates.calibration import Calibration
from vggsearch.duplicates.classify import ClassifiedPairs
from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.errors import shell_word
from vggsearch.photos.walk import one_line
from vggsearch.render.duplicates import confidence_text
from vggsearch.render.text import as_table, quantity

BAR = 40  # characters of the longest bar
MOST_NAMED = 3  # photos that a line names


def chosen_line(report: DuplicatesReport) -> str:
    """Say in a sentence how pairs were classified, and what precision and recall are expected."""
    found = report.classified
    pairs = quantity(len(found.compared), "candidate pair")
    compared = f"Compared {pairs} among {quantity(report.photos, 'photo')}"
    if found.threshold is not None:
        return f"{compared}. Duplicates have a similarity of {found.threshold:g} or more, as specified."
    if found.min_confidence is None:
        return f"{compared}. No pair is likely enough to be a duplicate, exact copies aside."
    expected = [
        f"{confidence_text(found.precision)} of these pairs are right" if found.precision is not None else "",
        _recall_text(report),
    ]
    expectation = f" Expected: {', '.join(filter(None, expected))}." if any(expected) else ""
    confidence = confidence_text(found.min_confidence)
    return f"{compared}. Duplicates have a confidence of {confidence} or more.{expectation}"


def _recall_text(report: DuplicatesReport) -> str:
    """Say what share of the edited copies is found, and where it likely lies; "" if that is unknown."""
    recall, likely = report.classified.recall, report.recall_range
    if recall is None or likely is None:
        return ""
    return f"{recall:.0%} of edited copies are found ({likely[0]:.0%} to {likely[1]:.0%})"


def notes(report: DuplicatesReport) -> list[str]:
    """Return what else the user should know: what was excluded, and why."""
    lines = [
        f"Excluded {quantity(count, 'pair')}: {why}." for why, count in sorted(report.classified.excluded.items())
    ]
    if report.blank:
        lines.append(f"Excluded {quantity(report.blank, 'blank photo')}: all blank photos look the same.")
    if report.stale:
        lines.append(_stale_line(report))
    if not report.was_compared:
        lines.append("The photos themselves were not compared: look-alikes may be reported as duplicates.")
    if not report.classified.is_complete:
        lines.append("Stopped early: the less similar pairs were not compared. Run it again to continue.")
    return lines


def _stale_line(report: DuplicatesReport) -> str:
    """Say which photos were left out because their file is not the one that was indexed, and what to do."""
    named = ", ".join(map(one_line, report.stale[:MOST_NAMED]))
    more = f" and {len(report.stale) - MOST_NAMED:,} more" if len(report.stale) > MOST_NAMED else ""
    what = (
        f"Left out {quantity(len(report.stale), 'photo')}, gone or changed since the last update: {named}{more}. "
    )
    folder = shell_word(report.root) if report.root is not None else "PHOTOS"
    disk = (
        "No photo was found as it was indexed: is the disk mounted? If so, update"
        if report.are_all_stale
        else "Update"
    )
    return f"{what}{disk} the index: vggsearch index {folder}"


def explanation(report: DuplicatesReport) -> str:
    """Render the calibration: the evidence of keypoints, the pairs by similarity, other possible choices."""
    found = report.classified
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
        "Keypoints that match in both photos, and the likelihood ratio of duplicates to other pairs\n"
        "(learned from edited copies of these photos, and from pairs of unrelated photos):\n\n"
    ) + as_table(("keypoints", "likelihood ratio"), rows, right=[1])


def _between(start: int, end: int | None) -> str:
    if end is None:
        return "the pixels agree, too"
    return "none" if start == 0 else f"{start}" if end == start + 1 else f"{start} to {end - 1}"


def _histogram(found: ClassifiedPairs) -> str:
    similarity = np.clip(found.compared.similarity, 0, 1)
    lowest = 20 if similarity.min(initial=1) >= PAIRS.floor else 0  # copies of one photo may be below the floor
    bins = np.arange(lowest, 101, 5) / 100
    counts = np.histogram(similarity, bins)[0]  # the last bin includes 1.0
    sure = np.histogram(similarity, bins, weights=found.compared.confidence)[0]
    most = max(1, int(counts.max(initial=1)))
    rows = [
        (f"{low:.2f}", f"{count:,}", f"{expected:,.0f}", _bar(count, expected, most))
        for low, count, expected in zip(bins[:-1], counts.tolist(), sure.tolist(), strict=True)
    ]
    return "Candidate pairs by similarity (# expected duplicates, . other pairs, log scale):\n\n" + as_table(
        ("similarity", "pairs", "duplicates", ""), rows, right=[0, 1, 2]
    )


def _bar(count: int, expected: float, most: int) -> str:
    """Return a bar on a logarithmic scale, so that a few pairs are visible beside many."""
    if not count:
        return ""
    length = max(1, round(BAR * math.log1p(count) / math.log1p(most)))
    full = round(length * expected / count)
    return "#" * full + "." * (length - full)


def _choices(found: ClassifiedPairs) -> str:
    """Return a table of what other minimum confidences would give."""
    confidence = found.compared.confidence
    rows = []
    for least in (0.999, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5):
        chosen = confidence[confidence >= least]
        right = f"{chosen.mean():.2%}" if len(chosen) else ""
        recall = found.calibration.recall(least) if found.calibration is not None else 0.0
        rows.append((f"{least:.1%}", f"{len(chosen):,}", right, f"{recall:.0%}" if recall else ""))
    head = ("min confidence", "pairs", "expected precision", "expected recall of copies")
    return "Results by minimum confidence:\n\n" + as_table(head, rows, right=range(4))


def as_values(report: DuplicatesReport) -> dict[str, object]:
    """Return the explanation for JSON."""
    found = report.classified
    calibration = found.calibration
    return {
        "photos": report.photos,
        "blank": report.blank,
        "pairs_compared": len(found.compared),
        "min_confidence": found.min_confidence,
        "threshold": found.threshold,
        "expected_precision": found.precision,
        "expected_recall": found.recall,
        "expected_recall_range": report.recall_range,
        "excluded": found.excluded,
        "photos_compared": report.was_compared,
        "is_complete": found.is_complete,
        "evidence": _pairs(calibration.inliers, calibration.evidence) if calibration is not None else [],
        "shares": _pairs(calibration.similarities, calibration.shares) if calibration is not None else [],
    }


def _pairs(firsts: Sequence[float], seconds: Sequence[float]) -> list[list[float]]:
    return [list(pair) for pair in zip(firsts, seconds, strict=True)]
