"""What people pass as an image, or as several: read as the same picture, or refused, and alone in a batch."""

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.fakes import FakeEngine, picture, save_photo
from vggsearch import ImageIndex, QueryResult, Skipped
from vggsearch.cli.query import read_images
from vggsearch.defaults import IMAGE
from vggsearch.errors import ImageError, InputError, OptionError
from vggsearch.photos import inputs
from vggsearch.photos.inputs import picture_in_memory

SIZE = (60, 40)  # width, height
HWC = np.asarray(picture(1, SIZE))
GREY = np.asarray(picture(1, SIZE).convert("L"))
RGBA = np.dstack([HWC, np.where(np.arange(60) < 30, 255, 100).astype(np.uint8)[None].repeat(40, axis=0)])
ON_WHITE = np.asarray(Image.alpha_composite(Image.new("RGBA", SIZE, "white"), Image.fromarray(RGBA)).convert("RGB"))
GREY_RGB = np.dstack([GREY] * 3)
TENSOR = torch.from_numpy(HWC.copy())

INPUTS: dict[str, tuple[Any, NDArray[np.uint8]]] = {
    "HWC": (HWC, HWC),
    "CHW": (HWC.transpose(2, 0, 1), HWC),
    "reversed twice": (HWC[::-1][::-1], HWC),
    "Fortran": (np.asfortranarray(HWC), HWC),
    "float64": (HWC / 255, HWC),
    "float32": (HWC.astype(np.float32) / 255, HWC),
    "CHW float32": (HWC.transpose(2, 0, 1).astype(np.float32) / 255, HWC),
    "grey": (GREY, GREY_RGB),
    "grey float": (GREY / 255, GREY_RGB),
    "grey HW1": (GREY[:, :, None], GREY_RGB),
    "grey 1HW": (GREY[None], GREY_RGB),
    "RGBA": (RGBA, ON_WHITE),
    "RGBA float": (RGBA / 255, ON_WHITE),
    "three pixels high": (HWC[:3], HWC[:3]),
    "tensor HWC": (TENSOR, HWC),
    "tensor CHW": (TENSOR.permute(2, 0, 1), HWC),
    "tensor CHW float": (TENSOR.permute(2, 0, 1).float() / 255, HWC),
    "tensor with gradient": ((TENSOR.permute(2, 0, 1).float() / 255).requires_grad_(), HWC),
    "tensor HW": (torch.from_numpy(GREY.copy()), GREY_RGB),
}

