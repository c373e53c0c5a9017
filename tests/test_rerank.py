"""Re-ranked queries, with the real network and the sample photos."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

from vggsearch.cli import cli
from vggsearch.defaults import ALIGN, KEYPOINTS
from vggsearch.errors import OptionError
from vggsearch.image_index import ImageIndex, decoders_of, reranker_of
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.evidence import COPY
from vggsearch.matching.rerank import FRAMED_ORIENTATIONS, VISIBLE_WINDOWS, QueryFeatures, confident, reranked
from vggsearch.photos.edits import EDITS, edited
from vggsearch.photos.inputs import view_of


@pytest.fixture(scope="module")
def real(sample_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageIndex]:
    with ImageIndex.create(tmp_path_factory.mktemp("indexes") / "sample") as index:
        index.update(sample_photos)
        yield index


@pytest.fixture(scope="module")
def cat(sample_photos: Path) -> Image.Image:
    return Image.open(sample_photos / "originals" / "chelsea.jpg").convert("RGB")


def alignment(score: float) -> Alignment:
    return Alignment(score, 20, False, 0.0, 1.0, ((0, 0), (1, 0), (1, 1), (0, 1)))


def test_a_similarity_is_raised_but_never_to_1() -> None:
    assert reranked(0.4, 0.9, None) == 0.4
    assert reranked(1.0, 0.9, alignment(0.9)) == 1.0
    assert 0.4 < reranked(0.4, 0.3, alignment(0.3)) < reranked(0.4, 0.3, alignment(0.9)) < 1
    assert reranked(0.4, 0.3, alignment(1.0)) == pytest.approx(0.4 + 0.6 * ALIGN.weight)
    assert reranked(0.3, 0.4, alignment(1.0)) == reranked(0.4, 0.3, alignment(1.0))
    assert confident(alignment(ALIGN.confident - 0.01)) is None
    assert confident(alignment(ALIGN.confident)) is not None


@pytest.mark.parametrize("aspect", [0.5, 1.0, 2.0])
def test_a_window_is_the_region_of_the_photo_that_the_square_shows(aspect: float) -> None:
    assert VISIBLE_WINDOWS["squash"](aspect) == (0, 0, 1, 1)
    left, top, right, bottom = VISIBLE_WINDOWS["crop"](aspect)
    assert ((right - left) * aspect, bottom - top) == pytest.approx((min(1, aspect),) * 2)
    left, top, right, bottom = VISIBLE_WINDOWS["pad"](aspect)
    assert ((right - left) * aspect, bottom - top) == pytest.approx((max(1, aspect),) * 2)


def test_a_crop_is_found_with_its_position_in_the_photo(real: ImageIndex, sample_photos: Path) -> None:
    photo = Image.open(sample_photos / "originals" / "astronaut.jpg").convert("RGB")
    box = (photo.width // 4, photo.height // 4, photo.width // 2, photo.height // 2)
    found = real.query(photo, 5, rerank=True, crop=box).matches
    original = next(match for match in found if match.path == "originals/astronaut.jpg")
    assert original.alignment is not None
    assert not original.alignment.mirrored
    assert original.alignment.scale == pytest.approx(0.5, abs=0.1)
    for (x, y), (wanted_x, wanted_y) in zip(
        original.alignment.corners, ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)), strict=True
    ):
        assert (x, y) == pytest.approx((wanted_x, wanted_y), abs=0.1)


def test_a_mirrored_copy_is_reported_and_raised(real: ImageIndex, cat: Image.Image) -> None:
    mirrored = ImageOps.mirror(cat)
    plain = {match.path: match for match in real.query(mirrored, 10, rerank=False).matches}
    checked = {match.path: match for match in real.query(mirrored, 10, rerank=True).matches}
    original = checked["originals/chelsea.jpg"]
    assert original.alignment is not None
    assert original.alignment.mirrored
    assert original.similarity > plain["originals/chelsea.jpg"].similarity
    other = next(path for path in checked if "chelsea" not in path)
    assert checked[other].alignment is None


def test_a_cropped_mirrored_copy_with_a_caption_a_sticker_and_a_border_is_found(
    real: ImageIndex, cat: Image.Image
) -> None:
    for seed in range(5):
        copy = edited(cat, EDITS["strongest"], str(seed))
        first = real.query(copy, 1).matches[0]
        assert "chelsea" in first.path
        assert (first.confidence or 0) >= COPY


def test_the_picture_inside_a_frame_is_described_too(real: ImageIndex, cat: Image.Image) -> None:
    reranker = reranker_of(real)
    assert reranker is not None

    def features(picture: Image.Image) -> QueryFeatures:
        view = view_of(
            picture, real.spec.size, real.spec.resize, lambda: decoders_of(real), longer=KEYPOINTS.pixels
        )
        return reranker.query_features(view)

    bare, framed = features(cat), features(ImageOps.expand(cat, 40, "white"))
    assert (bare.inside.shape, bare.inside_cells) == ((0, real.spec.dim), [])
    assert (len(bare.embeddings), len(bare.all_embeddings)) == (ALIGN.orientations, ALIGN.orientations)
    assert framed.inside.shape == (FRAMED_ORIENTATIONS, real.spec.dim)
    assert np.linalg.norm(framed.inside, axis=1) == pytest.approx(1, abs=1e-3)
    upright, mirrored = bare.embeddings[:2] @ framed.inside.T
    assert min(upright[0], mirrored[1]) > max(upright[1], mirrored[0], bare.embeddings[0] @ framed.embeddings[0])


def test_the_command_shows_the_position_of_the_query_in_a_photo(
    real: ImageIndex, cat: Image.Image, tmp_path: Path
) -> None:
    ImageOps.mirror(cat).save(tmp_path / "mirrored.png")
    words = ["query", str(tmp_path / "mirrored.png"), "--rerank", "--index", str(real.directory), "-k", "4"]
    shown = CliRunner().invoke(cli, words).stdout
    assert "originals/chelsea.jpg  (mirrored)" in shown
    matches = json.loads(CliRunner().invoke(cli, [*words, "--format", "jsonl"]).stdout)["matches"]
    original = next(match for match in matches if match["path"] == "originals/chelsea.jpg")
    assert original["alignment"]["mirrored"]
    assert len(original["alignment"]["corners"]) == 4
    refused = CliRunner().invoke(cli, ["query", "x.jpg", "--crop", "1,2,3"])
    assert refused.exit_code == 2
    assert "is not a region X,Y,W,H" in refused.stderr


def test_the_photo_itself_stays_at_one_and_first(real: ImageIndex, sample_photos: Path) -> None:
    first = real.query(sample_photos / "originals" / "chelsea.jpg", 3, rerank=True).matches[0]
    assert (first.path, first.similarity) == ("originals/chelsea.jpg", 1.0)


@pytest.mark.parametrize("box", [(-1, 0, 10, 10), (0, 0, 0, 10), (0, 0, 10_000, 10), (5, 290, 10, 50)])
def test_a_crop_outside_the_image_is_refused_with_both_sizes(
    real: ImageIndex, cat: Image.Image, box: tuple[int, int, int, int]
) -> None:
    with pytest.raises(OptionError, match=rf"The crop .* is not inside - \({cat.width} x {cat.height} pixels\)"):
        real.query(cat, crop=box)


def test_without_its_photos_an_index_still_answers(
    sample_photos: Path, tmp_path: Path, cat: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea", "astronaut"):
        (folder / f"{name}.jpg").write_bytes((sample_photos / "originals" / f"{name}.jpg").read_bytes())
    with ImageIndex.create(tmp_path / "index") as index:
        index.update(folder, local_features=False)
        (folder / "astronaut.jpg").unlink()
        assert index.query(cat, 2, rerank=True).matches[0].path == "chelsea.jpg"
        (folder / "chelsea.jpg").unlink()
        folder.rmdir()
        assert index.query(cat, 2, rerank=True).matches[0].path == "chelsea.jpg"
    assert "results are not re-ranked" in caplog.text
