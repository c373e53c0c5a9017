"""A transform learned from labels: what it is, how it is tested, where it is stored and what it changes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.fakes import FakeEngine, picture
from tests.helpers.labelled import add_photos, index_of_kinds, kinds_of_photos, path_of
from tests.make_golden_index import SMALL_SPEC, TRANSFORM
from vggsearch.cli import cli
from vggsearch.defaults import LEARN
from vggsearch.errors import LearnedWorse, TruthError
from vggsearch.evaluation.evaluate import evaluate
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.build import set_learned
from vggsearch.indexing.integrity import verify
from vggsearch.knn.vectors import unit_rows
from vggsearch.learning.labelled import LabelledPhotos, labelled_photos
from vggsearch.learning.learn import LearnReport, Name
from vggsearch.learning.projection import Projections
from vggsearch.learning.validation import SIDES, Measured, Quality, Setting, best_setting, ranks_of, rounds_of
from vggsearch.measures.metrics import Interval, worst_ranks
from vggsearch.progress import SILENT
from vggsearch.render.learning import learned
from vggsearch.store.manifest import WhiteningInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

KINDS, EACH = 6, 12
FACTS = WhiteningInfo(rows=4, dim=TRANSFORM.dim, shrinkage=0.5)


@pytest.fixture(autouse=True)
def few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(LEARN, shrinkages=(0.1, 0.5), dims=(32,))
    for module in ("labelled", "validation"):
        monkeypatch.setattr(f"vggsearch.learning.{module}.LEARN", few)


@pytest.fixture
def labels(tmp_path: Path) -> dict[str, str]:
    """The kinds of the photos in an index, tmp_path / "kinds"."""
    return index_of_kinds(tmp_path / "kinds", KINDS, EACH)


@pytest.fixture
def kinds(tmp_path: Path, labels: dict[str, str]) -> Iterator[ImageIndex]:
    with ImageIndex.open(tmp_path / "kinds", engine=FakeEngine(SMALL_SPEC.dim)) as opened:
        yield opened


def photos_of(index: ImageIndex, labels: dict[str, str]) -> LabelledPhotos:
    return index._session.latest.read(lambda state: labelled_photos(state, labels))


def test_photos_of_one_label_scatter_alike_in_all_directions_afterwards() -> None:
    vectors, label = kinds_of_photos(4, 200), np.repeat(np.arange(4), 200)
    [transform] = Projections(vectors, label, vectors[:0]).whitenings(0.0, [SMALL_SPEC.dim])
    moved = (vectors @ transform.matrix.T + transform.bias).reshape(4, 200, -1)
    within = moved - moved.mean(axis=1, keepdims=True)
    scatter = np.einsum("kni,knj->ij", within, within) / 800
    assert np.abs(scatter - np.eye(len(scatter))).max() < 0.02


def test_few_photos_give_what_the_whole_space_gives() -> None:
    vectors, label = kinds_of_photos(4, 20), np.repeat(np.arange(4), 20)
    projections = Projections(vectors, label, vectors[:0])
    [reduced] = projections.whitenings(0.3, [16])
    means = vectors.reshape(4, 20, -1).mean(axis=1).astype(np.float64)
    deviations, all_of_them = vectors - means[label], vectors - vectors.mean(axis=0, dtype=np.float64)
    within, total = (each.T @ each / 80 for each in (deviations, all_of_them))
    values, axes = np.linalg.eigh(0.7 * within + 0.3 * np.trace(within) / SMALL_SPEC.dim * np.eye(SMALL_SPEC.dim))
    white = axes * values**-0.5 @ axes.T
    whole = np.linalg.eigh(white @ total @ white)[1][:, ::-1][:, :16].T @ white
    expected = unit_rows(all_of_them @ whole.T)
    found = reduced.apply(vectors)
    assert np.abs(found @ found.T - expected @ expected.T).max() < 1e-3


def test_queries_find_more_and_the_network_says_the_same(kinds: ImageIndex, labels: dict[str, str]) -> None:
    before, embeddings = evaluate(kinds, labels, rerank=False).figures.map, kinds.embeddings()
    report = kinds.learn({path: label for path, label in labels.items() if label < "kind 4"})
    assert report.is_saved
    assert report.problem is None
    assert report.held["learned"].map.value > report.held["network"].map.value + 0.2
    unlearned = {path: label for path, label in labels.items() if label >= "kind 4"}
    assert evaluate(kinds, labels, rerank=False).figures.map > before + 0.2
    assert evaluate(kinds, unlearned, rerank=False).figures.recall_at[1] > 0.8
    assert np.array_equal(kinds.embeddings(), embeddings)
    learned = kinds.info().learned
    assert learned is not None
    assert (learned.rows, learned.dim) == (4 * EACH, 32)


def test_forgetting_leaves_nothing(kinds: ImageIndex, labels: dict[str, str]) -> None:
    state = kinds._store.manifest
    kinds.learn(labels)
    assert kinds.forget()
    assert not kinds.forget()
    assert kinds._store.manifest == state
    assert len(list((kinds.directory / "search").iterdir())) == 1


def test_learning_again_replaces_what_was_learned(kinds: ImageIndex, labels: dict[str, str]) -> None:
    kinds.learn(labels)
    first = kinds._session.latest.searcher().index.whitening
    kinds.learn({path: label for path, label in labels.items() if int(path[:4]) % EACH < EACH - 2})
    second = kinds._session.latest.searcher().index.whitening
    assert first is not None
    assert second is not None
    assert not np.array_equal(first.matrix, second.matrix)
    found = kinds._session.latest.searcher()
    assert np.abs(found.index.unit_vectors(slice(None)) - second.apply(kinds.embeddings())).max() < 2e-3


@pytest.mark.parametrize(
    ("after", "note"),
    [(0.901, None), (0.879, "on labels it was not learned from, recall@1 falls from 0.920 to 0.879")],
)
def test_a_recall_below_the_interval_of_the_best_before_is_noted(after: float, note: str | None) -> None:
    def quality(recall: float) -> Quality:
        steady = Measured(0.5, Interval(0.4, 0.6))
        return Quality(50, steady, Measured(recall, Interval(recall - 0.02, recall + 0.02)), steady)

    unseen: dict[Name, Quality] = {"network": quality(0.9), "index": quality(0.92), "learned": quality(after)}
    report = LearnReport(200, 10, 0, 300, Setting(0.5, 128), unseen, unseen)
    assert (report.note, report.problem) == (note, None)
    assert (note is None) == ("Note:" not in learned(report, "table"))


def test_what_finds_less_is_not_stored_unless_wanted(kinds: ImageIndex, labels: dict[str, str]) -> None:
    mixed = dict(zip(labels, np.random.default_rng(1).permutation(list(labels.values())).tolist(), strict=True))
    with pytest.raises(LearnedWorse, match=r"its mAP is 0\.\d+, below 0\.\d+ .*even_if_worse=True") as refused:
        kinds.learn(mixed)
    assert refused.value.report.problem in str(refused.value)  # type: ignore[attr-defined]
    assert kinds.info().learned is None
    assert kinds.learn(mixed, even_if_worse=True).is_saved
    assert kinds.info().learned is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({path_of(row): "one" for row in range(8)}, "all have the label 'one'"),
        ({"elsewhere.jpg": "a", "too.jpg": "b"}, "none is labelled"),
        ({path_of(row): f"kind {row % 3}" for row in range(9)}, "at least 4 different photos each"),
    ],
)
def test_too_few_labels_are_an_error(kinds: ImageIndex, given: dict[str, str], message: str) -> None:
    with pytest.raises(TruthError, match=message):
        kinds.learn(given)
    assert kinds.info().learned is None


def test_files_of_the_same_bytes_with_different_labels_are_an_error(tmp_path: Path) -> None:
    keys = [f"{row % 20:064x}" for row in range(24)]
    labels = index_of_kinds(tmp_path / "index", 3, 8, keys)
    with (
        ImageIndex.open(tmp_path / "index") as index,
        pytest.raises(
            TruthError, match=r"0000\.jpg and 0020\.jpg are the same file, but labelled kind 0 and kind 2"
        ),
    ):
        index.learn(labels)


def test_no_test_learns_from_its_photos_or_their_copies(tmp_path: Path) -> None:
    keys = [f"{row - row % 3:064x}" if row % 4 == 0 else f"{row:064x}" for row in range(KINDS * EACH)]
    labels = index_of_kinds(tmp_path / "index", KINDS, EACH, keys)
    with ImageIndex.open(tmp_path / "index") as index:
        photos = photos_of(index, labels)
    assert photos.copies > 0
    rounds = rounds_of(photos)
    for each in rounds:
        assert not set(photos.content[each.train]) & set(photos.content[each.tested])
        assert not set(photos.label[each.train]) & set(photos.label[each.queries["unseen"]])
        assert set(photos.label[each.queries["held"]]) <= set(photos.label[each.train])
    for side in SIDES:
        asked = np.concatenate([each.queries[side] for each in rounds])
        assert len(np.unique(asked)) == len(asked) > 0
    assert set(np.concatenate([each.queries["unseen"] for each in rounds])) == set(range(len(photos)))


def test_what_the_user_called_the_same_counts_as_a_copy(kinds: ImageIndex, labels: dict[str, str]) -> None:
    assert photos_of(kinds, labels).copies == 0
    kinds.decide("same", [path_of(0), path_of(5)])
    photos = photos_of(kinds, labels)
    assert photos.copies == 1
    assert photos.content[0] == photos.content[5]


def test_ranks_need_no_order() -> None:
    random = np.random.default_rng(0)
    similarities = (random.integers(0, 20, 60) / 20).astype(np.float32)  # with ties
    relevant = random.random(60) < 0.3
    order = np.argsort(-similarities, kind="stable")
    assert np.array_equal(ranks_of(similarities, relevant), worst_ranks(similarities[order], relevant[order]))


def test_a_setting_that_loses_on_unseen_labels_is_not_chosen() -> None:
    held = np.array([[0.9, 0.9], [0.8, 0.8], [0.7, 0.7]])
    unseen = np.array([[0.3, 0.4], [0.6, 0.5], [0.9, 0.9]])
    assert best_setting(held, unseen, np.array([0.5, 0.5])) == 1
    assert best_setting(held, unseen, np.array([0.2, 0.2])) == 0
    assert best_setting(held, unseen, np.array([0.99, 0.99])) == 2  # it loses least


def test_what_the_user_decided_can_be_learned(kinds: ImageIndex) -> None:
    for kind in range(KINDS):
        kinds.decide("same", [path_of(row) for row in range(kind * EACH, (kind + 1) * EACH)])
    kinds.decide("different", [path_of(0), path_of(EACH)])
    report = kinds.learn()
    assert (report.photos, report.labels) == (KINDS * EACH, KINDS)


def test_without_decisions_there_is_nothing_to_learn(kinds: ImageIndex) -> None:
    with pytest.raises(TruthError, match="no decisions to learn from"):
        kinds.learn()


def test_updates_and_merging_keep_what_was_learned(kinds: ImageIndex, labels: dict[str, str]) -> None:
    kinds.learn(labels)
    before = kinds._session.latest.searcher().index.whitening
    add_photos(kinds.directory, kinds_of_photos(KINDS, 2, seed=1), len(labels))
    store = Store.open(kinds.directory)
    with writing(store) as writer:
        writer.compact()
    after = kinds._session.latest.searcher().index
    assert before is not None
    assert after.whitening is not None
    assert np.array_equal(after.whitening.matrix, before.matrix)
    assert len(after) == len(labels) + 2 * KINDS
    assert Store.open(kinds.directory).manifest.fresh("learned") is not None
    assert np.abs(after.unit_vectors(slice(None)) - before.apply(kinds.embeddings())).max() < 2e-3


def test_queries_use_it_before_the_vector_index_is_renewed(kinds: ImageIndex, labels: dict[str, str]) -> None:
    kinds.learn(labels)
    before = kinds._session.latest.searcher().index.whitening
    store = Store.open(kinds.directory)
    with writing(store) as writer:
        writer.commit([], [path_of(0)])
    after = kinds._session.latest.searcher().index
    assert before is not None
    assert after.whitening is not None
    assert np.array_equal(after.whitening.matrix, before.matrix)
    assert len(after) == len(labels) - 1


def test_damage_is_found_and_a_repair_forgets_it(
    kinds: ImageIndex, labels: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    expected = evaluate(kinds, labels, rerank=False).figures
    kinds.learn(labels)
    folder = kinds._store.last_vector_index_directory("learned")
    assert folder is not None
    file = folder / "index.faiss"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert evaluate(kinds, labels, rerank=False).figures == expected
    assert "What was learned from labels is lost" in caplog.text
    [finding] = verify(kinds.directory).findings
    assert finding.file.startswith(f"search/{folder.name}")
    assert verify(kinds.directory, repair=True).findings[0].is_repaired
    assert kinds.info().learned is None
    assert verify(kinds.directory).is_whole


def test_duplicates_and_their_calibration_are_as_before(index: ImageIndex, photos: Path) -> None:
    index.update(photos)
    before = index.duplicates()
    edges = {path: path.read_bytes() for path in index.directory.rglob("*.parquet")}
    calibration = (index.directory / "calibration.json").read_bytes()
    wide = replace(TRANSFORM, matrix=np.eye(8, index.spec.dim, dtype=np.float32))
    answers = [(match.path, match.similarity) for match in index.query(picture(2), rerank=False).matches]
    set_learned(index._store, wide, FACTS, SILENT)
    assert [(match.path, match.similarity) for match in index.query(picture(2), rerank=False).matches] != answers
    after = index.duplicates()
    assert after.pairs == before.pairs
    assert after.groups == before.groups
    assert (index.directory / "calibration.json").read_bytes() == calibration
    assert edges.items() <= {path: path.read_bytes() for path in index.directory.rglob("*.parquet")}.items()


def test_several_indexes_are_searched_under_what_the_largest_learned(
    kinds: ImageIndex, labels: dict[str, str], tmp_path: Path
) -> None:
    index_of_kinds(tmp_path / "small", 2, 4)
    with ImageIndex.open(tmp_path / "small", engine=FakeEngine(SMALL_SPEC.dim)) as small:
        kinds.learn(labels)
        matches = small.query(picture(1), rerank=False, also_in=[kinds], count=100).matches
        alone = {match.path: match.similarity for match in kinds.query(picture(1), rerank=False, count=100).matches}
    of_kinds = {match.path: match.similarity for match in matches if match.index == str(kinds.directory)}
    assert of_kinds == alone
    assert len(matches) == len(labels) + 8


def test_the_command_line_learns_and_forgets(kinds: ImageIndex, labels: dict[str, str], tmp_path: Path) -> None:
    truth = tmp_path / "truth.tsv"
    truth.write_text("path\tlabel\n" + "".join(f"{path}\t{label}\n" for path, label in labels.items()))
    where = ["--index", str(kinds.directory)]
    done = CliRunner().invoke(cli, ["learn", str(truth), *where])
    assert done.exit_code == 0, done.stderr
    assert "Queries use it from now on." in done.stdout
    info = CliRunner().invoke(cli, ["info", *where])
    assert "from 72 labelled photos, to 32 dimensions, for queries" in info.stdout
    values = json.loads(CliRunner().invoke(cli, ["learn", str(truth), *where, "--format", "json"]).stdout)
    assert values["held"]["learned"]["map"]["interval"]["low"] <= values["held"]["learned"]["map"]["value"]
    for expected in ("What was learned is forgotten.", "Nothing had been learned."):
        assert CliRunner().invoke(cli, ["learn", "--forget", *where]).stdout.strip() == expected


def test_the_command_line_shows_the_figures_of_what_it_refuses(
    kinds: ImageIndex, labels: dict[str, str], tmp_path: Path
) -> None:
    truth = tmp_path / "truth.tsv"
    mixed = np.random.default_rng(1).permutation(list(labels.values()))
    truth.write_text(
        "path\tlabel\n" + "".join(f"{path}\t{label}\n" for path, label in zip(labels, mixed, strict=True))
    )
    done = CliRunner().invoke(cli, ["learn", str(truth), "--index", str(kinds.directory)])
    assert done.exit_code == 1
    assert "It is not stored." in done.stdout
    assert "--even-if-worse" in done.stderr


@pytest.mark.parametrize("words", [[], ["--forget", "--decisions"]])
def test_the_command_line_wants_one_source(words: list[str]) -> None:
    done = CliRunner().invoke(cli, ["learn", *words])
    assert done.exit_code == 2
    assert "one of the three" in done.stderr