REFUSED: dict[str, tuple[Any, str]] = {
    "None": (None, "not NoneType"),
    "int": (5, "not int"),
    "dict": ({"a": "b.jpg"}, "not dict"),
    "empty list": ([], "at least one"),
    "float 0..255": (HWC.astype(np.float32), "values from 0 to 2"),
    "normalised": ((TENSOR.permute(2, 0, 1).float() / 255 - 0.5) / 0.2, r"values from -\d"),
    "NaN": (np.full((4, 4, 3), np.nan), "values from nan to nan"),
    "int64": (HWC.astype(np.int64), r"int64 \(40, 60, 3\)"),
    "bool": (HWC > 128, "bool"),
    "complex": (HWC.astype(np.complex64), "complex64"),
    "two channels": (HWC[:, :, :2], r"uint8 \(40, 60, 2\)"),
    "a row": (GREY[0], r"uint8 \(60,\)"),
    "no dimension": (np.array(3.0), r"float64 \(\)"),
    "no pixel": (np.zeros((0, 0, 3), np.uint8), r"\(0, 0, 3\)"),
    "five dimensions": (HWC[None, None], r"\(1, 1, 40, 60, 3\)"),
    "tensor of two orders": (torch.zeros(3, 5, 3), "channels first or last"),
    "text": (io.StringIO("text"), "binary mode"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(4):
        save_photo(folder / f"{seed}.png", seed, SIZE)
    return folder


@pytest.fixture(scope="module")
def index(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageIndex]:
    with ImageIndex.create(tmp_path_factory.mktemp("made") / "index", engine=FakeEngine()) as made:
        made.update(photos, workers=1)
        yield made


def found(answer: object) -> str:
    assert isinstance(answer, QueryResult)
    return answer.matches[0].path


@pytest.mark.parametrize("name", INPUTS)
def test_an_array_or_tensor_is_read_as_the_same_picture(name: str) -> None:
    given, expected = INPUTS[name]
    np.testing.assert_array_equal(np.asarray(picture_in_memory(given)), expected)


def test_bfloat16_tensors_are_read_to_their_precision() -> None:
    short = np.asarray(picture_in_memory((TENSOR.float() / 255).bfloat16())).astype(int)
    assert np.abs(short - HWC).max() <= 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_an_error_alone_and_one_skipped_in_a_batch(
    name: str, index: ImageIndex, photos: Path
) -> None:
    given, reason = REFUSED[name]
    with pytest.raises(InputError, match=reason):
        index.query(given)
    for rerank in (True, False):
        first, bad, last = index.query_many([photos / "0.png", given, photos / "1.png"], 1, rerank=rerank)
        assert (found(first), found(last)) == ("0.png", "1.png")
        assert isinstance(bad, Skipped)
        assert bad.path == "[1]"


@pytest.mark.parametrize(
    "opened",
    [
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: bytearray(path.read_bytes()),
        lambda path: memoryview(path.read_bytes()),
        lambda path: zipfile.ZipFile(io.BytesIO(zipped(path))).open("a.png"),  # noqa: SIM115 (in memory)
        lambda path: SimpleNamespace(read=lambda *_: path.read_bytes()),
        str,
    ],
    ids=["BytesIO", "bytearray", "memoryview", "in a zip file", "read only", "str"],
)
def test_files_and_bytes_are_read_as_their_path_is(
    opened: Callable[[Path], Any], index: ImageIndex, photos: Path
) -> None:
    expected = index.query(photos / "2.png").matches
    assert index.query(opened(photos / "2.png")).matches == expected
    np.testing.assert_array_equal(index.embed(opened(photos / "2.png")), index.embed(photos / "2.png"))
    for rerank in (True, False):
        (one,) = index.query_many([opened(photos / "2.png")], rerank=rerank)
        assert isinstance(one, QueryResult)
        assert one.matches[0] == expected[0]


class Endless(io.RawIOBase):
    """A stream such as /dev/zero, a few bytes at a time. Counts them."""

    def __init__(self) -> None:
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.count += min(1000, len(buffer))
        return min(1000, len(buffer))


def test_a_stream_without_end_is_read_to_the_limit_and_refused(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "IMAGE", replace(IMAGE, stream_bytes=3 << 20))
    for rerank in (True, False):
        endless = Endless()
        refused, right = index.query_many([endless, photos / "1.png"], 1, rerank=rerank)
        assert isinstance(refused, Skipped)
        assert (refused.kind, refused.reason) == ("too large", "has more than 3 MB, the limit for a stream")
        assert found(right) == "1.png"
        assert endless.count < 4 << 20


def test_a_raw_file_is_read_to_its_end_though_it_returns_less_than_was_asked_for(
    index: ImageIndex, photos: Path
) -> None:
    reading, writing = os.pipe()
    data = (photos / "2.png").read_bytes()
    with os.fdopen(reading, "rb", buffering=0) as pipe, ThreadPoolExecutor(1) as writer:
        writer.submit(write_slowly, writing, data)
        assert found(index.query(pipe, 1)) == "2.png"
        assert not pipe.closed


def write_slowly(number: int, data: bytes) -> None:
    with os.fdopen(number, "wb", buffering=0) as pipe:
        for start in range(0, len(data), 10_000):
            pipe.write(data[start : start + 10_000])


def test_standard_input_that_is_closed_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match=r"^Standard input is closed, so there is no image in -\.$"):
        list(read_images(("-",)))


def zipped(path: Path) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.write(path, "a.png")
    return memory.getvalue()


def test_an_open_file_is_read_from_its_start_and_named_by_its_path(index: ImageIndex, photos: Path) -> None:
    with (photos / "3.png").open("rb") as file:
        file.read()
        assert index.query(file).query == str(photos / "3.png")
        assert found(index.query(file, count=1)) == "3.png"


def test_files_that_a_generator_closes_are_read_before(index: ImageIndex, photos: Path) -> None:
    def each() -> Iterator[Any]:
        for seed in range(4):
            with (photos / f"{seed}.png").open("rb") as file:
                yield file

    answers = index.query_many(each(), 1, rerank=False)
    assert [found(answer) for answer in answers] == [f"{seed}.png" for seed in range(4)]


@pytest.mark.parametrize("rerank", [True, False])
def test_a_buffer_that_is_filled_again_is_another_query(index: ImageIndex, photos: Path, rerank: bool) -> None:
    pictures = [np.asarray(Image.open(photos / f"{seed}.png").convert("RGB")) for seed in range(4)]
    buffer = np.empty_like(pictures[0])

    def each() -> Iterator[Any]:
        for pixels in pictures:
            buffer[:] = pixels
            yield buffer

    answers = index.query_many(each(), 1, rerank=rerank)
    assert [found(answer) for answer in answers] == [f"{seed}.png" for seed in range(4)]


def test_a_closed_or_damaged_file_costs_only_itself(index: ImageIndex, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes((photos / "0.png").read_bytes()[:60])
    with (photos / "0.png").open("rb") as closed:
        pass
    with (tmp_path / "bad.png").open("rb") as bad:
        answers = list(index.query_many([closed, bad, b"", photos / "1.png"], 1, rerank=False))
    assert [each.path for each in answers if isinstance(each, Skipped)] == [closed.name, bad.name, "[2]"]
    assert found(answers[3]) == "1.png"
    with pytest.raises(ImageError, match="closed"):
        index.query(closed)


@pytest.mark.parametrize("rerank", [True, False])
@pytest.mark.parametrize("kind", ["generator", "Series", "array of paths", "NHWC", "tensor NCHW", "generators"])
def test_any_iterable_of_images_is_a_batch(kind: str, rerank: bool, index: ImageIndex, photos: Path) -> None:
    paths = [str(photos / f"{seed}.png") for seed in range(4)]
    pixels = np.stack([np.asarray(picture(seed, SIZE)) for seed in range(4)])
    batches: dict[str, Any] = {
        "generator": (path for path in paths),
        "Series": pd.Series(paths, index=list("abcd")),
        "array of paths": np.array(paths),
        "NHWC": pixels,
        "tensor NCHW": torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255,
        "generators": ((path for path in [each]) for each in paths),
    }
    answers = index.query_many(batches[kind], count=1, rerank=rerank)
    assert [found(answer) for answer in answers] == [f"{seed}.png" for seed in range(4)]


def test_embed_many_takes_a_batch_as_query_many_does(index: ImageIndex, photos: Path) -> None:
    pixels = np.stack([np.asarray(picture(seed, SIZE)) for seed in range(4)])
    expected = np.stack([index.embed(photos / f"{seed}.png") for seed in range(4)])
    np.testing.assert_allclose(index.embed_many(pixels), expected, atol=1e-6)
    assert index.embed_many(iter([])).shape == (0, index.spec.dim)


def test_several_images_as_one_query_may_be_any_iterable(index: ImageIndex, photos: Path) -> None:
    paths = [photos / "0.png", photos / "1.png"]
    expected = index.query(paths).matches
    assert index.query(path for path in paths).matches == expected
    assert index.query(pd.Series(paths)).matches == expected
    assert index.query(np.stack([np.asarray(picture(seed, SIZE)) for seed in range(2)])).matches == expected


@pytest.mark.parametrize("images", ["a.jpg", b"bytes", Path("a.jpg"), HWC, TENSOR, None, 5, {"a": "b"}])
def test_one_image_is_no_batch(images: Any, index: ImageIndex) -> None:
    with pytest.raises(OptionError, match="A batch is a list of images"):
        index.query_many(images)
    with pytest.raises(OptionError, match="A batch is a list of images"):
        index.embed_many(images)


@pytest.mark.parametrize("count", [np.int64(2), np.uint8(2), np.int32(2)])
def test_a_count_may_be_a_numpy_integer(count: Any, index: ImageIndex, photos: Path) -> None:
    assert len(index.query(photos / "0.png", count=count).matches) == 2
    assert len(index.random(count, seed=1)) == 2


@pytest.mark.parametrize("count", [2.0, "2", np.float32(2), float("nan"), 0, -1])
def test_a_count_that_is_no_whole_number_above_0_is_refused(count: Any, index: ImageIndex, photos: Path) -> None:
    with pytest.raises(OptionError, match="count"):
        index.query(photos / "0.png", count=count)
    with pytest.raises(OptionError, match="count"):
        index.random(count)


@pytest.mark.parametrize("floor", [2, -5, float("nan"), float("inf"), "0.5", np.float32("nan"), [0.5]])
def test_a_similarity_that_no_photo_can_have_is_refused(floor: Any, index: ImageIndex, photos: Path) -> None:
    with pytest.raises(OptionError, match="min_similarity="):
        index.query(photos / "0.png", min_similarity=floor)
    with pytest.raises(OptionError, match="min_similarity="):
        index.query_many([photos / "0.png"], min_similarity=floor)


def test_a_similarity_may_be_a_numpy_number(index: ImageIndex, photos: Path) -> None:
    floor: Any = np.float32(0.999)
    assert [each.path for each in index.query(photos / "0.png", min_similarity=floor).matches] == ["0.png"]


@pytest.mark.parametrize("crop", [(0, 0, 1), (0.5, 0, 10, 10), (0, 0, float("nan"), 10), "0,0,8,8", 8])
def test_a_crop_that_is_no_four_whole_numbers_is_refused(crop: Any, index: ImageIndex, photos: Path) -> None:
    with pytest.raises(OptionError, match="crop="):
        index.query(photos / "0.png", crop=crop)


def test_a_crop_may_be_a_row_of_an_array(index: ImageIndex, photos: Path) -> None:
    crop: Any = np.array([[4, 2, 30, 20]])[0]
    assert index.query(photos / "0.png", crop=crop) == index.query(photos / "0.png", crop=(4, 2, 30, 20))


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": float("nan")},
        {"threshold": "0.9"},
        {"min_precision": float("nan")},
        {"min_precision": "0.9"},
        {"min_size": 2.5},
        {"min_size": "3"},
        {"min_size": float("nan")},
        {"keep": ["oldest"]},
    ],
)
def test_an_option_of_duplicates_that_cannot_be_right_is_refused(options: Any, index: ImageIndex) -> None:
    (name,) = options
    with pytest.raises(OptionError, match=f"{name}="):
        index.duplicates(**options)


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("is_alone", [True, False])
def test_one_protected_folder_is_not_taken_apart(
    kind: Callable[[str], Any], is_alone: bool, tmp_path: Path
) -> None:
    """Taken for a list of letters, `protect="originals"` would protect nothing."""
    data = save_photo(tmp_path / "photos" / "originals" / "z.png", 1, SIZE).read_bytes()
    (tmp_path / "photos" / "a.png").write_bytes(data)
    protect = kind("originals") if is_alone else [kind("originals")]
    with ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as made:
        made.update(tmp_path / "photos", workers=1)
        report = made.duplicates(threshold=0.9, confirm=False, protect=protect)
        assert [group.keeper.path for group in report.groups] == ["originals/z.png"]
        against_it = made.duplicates(threshold=0.9, confirm=False, keep="path:a.png")
        assert [each.path for each in made.plan_removal(against_it, "delete").removals] == ["originals/z.png"]
        assert not made.plan_removal(against_it, "delete", protect=protect).removals


