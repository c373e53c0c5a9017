"""What the real network does with several hundred real photos that are not part of the project."""

import csv
import shutil
import warnings
from pathlib import Path

import pytest
from PIL import Image

from vggsearch import ImageIndex

pytestmark = [pytest.mark.network, pytest.mark.slow]


def test_of_the_four_nearest_in_ukbench_at_least_3_90_show_the_same_object(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "ukbench"
    with (folder / "truth.tsv").open(newline="") as file:
        label = {row["path"]: row["label"] for row in csv.DictReader(file, delimiter="\t")}
    with ImageIndex.create(tmp_path / "x") as index:
        index.update(folder)
        assert sorted(index.paths()) == sorted(label)
        right = sum(
            label[match.path] == label[path]
            for path in label
            for match in index.query(folder / path, 4, rerank=False).matches
        )
    assert right / len(label) >= 3.90


def test_500_photos_find_themselves_first_and_their_half_size_copies_next(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(shared_data / "photos", folder)
    originals = sorted(folder.iterdir())
    (folder / "half").mkdir()
    for photo in originals:
        with Image.open(photo) as image:
            half = image.convert("RGB").resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
        half.save(folder / "half" / photo.with_suffix(".jpg").name, quality=90)
    with ImageIndex.create(tmp_path / "x") as index:
        assert index.update(folder).photos == 2 * len(originals) == 1000
        for photo in originals:
            itself, copy = index.query(photo, count=2, rerank=False).matches
            assert (itself.path, itself.similarity) == (photo.name, 1.0)
            assert copy.path == f"half/{photo.with_suffix('.jpg').name}"


@pytest.fixture(scope="module")
def odd(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageIndex:
    index = ImageIndex.create(tmp_path_factory.mktemp("odd") / "x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of 108 megapixels and of broken TIFF tags
        index.update(shared_data / "odd")
    return index


def test_every_odd_file_is_indexed_or_skipped_with_a_reason(odd: ImageIndex, shared_data: Path) -> None:
    skipped = odd.skipped()
    accounted = odd.paths() + [one.path for one in skipped]
    assert sorted(accounted) == sorted(path.name for path in (shared_data / "odd").iterdir())
    assert all(one.reason for one in skipped)


def test_every_odd_file_that_pillow_reads_is_indexed(odd: ImageIndex, shared_data: Path) -> None:
    with (shared_data / "odd" / "manifest.tsv").open(newline="") as file:
        outcome = {row["path"]: row["pillow_13_outcome"] for row in csv.DictReader(file, delimiter="\t")}
    readable = {path for path, said in outcome.items() if said.startswith("ok")}
    not_opened = {path for path in readable if path.endswith(".eps")}
    assert readable - not_opened - set(odd.paths()) == set()


def test_16_bit_pictures_are_not_each_others_duplicates(odd: ImageIndex, shared_data: Path) -> None:
    different = [
        "made__gray16.png",
        "pillow__16_bit_binary.pgm",
        "pillow__16bit.cropped.tif",
        "pillow__16bit.s.tif",
        "pillow__12bit.cropped.tif",
        "pillow__hopper_16bit.pgm",
    ]
    for name in different:
        matches = odd.query(shared_data / "odd" / name, count=100).matches
        similarity = {match.path: match.similarity for match in matches}
        assert similarity[name] == 1.0
        assert all(similarity[other] < 0.9 for other in different if other != name), name
    same = odd.query(shared_data / "odd" / "pillow__hopper_16bit.pgm", count=100).matches
    assert {match.path for match in same if match.similarity > 0.99} >= {"pillow__hopper_16bit_plain.pgm"}


@pytest.mark.parametrize("shape", ["Landscape", "Portrait"])
def test_eight_orientations_of_one_picture_are_each_others_nearest(
    odd: ImageIndex, shared_data: Path, shape: str
) -> None:
    turned = {f"exif-orientation__{shape}_{number}.jpg" for number in range(1, 9)}
    without_orientation = f"exif-orientation__{shape}_0.jpg"
    for name in turned:
        nearest = odd.query(shared_data / "odd" / name, count=9).matches
        assert {match.path for match in nearest} == turned | {without_orientation}
        assert all(match.similarity >= 0.99 for match in nearest if match.path in turned), name
