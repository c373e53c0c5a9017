"""How well a linear classifier separates classes by their embeddings: the Caltech-101 protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import MEASURE
from vggsearch.errors import InstallationError, TruthError

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC


@dataclass(frozen=True)
class ProbeReport:
    """The mean class recall of a linear SVM, at most 1.0: the mean over all splits, and that of each split.

    `train` and `test` are numbers of photos in each split; `std` is the standard deviation between splits.
    `single` are the classes with a single photo, which are left out: they cannot be both trained and tested.

    >>> labels = {"a.jpg": "cat", "copy of a.jpg": "cat", "b.jpg": "dog", "trips/c.jpg": "dog"}
    >>> report = evaluate_probe(index, labels)
    >>> report.classes, report.train, report.test
    (2, 2, 2)
    """

    classes: int
    train: int
    test: int
    mean_class_recall: float
    std: float
    by_split: tuple[float, ...]
    single: tuple[str, ...]


def linear_probe(embeddings: NDArray[np.float32], labels: Sequence[str]) -> ProbeReport:
    """Train a linear SVM on some photos of each class, and test it on others, by the Caltech-101 protocol.

    `embeddings` are unit vectors, float32 (n, dim), with one label each. Each of three random splits, the same in
    every run, trains on 30 photos of a class and tests on up to 50 others; every class has the same weight
    (Simonyan & Zisserman, ICLR 2015, appendix B). A class of 30 photos or fewer, which Caltech-101 does not have,
    trains on two thirds of them. Raises TruthError if fewer than two classes have two photos, and InstallationError
    without scikit-learn.
    """
    rows_of = _rows_by_class(labels)
    usable = {label: rows for label, rows in rows_of.items() if len(rows) > 1}
    if len(usable) < 2:
        raise TruthError(
            f"The linear probe needs two labels with at least two photos each, but only {len(usable)} of "
            f"{len(rows_of):,} labels have two photos or more."
        )
    recalls = []
    for seed in range(MEASURE.splits):
        train, test = _split(usable, np.random.default_rng(seed))
        recalls.append(_class_recall(embeddings, np.asarray(labels), train, test))
    return ProbeReport(
        classes=len(usable),
        train=len(train),
        test=len(test),
        mean_class_recall=float(np.mean(recalls)),
        std=float(np.std(recalls)),
        by_split=tuple(recalls),
        single=tuple(label for label in rows_of if label not in usable),
    )


def _rows_by_class(labels: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return {label: np.array(rows[label], np.int64) for label in sorted(rows)}


def _split(
    rows_of: dict[str, NDArray[np.int64]], random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to train on and those to test on, which are disjoint."""
    train, test = [], []
    for rows in rows_of.values():
        mixed = random.permutation(rows)
        count = MEASURE.train_photos if len(rows) > MEASURE.train_photos else max(1, len(rows) * 2 // 3)
        train.append(mixed[:count])
        test.append(mixed[count : count + MEASURE.test_photos])
    return np.concatenate(train), np.concatenate(test)


def _class_recall(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.str_],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
) -> float:
    """Return the mean over classes of the fraction of their photos in `test` that are classified correctly."""
    predicted = _classifier().fit(embeddings[train], labels[train]).predict(embeddings[test])
    truth = labels[test]
    return float(np.mean([(predicted[truth == label] == label).mean() for label in np.unique(truth)]))


def _classifier() -> "LinearSVC":
    try:
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise InstallationError(
            f"The linear probe needs scikit-learn ({error}). Install it: pip install scikit-learn"
        ) from error
    # The primal problem: on it, liblinear's Newton method always converges and uses no random numbers.
    return LinearSVC(C=MEASURE.svm_c, dual=False)
