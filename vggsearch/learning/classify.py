"""Label the photos of an index from those that are labelled, and find labels that look wrong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import LEARN
from vggsearch.knn.vectors import blocks_of, unit_rows
from vggsearch.learning.classifier import (
    Calibration,
    Classifier,
    Opinion,
    Scores,
    cross_validated,
    mislabelled,
    strangers,
)
from vggsearch.learning.labelled import (
    LabelledPhotos,
    Labels,
    check_counts,
    labelled_photos,
    labels_of,
    warn_of_copies,
)
from vggsearch.learning.validation import Measured, measured
from vggsearch.progress import Monitor
from vggsearch.query.snapshot import LatestSnapshot
from vggsearch.store.store import Store
from vggsearch.tables import Table, Tabular, arrow_table

BLOCK = 1024  # photos classified at once
DECIMALS = 4  # of a probability


@dataclass(frozen=True, slots=True)
class Classified:
    """A photo without a label, and which it probably has.

    `label` is None if it probably has none of them; `probability`, 0..1, is that this is right. `best` is the most
    probable label in any case, and `nearest` the most similar labelled photo.

    >>> Classified("a.jpg", None, 0.9, "cat", "b.jpg").best
    'cat'
    """

    path: str
    label: str | None
    probability: float
    best: str
    nearest: str


@dataclass(frozen=True, slots=True)
class WrongLabel:
    """A labelled photo that looks like photos of another label, `suggested`, with the probability of each, 0..1.

    >>> WrongLabel("a.jpg", "dog", 0.02, "cat", 0.97).suggested
    'cat'
    """

    path: str
    label: str
    probability: float
    suggested: str
    suggested_probability: float


@dataclass(frozen=True)
class ClassifyReport(Tabular):
    """The photos without a label, in row order, and the `wrong` labels, least probable first.

    `labelled` photos with one of `labels` were learned from. `accuracy` is the share of them for which classifiers
    that had learned from the others, but not from copies of them, gave the same label.

    >>> cat = Classified("a.jpg", "cat", 0.9, "cat", "b.jpg")
    >>> report = ClassifyReport((cat,), (), ("cat", "dog"), 20, Measured(0.9, Interval(0.8, 1.0)))
    >>> report.to_arrow().to_pylist()
    [{'path': 'a.jpg', 'label': 'cat', 'probability': 0.9, 'best': 'cat', 'nearest': 'b.jpg'}]
    """

    photos: tuple[Classified, ...]
    wrong: tuple[WrongLabel, ...]
    labels: tuple[str, ...]
    labelled: int
    accuracy: Measured

    def to_arrow(self) -> Table:
        """Return one row per photo without a label; its label is null if it has none of them."""
        columns = dict.fromkeys(("path", "label", "probability", "best", "nearest"), "string")
        rows = ((each.path, each.label, each.probability, each.best, each.nearest) for each in self.photos)
        return arrow_table(columns | {"probability": "double"}, rows)


def classify(store: Store, latest: LatestSnapshot, labels: Labels, monitor: Monitor) -> ClassifyReport:
    """Label the photos that have no label; see ImageIndex.classify."""
    given = labels_of(labels)
    photos = latest.read(lambda state: labelled_photos(state, given))
    check_counts(photos, LEARN.fewest_examples)
    warn_of_copies(photos)
    monitor.step("learning", 0, 1, "stages")
    positions, tested = cross_validated(photos)
    calibration = Calibration.learned(tested, photos.label[positions], strangers(photos))
    monitor.step("learning", 1, 1, "stages")
    probabilities = calibration.probabilities(tested)
    right = probabilities.argmax(axis=1) == photos.label[positions]
    return ClassifyReport(
        store.read_consistently(lambda present: tuple(_others(present, photos, given, calibration, monitor))),
        tuple(_wrong(photos, positions, probabilities)),
        photos.names,
        len(photos),
        measured(right.astype(float).tolist()),
    )


def _others(
    store: Store, photos: LabelledPhotos, labels: Mapping[str, str], calibration: Calibration, monitor: Monitor
) -> Iterator[Classified]:
    """Yield what is said about each photo that is neither labelled nor blank, in row order."""
    classifier, paths = Classifier(photos, np.arange(len(photos))), store.paths()
    blank = set(store.blank_rows().tolist())
    start = 0
    for block in blocks_of(store.embeddings(), BLOCK):
        rows = range(start, start + len(block))
        asked = [row for row in rows if row not in blank and paths[row] not in labels]
        start += len(block)
        if asked:
            opinion = classifier.opinion(unit_rows(block[np.array(asked) - rows.start]))
            yield from _classified([paths[row] for row in asked], opinion, photos, calibration)
        monitor.step("classifying", start, len(paths))


def _classified(
    paths: list[str], opinion: Opinion, photos: LabelledPhotos, calibration: Calibration
) -> Iterator[Classified]:
    probabilities, known = calibration.probabilities(opinion), calibration.known(opinion)
    best = probabilities.argmax(axis=1)
    for at, path in enumerate(paths):
        name, is_known = photos.names[best[at]], known[at] >= LEARN.least_known
        probability = known[at] * probabilities[at, best[at]] if is_known else 1 - known[at]
        nearest = photos.paths[opinion.neighbour[at]]
        yield Classified(path, name if is_known else None, round(float(probability), DECIMALS), name, nearest)


def _wrong(photos: LabelledPhotos, positions: NDArray[np.int64], probabilities: Scores) -> Iterator[WrongLabel]:
    label = photos.label[positions]
    at, suggested = mislabelled(probabilities, label)
    order = np.argsort(probabilities[at, label[at]], kind="stable")
    for place, other in zip(at[order].tolist(), suggested[order].tolist(), strict=True):
        own = int(label[place])
        yield WrongLabel(
            photos.paths[positions[place]],
            photos.names[own],
            round(float(probabilities[place, own]), DECIMALS),
            photos.names[other],
            round(float(probabilities[place, other]), DECIMALS),
        )
