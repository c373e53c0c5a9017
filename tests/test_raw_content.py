"""RAW files that are TIFF inside are known by their content, whatever their suffix."""

import io
import struct
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import picture
from tests.helpers.examples import examples
from tests.helpers.raw_files import MODEL, RAW_FILES, SERIAL, SIZE, jpeg, tiff_ep
from vggsearch.errors import ImageError
from vggsearch.photos.capture import FRACTION, Capture
from vggsearch.photos.decode import decode
from vggsearch.photos.pixel_hash import pixel_hash
from vggsearch.photos.raw_content import raw_content

DNG_VERSION, SUBDIRECTORIES, PHOTOMETRIC = 50706, 330, 262
CFA, LINEAR_RAW, RGB = 32803, 34892, 2


def tiff(**tags: object) -> bytes:
    file = io.BytesIO()
    picture(1, (64, 48)).save(file, "TIFF", tiffinfo={int(name[1:]): value for name, value in tags.items()})
    return file.getvalue()


def with_subdirectory(photometric: int, at: int | None = None) -> bytes:
    """Return a TIFF file with a directory after its end, or one that points there only."""
    end = len(tiff(_330=(1 << 31) - 1))
    directory = struct.pack("<HHHII", 1, PHOTOMETRIC, 3, 1, photometric) + bytes(4)
    return tiff(_330=end if at is None else at) + directory


def format_of(content: bytes) -> str:
    decoded = decode(io.BytesIO(content), "scan.tif")
    assert decoded.image.size == (64, 48)
    return decoded.format


@pytest.mark.parametrize("photometric", [CFA, LINEAR_RAW])
def test_a_tiff_with_the_data_of_a_sensor_is_raw(photometric: int) -> None:
    assert format_of(with_subdirectory(photometric)) == "RAW"


def test_a_dng_is_raw() -> None:
    assert format_of(tiff(_50706=b"\x01\x04\x00\x00")) == "RAW"


def test_other_tiff_files_are_not_raw() -> None:
    assert format_of(tiff()) == "TIFF"
    assert format_of(with_subdirectory(RGB)) == "TIFF"


def test_a_damaged_subdirectory_costs_nothing() -> None:
    for offset in (0, 1, 7, (1 << 31) - 1):
        assert format_of(with_subdirectory(CFA, offset)) == "TIFF"


def test_other_formats_are_not_raw(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file:
        assert decode(file).format == "PNG"


@pytest.mark.parametrize("name", RAW_FILES)
def test_a_raw_file_is_seen_through_its_largest_preview(name: str) -> None:
    found = decode(io.BytesIO(RAW_FILES[name]), name)
    is_turned = name == "a.RAF"
    assert (found.format, found.image.size) == ("RAW", SIZE[::-1] if is_turned else SIZE)
    seen = found.image.rotate(90, expand=True) if is_turned else found.image
    assert np.abs(np.asarray(seen, int) - np.asarray(picture(1, SIZE), int)).mean() < 5
    assert found.capture == Capture(datetime(2024, 5, 1, 12, 30, 0, 250_000), FRACTION, MODEL, SERIAL)


def test_a_preview_is_turned_as_the_raw_file_says() -> None:
    assert decode(io.BytesIO(tiff_ep(orientation=6)), "a.nef").image.size == SIZE[::-1]
    assert decode(io.BytesIO(tiff_ep(orientation=99)), "a.nef").image.size == SIZE


def test_a_smaller_preview_is_used_if_the_largest_is_no_jpeg() -> None:
    assert decode(io.BytesIO(tiff_ep(preview=bytes(3000))), "a.nef").image.size == (32, 20)


def test_an_impossible_place_of_a_preview_costs_only_itself() -> None:
    content = RAW_FILES["a.CR3"]
    at = content.index(b"co64") + 12
    damaged = content[:at] + b"\xff" * 8 + content[at + 8 :]
    assert decode(io.BytesIO(damaged), "a.cr3").image.size == (48, 32)


def test_two_raw_files_with_one_preview_do_not_show_the_same() -> None:
    one, other = tiff_ep(), tiff_ep() + b"more"
    assert pixel_hash(io.BytesIO(one), "a.nef") != pixel_hash(io.BytesIO(other), "b.nef")


def test_other_files_are_no_raw_files() -> None:
    for content in (b"", b"II", jpeg(), tiff(), b"FUJIFILM", b"\0\0\0\x18ftypheic" + bytes(90)):
        file = io.BytesIO(content)
        assert raw_content(file, "a.jpg") is None
        assert file.tell() == 0


@settings(max_examples=examples(300), deadline=1000)
@given(
    st.sampled_from([*RAW_FILES]),
    st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=6),
    st.integers(0, 12_000),
)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of malformed blocks
def test_a_damaged_raw_file_is_decoded_or_is_an_image_error(
    name: str, damage: list[tuple[int, int]], kept: int
) -> None:
    damaged = bytearray(RAW_FILES[name])
    for place, byte in damage:
        damaged[place % len(damaged)] = byte
    with suppress(ImageError):
        decode(io.BytesIO(bytes(damaged[:kept] if kept < 6000 else damaged)), name)
