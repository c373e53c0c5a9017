import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from vggsearch.defaults import MEASURE
from vggsearch.errors import InstallationError, TruthError
from vggsearch.evaluation.linear_probe import _class_recall, _split, linear_probe

DIM = 16


def photos(counts: list[int], spread: float, seed: int = 0) -> tuple[NDArray[np.float32], list[str]]:
    """Return unit vectors around a centre for each class, and their labels; large spreads make classes one."""
    random = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(counts)), counts)
    rows = random.standard_normal((len(counts), DIM))[classes] + spread * random.standard_normal(
        (len(classes), DIM)
    )
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit, [f"class {number}" for number in classes]


def test_classes_that_lie_apart_are_told_apart() -> None:
    report = linear_probe(*photos([40, 35, 90, 100], spread=0.1))
    assert (report.classes, report.train, report.test) == (4, 4 * 30, 10 + 5 + 50 + 50)
    assert (report.mean_class_recall, report.std, report.by_split) == (1.0, 0.0, (1.0, 1.0, 1.0))


def test_labels_that_mean_nothing_are_told_by_chance() -> None:
    embeddings, _ = photos([400], spread=1.0)
    labels = np.random.default_rng(1).permutation(np.repeat(list("abcde"), 80))
    report = linear_probe(embeddings, list(labels))
    assert report.mean_class_recall == pytest.approx(1 / 5, abs=0.06)


def test_what_is_tested_was_not_trained_on() -> None:
    rows_of = {"a": np.arange(0, 100), "b": np.arange(100, 131), "c": np.arange(131, 133)}
    for seed in range(20):
        train, test = _split(rows_of, np.random.default_rng(seed))
        assert set(train).isdisjoint(test)
        assert len(set(train)) == len(train) == 30 + 30 + 1
        assert len(set(test)) == len(test) == 50 + 1 + 1


@pytest.mark.parametrize(("count", "train"), [(2, 1), (3, 2), (25, 16), (30, 20), (31, 30), (200, 30)])
def test_a_small_class_trains_on_two_thirds(count: int, train: int) -> None:
    found, test = _split({"a": np.arange(count)}, np.random.default_rng(0))
    assert (len(found), len(test)) == (train, min(count - train, 50))


def test_the_report_is_the_mean_of_splits_that_differ_and_are_the_same_each_time() -> None:
    report = linear_probe(*photos([40, 40, 40], spread=1.5))
    assert report == linear_probe(*photos([40, 40, 40], spread=1.5))
    assert len(set(report.by_split)) > 1
    assert len(report.by_split) == MEASURE.splits
    assert report.mean_class_recall == pytest.approx(np.mean(report.by_split))
    assert report.std == pytest.approx(np.std(report.by_split))
    assert 1 / 3 < report.mean_class_recall < 1


def test_each_class_counts_the_same_however_many_photos_it_has() -> None:
    embeddings, labels = photos([80, 33], spread=0.1)
    embeddings[110:] = embeddings[:3]  # the last three of the second class look like the first
    train, test = np.r_[0:30, 80:110], np.r_[30:80, 110:113]
    assert _class_recall(embeddings, np.array(labels), train, test) == 0.5


def test_a_class_of_one_photo_is_left_out_and_named() -> None:
    report = linear_probe(*photos([1, 10, 1, 10], spread=0.1))
    assert (report.classes, report.single) == (2, ("class 0", "class 2"))
    assert (report.train, report.test) == (12, 8)


@pytest.mark.parametrize("counts", [[5], [5, 1], [1, 1, 1]])
def test_fewer_than_two_classes_are_refused(counts: list[int]) -> None:
    with pytest.raises(TruthError, match=rf"{sum(n > 1 for n in counts)} of {len(counts)} labels have two photos"):
        linear_probe(*photos(counts, spread=0.1))


def test_without_scikit_learn_the_way_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(InstallationError, match=r"needs scikit-learn .*pip install scikit-learn"):
        linear_probe(*photos([5, 5], spread=0.1))
