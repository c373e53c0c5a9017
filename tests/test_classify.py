"""Labels for photos that have none, none for what is unlike all, and labels that look wrong."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.fakes import FakeEngine
from tests.helpers.labelled import add_photos, index_of_kinds, kinds_of_photos, path_of
from tests.make_golden_index import SMALL_SPEC
from vggsearch.cli import cli
from vggsearch.errors import Stopped, TruthError
from vggsearch.image_index import ImageIndex
from vggsearch.learning.classifier import Calibration, Classifier, Opinion, cross_validated, mislabelled
from vggsearch.learning.labelled import labelled_photos

KINDS, EACH, LABELLED = 6, 15, 5


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, str]:
    """The kinds of the photos in an index, tmp_path / "kinds"."""
    return index_of_kinds(tmp_path / "kinds", KINDS, EACH)


@pytest.fixture
def index(tmp_path: Path, kinds: dict[str, str]) -> Iterator[ImageIndex]:
    with ImageIndex.open(tmp_path / "kinds", engine=FakeEngine(SMALL_SPEC.dim)) as opened:
        yield opened


def some_of_each(kinds: dict[str, str], count: int = LABELLED) -> dict[str, str]:
    return {path: kind for path, kind in kinds.items() if int(path[:4]) % EACH < count}


def test_most_photos_get_their_label_and_the_surest_nearly_all(index: ImageIndex, kinds: dict[str, str]) -> None:
    labels = some_of_each(kinds)
    report = index.classify(labels)
    assert [each.path for each in report.photos] == [path for path in kinds if path not in labels]
    right = np.array([kinds[each.path] == each.best for each in report.photos])
    surest = np.argsort([-each.probability if each.label else 1 for each in report.photos], kind="stable")
    assert right.mean() > 0.85
    assert right[surest[: len(surest) // 2]].mean() > 0.97
    assert all(each.nearest in labels for each in report.photos)
    assert (report.labelled, len(report.labels)) == (KINDS * LABELLED, KINDS)
    assert report.accuracy.value > 0.8


def test_what_is_unlike_all_labelled_photos_gets_no_label(index: ImageIndex, kinds: dict[str, str]) -> None:
    others = kinds_of_photos(1, 30, seed=7)
    others[:, 24:60] += 0.2 * np.random.default_rng(5).standard_normal((30, 36)).astype(np.float32)
    add_photos(index.directory, others, len(kinds))
    report = index.classify(some_of_each(kinds))
    of_others = [each.label for each in report.photos if each.path not in kinds]
    of_kinds = [each.label for each in report.photos if each.path in kinds]
    assert of_others.count(None) > 27
    assert of_kinds.count(None) < len(of_kinds) / 3


def test_wrong_labels_are_found(index: ImageIndex, kinds: dict[str, str]) -> None:
    wrong = {path_of(row): f"kind {(row // EACH + 1) % KINDS}" for row in (3, 20, 40, 61)}
    found = {each.path: each for each in index.classify(kinds | wrong).wrong}
    assert set(wrong) <= set(found)
    assert len(found) < 8
    for path, label in wrong.items():
        assert (found[path].label, found[path].suggested) == (label, kinds[path])
        assert found[path].suggested_probability > found[path].probability


def test_confident_learning_counts_a_photo_by_the_thresholds_of_all_labels() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.45, 0.55], [0.4, 0.6], [0.8, 0.2]])
    at, suggested = mislabelled(probabilities, np.array([0, 0, 0, 1, 1]))  # thresholds 0.683 and 0.4
    assert (at.tolist(), suggested.tolist()) == ([2, 4], [1, 0])


def test_no_opinion_rests_on_the_photo_itself_or_a_copy(tmp_path: Path) -> None:
    """Labels at random, and every photo twice: who learned from a copy would be right about it."""
    keys = [f"{row // 2:064x}" for row in range(80)]
    index_of_kinds(tmp_path / "index", 2, 40, keys)
    labels = {path_of(row): f"kind {(row // 2) % 2}" for row in range(80)}
    with ImageIndex.open(tmp_path / "index") as index:
        photos = index._session.latest.read(lambda state: labelled_photos(state, labels))
    positions, opinion = cross_validated(photos)
    assert positions.tolist() == list(range(80))
    assert not np.any(photos.content[opinion.neighbour] == photos.content)


def test_the_probability_of_a_label_grows_with_its_score() -> None:
    random = np.random.default_rng(0)
    label = np.arange(200) % 2
    linear = random.standard_normal((200, 2)) + 3 * np.eye(2)[label]
    tested = Opinion(linear, np.full((200, 2), 0.6) + random.normal(0, 0.1, (200, 2)), label)
    strangers = Opinion(linear, tested.nearest - 0.3, label)
    calibration = Calibration.learned(tested, label, strangers)
    probabilities = calibration.probabilities(tested)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert abs(probabilities.max(axis=1).mean() - (probabilities.argmax(axis=1) == label).mean()) < 0.02
    assert calibration.known(tested).mean() > 0.7 > 0.3 > calibration.known(strangers).mean()


def test_a_label_that_was_not_learned_has_no_probability(index: ImageIndex, kinds: dict[str, str]) -> None:
    photos = index._session.latest.read(lambda state: labelled_photos(state, kinds))
    opinion = Classifier(photos, np.flatnonzero(photos.label != 2)).opinion(photos.embeddings)
    probabilities = Calibration(1.0, 1.0, 1.0, 1.0, 0.0).probabilities(opinion)
    assert (probabilities[:, 2] == 0).all()


def test_one_photo_of_a_label_is_too_few(index: ImageIndex) -> None:
    with pytest.raises(TruthError, match="at least 2 different photos each"):
        index.classify({path_of(0): "a", path_of(1): "a", path_of(40): "b"})


def test_it_stops(index: ImageIndex, kinds: dict[str, str]) -> None:
    with pytest.raises(Stopped):
        index.classify(some_of_each(kinds), stop=lambda: True)


def test_the_command_line_prints_rows(index: ImageIndex, kinds: dict[str, str], tmp_path: Path) -> None:
    labels = some_of_each(kinds)
    truth = tmp_path / "truth.tsv"
    truth.write_text("path\tlabel\n" + "".join(f"{path}\t{label}\n" for path, label in labels.items()))
    report = index.classify(labels)
    words = ["classify", str(truth), "--index", str(index.directory)]

    def output(*more: str) -> str:
        done = CliRunner().invoke(cli, [*words, *more])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    rows = list(csv.DictReader(io.StringIO(output("--format", "csv"))))
    assert [(row["path"], row["label"] or None) for row in rows] == [
        (each.path, each.label) for each in report.photos
    ]
    values = json.loads(output("--format", "json"))
    assert [each["probability"] for each in values] == [each.probability for each in report.photos]
    assert output("--format", "paths").split() == [each.path for each in report.photos]
    assert f"{sum(each.label is None for each in report.photos)} with none of the 6 labels" in output()
    assert f"of {len(labels)} may be wrong." in output("--wrong-labels")
    shown = [json.loads(line)["path"] for line in output("--wrong-labels", "--format", "jsonl").splitlines()]
    assert shown == [each.path for each in report.wrong]