def test_a_crop_outside_one_image_costs_only_that_image(index: ImageIndex, tmp_path: Path) -> None:
    save_photo(tmp_path / "small.jpg", 50, (40, 30))
    save_photo(tmp_path / "large.jpg", 50, (200, 150))
    for rerank in (False, True):
        names = [tmp_path / "small.jpg", tmp_path / "large.jpg"]
        bad, good = index.query_many(names, crop=(0, 0, 100, 100), rerank=rerank)
        assert isinstance(bad, Skipped)
        assert isinstance(good, QueryResult)
        assert "The crop 0,0,100,100 is not inside" in bad.reason
        assert "(40 x 30 pixels)" in bad.reason


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_a_pil_image_without_pixels_is_an_error_and_not_blank(index: ImageIndex, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"A PIL image of {size[0]} x {size[1]} pixels has nothing in it"):
        index.query(Image.new("RGB", size))


def test_embed_many_tells_which_image_cannot_be_used(index: ImageIndex, photos: Path, tmp_path: Path) -> None:
    good, bad = photos / "0.png", tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    with pytest.raises(ImageError, match=r"^image 2, .*bad\.jpg: the file is empty$"):
        index.embed_many([good, good, bad])
    with pytest.raises(InputError, match=r"^Image 1 of the batch: An image is a path"):
        index.embed_many([good, 5])  # type: ignore[list-item]


@pytest.mark.parametrize("filters", [[Path("summer")], Path("summer"), [5], [None]])
def test_a_filter_that_is_no_text_is_an_error(index: ImageIndex, photos: Path, filters: Any) -> None:
    with pytest.raises(OptionError, match="A filter is a text, not "):
        index.query(photos / "0.png", filters=filters)


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_than_one_worker_is_an_error(index: ImageIndex, workers: int) -> None:
    with pytest.raises(OptionError, match=f"workers={workers} is out of range: at least 1"):
        index.update(workers=workers)


def test_a_name_with_a_null_character_is_an_image_that_cannot_be_used(index: ImageIndex, photos: Path) -> None:
    with pytest.raises(ImageError, match="null character"):
        index.query("a\0b.jpg")
    bad, good = index.query_many(["a\0b.jpg", photos / "0.png"], rerank=False)
    assert (isinstance(bad, Skipped), isinstance(good, QueryResult)) == (True, True)
