import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import save_photo
from vggsearch.image_index import ImageIndex
from vggsearch.model.spec import EmbeddingOptions

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(script: str, *words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *words], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def workplace(sample_photos: Path, tmp_path: Path) -> Path:
    """Two photos with their copies in ./photos."""
    for name in ("chelsea", "coffee"):
        for path in sample_photos.rglob(f"{name}*.jpg"):
            (tmp_path / "photos").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "photos" / path.name)
    return tmp_path


@pytest.mark.network
def test_find_copies_groups_edits_with_their_originals(workplace: Path) -> None:
    groups: dict[str, set[str]] = {}
    for line in run("find_copies.py", "photos", cwd=workplace).splitlines():
        if line.startswith("keep  "):
            keeper = line.removeprefix("keep  ")
            groups[keeper] = set()
        else:
            groups[keeper].add(line.split()[0])
    assert set(groups) == {"chelsea.jpg", "coffee.jpg"}
    for keeper, members in groups.items():
        name = keeper.removesuffix(".jpg")
        assert {f"{name}_half.jpg", f"{name}_jpeg30.jpg"} <= members
        assert members <= {f"{name}_{edit}.jpg" for edit in ("half", "jpeg30", "crop", "mirror")}


@pytest.mark.slow
@pytest.mark.network
def test_embeddings_to_numpy_counts_live_photos_only(workplace: Path) -> None:
    run("watch_folder.py", "photos", "1", cwd=workplace)
    assert run("embeddings_to_numpy.py", "indexes/photos", cwd=workplace) == "10 photos, 1024 dimensions, float16\n"
    (workplace / "photos" / "coffee_crop.jpg").unlink()
    run("watch_folder.py", "photos", "1", cwd=workplace)
    assert run("embeddings_to_numpy.py", "indexes/photos", cwd=workplace).startswith("9 photos")


@pytest.mark.network
def test_watch_folder_names_what_a_new_photo_is_like(workplace: Path) -> None:
    assert "new: chelsea_half.jpg, like chelsea" in run("watch_folder.py", "photos", "1", cwd=workplace)


def test_the_sample_photos_are_real_and_come_with_four_edits_each(sample_photos: Path) -> None:
    originals = sorted(path.stem for path in (sample_photos / "originals").iterdir())
    edited = sorted(path.stem for path in (sample_photos / "edited").iterdir())
    assert len(originals) >= 4
    assert edited == sorted(f"{name}_{edit}" for name in originals for edit in ("half", "jpeg30", "crop", "mirror"))


def test_every_sample_photo_is_credited_in_the_notice(sample_photos: Path) -> None:
    notice = (EXAMPLES.parent / "NOTICE").read_text(encoding="utf-8")
    for path in (sample_photos / "originals").iterdir():
        assert f"| {path.stem} |" in notice


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("has_labels", [True, False])
def test_finetuned_weights_have_a_smaller_loss_and_make_an_index(tmp_path: Path, *, has_labels: bool) -> None:
    pytest.importorskip("torchvision", reason="vggsearch-cpu has no torch, which trains")
    names = [f"{seed}.jpg" for seed in range(4)]
    for seed, name in enumerate(names):
        save_photo(tmp_path / "photos" / name, seed, size=(96, 96))
    truth = "path\tlabel\n" + "".join(f"{name}\t{seed % 2}\n" for seed, name in enumerate(names))
    (tmp_path / "truth.tsv").write_text(truth)
    labels = ["--truth", "truth.tsv"] if has_labels else []
    shown = run("finetune.py", "photos", "own.safetensors", *labels, "--steps", "2", cwd=tmp_path)
    first, second = (float(line.rpartition(" ")[2]) for line in shown.splitlines())
    assert second < first
    options = EmbeddingOptions(layer="pool5", size=64, weights=tmp_path / "own.safetensors")
    with ImageIndex.create(tmp_path / "index", options) as index:
        assert index.update(tmp_path / "photos").indexed == 4
        assert index.spec.weights_sha256 != ImageIndex.create(tmp_path / "packaged").spec.weights_sha256
    with ImageIndex.open(tmp_path / "index") as index:
        assert index.query(tmp_path / "photos" / "1.jpg", count=1).matches[0].path == "1.jpg"
