"""Same picture means all that the files show: frames and pages, transparency, depth. It is certain."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.fakes import FakeEngine
from tests.test_perceptual_hash import scene
from vggsearch import ImageIndex
from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.render.calibration import explanation

SIZE = (200, 150)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for seed in range(20, 24):
        scene(seed, SIZE).save(tmp_path / "photos" / f"other {seed}.jpg", quality=90)
    return tmp_path / "photos"


@pytest.fixture
def index(photos: Path) -> Iterator[ImageIndex]:
    with ImageIndex.create(photos.parent / "index", engine=FakeEngine()) as made:
        yield made


def save_frames(path: Path, *seeds: int, **options: Any) -> None:
    frames = [scene(seed, SIZE).quantize(64).convert("RGB") for seed in seeds]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


def kinds(report: DuplicatesReport) -> dict[frozenset[str], str]:
    return {frozenset((pair.first.path, pair.second.path)): pair.kind for pair in report.pairs}


def test_animations_and_documents_that_share_only_the_first_page_are_related_but_never_removable(
    index: ImageIndex, photos: Path
) -> None:
    save_frames(photos / "one.gif", 1, 2, 3)
    save_frames(photos / "two.gif", 1, 4, 5)
    scene(1, SIZE).quantize(64).convert("RGB").save(photos / "still.png")
    save_frames(photos / "invoice.tif", 6, 7)
    save_frames(photos / "contract.tif", 6, 8)
    index.update(photos)
    report = index.duplicates(confirm=False, threshold=0.99)
    assert kinds(report) == {}
    assert report.groups == ()
    (reason,) = report.classified.excluded
    assert "only the first" in reason
    shown = index.duplicates(confirm=False, threshold=0.99, similar=True)
    assert frozenset(("one.gif", "two.gif")) in kinds(shown)
    assert set(kinds(shown).values()) == {"similar"}
    assert [group.removable for group in shown.groups] == [()] * len(shown.groups)
    assert index.plan_removal(shown, "trash").removals == ()


def test_an_animation_in_two_containers_is_the_same_picture(index: ImageIndex, photos: Path) -> None:
    save_frames(photos / "a.webp", 1, 2, 3, duration=100, lossless=True)
    save_frames(photos / "b.png", 1, 2, 3, duration=100)
    index.update(photos)
    assert kinds(index.duplicates()) == {frozenset(("a.webp", "b.png")): "same picture"}


def test_every_exact_copy_is_in_a_pair_or_named_by_one_and_the_histogram_counts_every_pair(
    index: ImageIndex, photos: Path
) -> None:
    original = photos / "other 20.jpg"
    for name in ("b.jpg", "c.jpg"):
        shutil.copy(original, photos / name)
    Image.open(original).save(photos / "d.png")
    shutil.copy(photos / "d.png", photos / "e.png")
    index.update(photos)
    report = index.duplicates()
    jpegs, pngs = {"other 20.jpg", "b.jpg", "c.jpg"}, {"d.png", "e.png"}
    exact = [{pair.first.path, pair.second.path} for pair in report.pairs if pair.kind == "exact"]
    assert len(exact) == 3
    assert set.union(*exact) == jpegs | pngs
    (same,) = (pair for pair in report.pairs if pair.kind == "same picture")
    assert {same.first.path, *same.copies_of_first} in (jpegs, pngs)
    assert {same.first.path, *same.copies_of_first, same.second.path, *same.copies_of_second} == jpegs | pngs
    assert report.classified.compared.similarity.max() == 1.0
    shown = explanation(report).split("log scale):")[1].split("Results by")[0]
    rows = [line.split() for line in shown.splitlines() if line.strip().startswith("0.")]
    assert sum(int(row[1]) for row in rows) == len(report.classified.compared)


@pytest.mark.parametrize("min_precision", [0.99, 0.5])
def test_the_same_pixels_in_another_container_are_always_found_and_certain(
    index: ImageIndex, photos: Path, min_precision: float
) -> None:
    for seed in (20, 21):
        Image.open(photos / f"other {seed}.jpg").save(photos / f"again {seed}.png")
    index.update(photos)
    report = index.duplicates(min_precision=min_precision)
    expected = {frozenset((f"other {seed}.jpg", f"again {seed}.png")): "same picture" for seed in (20, 21)}
    assert expected.items() <= kinds(report).items()
    certain = [pair.confidence for pair in report.pairs if pair.kind == "same picture"]
    assert certain == [1.0, 1.0]


def test_the_same_pixels_are_a_copy_whatever_time_and_camera_a_program_wrote(
    index: ImageIndex, photos: Path
) -> None:
    for second, name in enumerate(("a.png", "b.png")):
        exif = Image.Exif()
        exif[ExifTags.Base.Model] = f"Camera {second}"
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"2024:05:01 12:30:{second:02}"
        scene(1, SIZE).save(photos / name, exif=exif.tobytes())
    index.update(photos)
    assert kinds(index.duplicates()) == {frozenset(("a.png", "b.png")): "same picture"}


def test_a_drawing_that_is_transparent_elsewhere_and_one_of_another_depth_are_not_the_same_picture(
    index: ImageIndex, photos: Path
) -> None:
    opaque = np.array(scene(1, SIZE).convert("RGBA"))
    opaque[:20, :20] = 255
    transparent = opaque.copy()
    transparent[:20, :20, 3] = 0
    Image.fromarray(opaque).save(photos / "opaque.png")
    Image.fromarray(transparent).save(photos / "transparent.png")
    grey = np.asarray(scene(2, SIZE).convert("L"))
    Image.fromarray(grey).save(photos / "8 bits.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(photos / "16 bits.png")
    index.update(photos)
    assert "same picture" not in kinds(index.duplicates()).values()
