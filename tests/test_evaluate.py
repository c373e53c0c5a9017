"""What eval measures, with mean colours on a grid for a network: near-duplicates really are near."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.fakes import FakeEngine, picture, save_photo
from vggsearch.cli import cli
from vggsearch.errors import OptionError, PhotosError, TruthError
from vggsearch.evaluation.evaluate import chosen_edits, evaluate, evaluate_copies, whitening_named
from vggsearch.evaluation.pr_curve import save_curve
from vggsearch.image_index import ImageIndex
from vggsearch.knn.vectors import unit_rows
from vggsearch.knn.whitening import WhiteningOptions
from vggsearch.measures.metrics import Curve
from vggsearch.photos.edits import EDITS, edited


@pytest.fixture(scope="module")
def families_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten photos, each with its half-size, its darker and its lighter copy, and their index."""
    folder = tmp_path_factory.mktemp("families")
    (folder / "photos").mkdir()
    for seed in range(10):
        photo = picture(seed)
        for name, copy in (
            ("a", photo),
            ("b", photo.resize((photo.width // 2, photo.height // 2))),
            ("c", photo.point(lambda value: value * 0.9)),
            ("d", photo.point(lambda value: min(255, value * 1.1))),
        ):
            copy.save(folder / "photos" / f"{seed}{name}.png", compress_level=1)
    with ImageIndex.create(folder / "indexes" / "photos", engine=FakeEngine()) as index:
        index.update(folder / "photos")
    return folder


@pytest.fixture
def families(families_once: Path, tmp_path: Path, engine: FakeEngine) -> ImageIndex:
    """An index, to change, of photos in families: labels come in fours."""
    shutil.copytree(families_once, tmp_path, dirs_exist_ok=True)
    return ImageIndex.open(tmp_path / "indexes" / "photos", engine=engine)


def labels(index: ImageIndex) -> dict[str, str]:
    return {path: path[0] for path in index.paths()}


def test_labelled_photos_are_measured_as_numpy_does(families: ImageIndex) -> None:
    found = evaluate(families, labels(families), rerank=False)
    vectors = unit_rows(families.embeddings())
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, 2)
    of = np.array([path[0] for path in families.paths()])
    first_four = np.argsort(-similarities, axis=1)[:, :4]
    assert found.figures.ns == pytest.approx((of[first_four] == of[:, None]).sum(axis=1).mean())
    np.fill_diagonal(similarities, -2)
    assert found.figures.recall_at[1] == pytest.approx((of[similarities.argmax(axis=1)] == of).mean())
    assert (found.figures.images, found.figures.queries, found.missing) == (40, 40, ())


def test_photos_without_a_label_are_searched_but_never_right(families: ImageIndex) -> None:
    some = {path: label for path, label in labels(families).items() if path[0] < "3" and path[1] in "ab"}
    figures = evaluate(families, some, rerank=False).figures
    assert (figures.images, figures.queries, figures.ns) == (40, 6, None)


def test_labelled_photos_that_are_not_indexed_are_named(families: ImageIndex) -> None:
    found = evaluate(families, {**labels(families), "gone.png": "1"}, rerank=False)
    assert found.missing == ("gone.png",)
    assert found.figures.queries == 40
    with pytest.raises(TruthError, match=r"contains none of the 2 labelled photos"):
        evaluate(families, {"x.png": "1", "y.png": "1"}, rerank=False)


def test_another_whitening_gives_other_answers_and_leaves_the_index_alone(families: ImageIndex) -> None:
    for seed in range(100, 170):
        assert families.root is not None
        save_photo(families.root / f"x{seed}.png", seed)
    families.update()
    before = families.info()
    own = evaluate(families, labels(families), rerank=False).figures
    none = evaluate(families, labels(families), whiten="none", rerank=False).figures
    same = evaluate(families, labels(families), whiten=str(WhiteningOptions().dim), rerank=False).figures
    assert own.pair_ap == pytest.approx(same.pair_ap, abs=1e-3)
    assert own.pair_ap != none.pair_ap
    assert families.info() == before


def test_copies_are_found_and_reported_by_edit(families: ImageIndex) -> None:
    report = evaluate_copies(families, edits="half,jpeg30,mirror", sample=5, rerank=False)
    assert list(report.by_edit) == ["half", "jpeg30", "mirror"]
    assert report.photos == 5
    assert report.figures.queries == 15
    assert report.by_edit["half"].recall_at[5] == 1.0
    assert report.by_edit["half"].pair_ap > report.by_edit["mirror"].pair_ap


def test_the_same_seed_makes_the_same_copies_and_another_others(families: ImageIndex, tmp_path: Path) -> None:
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        evaluate_copies(families, edits="crop50,collage", sample=3, seed=seed, save=tmp_path / folder, rerank=False)

    def saved(folder: str) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()}

    assert len(saved("one")) == 6
    assert saved("one") == saved("two")
    assert saved("one") != saved("three")


def test_copies_are_saved_only_to_a_new_or_empty_folder(families: ImageIndex, tmp_path: Path) -> None:
    assert families.root is not None
    photos = {path: path.read_bytes() for path in families.root.iterdir()}
    for place in (families.root, families.directory, next(iter(photos))):
        with pytest.raises(OptionError, match="exists and is not an empty folder"):
            evaluate_copies(families, edits="half", sample=1, rerank=False, save=place)
    assert {path: path.read_bytes() for path in families.root.iterdir()} == photos
    (tmp_path / "empty").mkdir()
    evaluate_copies(families, edits="half", sample=1, rerank=False, save=tmp_path / "empty")
    assert len(list((tmp_path / "empty").iterdir())) == 1


def test_copies_are_not_saved_where_the_next_update_would_index_them(families: ImageIndex) -> None:
    assert families.root is not None
    for place in (
        families.root / "copies",
        families.root / "new" / "copies",
        families.root / ".." / "photos" / "x",
    ):
        with pytest.raises(OptionError, match="so the next update would index the copies"):
            evaluate_copies(families, edits="half", sample=1, rerank=False, save=place)
        assert not place.exists()
    evaluate_copies(families, edits="half", sample=1, rerank=False, save=families.root / ".copies")
    assert families.update().indexed == 0


@pytest.mark.parametrize("suffix", [".csv", ".html", ".svg"])
def test_a_curve_replaces_only_a_curve(tmp_path: Path, suffix: str) -> None:
    curve = Curve(*(np.array([1.0, 0.5]) for _ in range(3)))
    file = tmp_path / f"curve{suffix}"
    for _ in range(2):
        save_curve(curve, file)
    file.write_text("notes")
    with pytest.raises(OptionError, match="exists and was not written by vggsearch"):
        save_curve(curve, file)
    assert file.read_text() == "notes"


def test_nothing_is_written_unless_asked(families: ImageIndex, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    evaluate_copies(families, edits="half", sample=3, rerank=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_photo_that_is_gone_costs_only_itself_and_all_gone_is_an_error(families: ImageIndex) -> None:
    assert families.root is not None
    (families.root / "0a.png").unlink()
    report = evaluate_copies(families, edits="half", sample=40, rerank=False)
    assert report.skipped == ("0a.png",)
    assert report.photos == 39
    for file in families.root.iterdir():
        file.unlink()
    with pytest.raises(PhotosError, match="None of 40 photos"):
        evaluate_copies(families, edits="half", sample=40, rerank=False)


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_changes_the_picture_and_keeps_it_a_picture(name: str) -> None:
    import io

    photo = picture(3)
    others = [picture(4), picture(5), picture(6)] if name == "collage" else []
    data = edited(photo, EDITS[name], "seed", others)
    assert data == edited(photo, EDITS[name], "seed", others)
    with Image.open(io.BytesIO(data)) as copy:
        assert copy.mode == "RGB"
        assert min(copy.size) >= 8
        is_same_size = copy.size == photo.size
        change = np.abs(np.asarray(copy.resize((64, 64)), int) - np.asarray(photo.resize((64, 64)), int)).mean()
    assert change > 0.3 or not is_same_size


def test_eighteen_edits_are_the_basic_ones() -> None:
    assert len(chosen_edits("basic")) == 18
    assert chosen_edits("all") == EDITS
    with pytest.raises(OptionError, match="Unknown edit 'wiggle'"):
        chosen_edits("half, wiggle")


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "384:", "384:2", "384:x"])
def test_a_whitening_that_is_none_is_refused(text: str) -> None:
    if text == "384:":
        assert whitening_named(text) == WhiteningOptions(384)
        return
    with pytest.raises(OptionError, match="Unknown whitening"):
        whitening_named(text)


def test_whitenings_have_names() -> None:
    assert whitening_named("auto") is None
    assert whitening_named("none") == WhiteningOptions(dim=0)
    assert whitening_named("128:0.25") == WhiteningOptions(128, 0.25)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture
def truth(families: ImageIndex, tmp_path: Path) -> Path:
    lines = ["path\tlabel", *(f"{path}\t{label}" for path, label in labels(families).items())]
    file = tmp_path / "truth.tsv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_eval_prints_the_documented_keys(families: ImageIndex, truth: Path) -> None:
    done = run("eval", truth, "--index", families.directory, "--no-rerank", "--format", "json")
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    keys = {"images", "map", "recall_at", "ns", "pair_ap", "recall_at_p99", "threshold_at_p99"}
    assert keys <= set(values)
    assert set(values["recall_at"]) == {"1", "5", "10"}
    named = run("eval", "truth", truth, "--index", families.directory, "--no-rerank", "--format", "json")
    assert named.stdout == done.stdout


def test_eval_draws_its_curve_and_refuses_another_file_first(
    families: ImageIndex, truth: Path, tmp_path: Path
) -> None:
    done = run("eval", truth, "--index", families.directory, "--no-rerank", "--curve", tmp_path / "curve.html")
    assert done.exit_code == 0, done.output
    assert "micro-AP over all pairs" in done.stdout
    assert "<svg" in (tmp_path / "curve.html").read_text("utf-8")
    refused = run("eval", truth, "--index", families.directory, "--curve", tmp_path / "curve.doc")
    assert refused.exit_code == 2


def test_eval_probes_labels_linearly(families: ImageIndex, truth: Path) -> None:
    done = run("eval", truth, "--index", families.directory, "--linear-probe", "--format", "json")
    assert done.exit_code == 0, done.output
    assert 0.9 < json.loads(done.stdout)["mean_class_recall"] <= 1


def test_eval_copies_prints_a_line_for_each_edit(
    families: ImageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: FakeEngine
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vggsearch.query.session.load_engine", lambda *_: engine)
    done = run("eval", "copies", "photos", "--edits", "half,mirror", "--sample", "4", "--no-rerank")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["half", "mirror"]
    values = json.loads(run("eval", "copies", "photos", "--edits", "half", "--format", "json").stdout)
    assert values["photos"] == 40
    assert set(values["by_edit"]) == {"half"}


def test_eval_copies_without_an_index_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    done = run("eval", "copies", "pictures")
    assert done.exit_code == 1
    assert "Create it: vggsearch index pictures" in done.stderr


def test_geometry_raises_what_it_finds_and_nothing_else(families: ImageIndex) -> None:
    plain = evaluate_copies(families, edits="half,jpeg30", sample=5, rerank=False)
    checked = evaluate_copies(families, edits="half,jpeg30", sample=5, rerank=True)
    assert checked.figures.pair_ap >= plain.figures.pair_ap
    own = evaluate(families, labels(families), rerank=True).figures
    assert own.queries == 40
    assert families.root is not None
    families.root.rename(families.root.with_name("elsewhere"))
    with pytest.raises(PhotosError, match="rerank=False"):
        evaluate(families, labels(families), rerank=True)
