"""RAW files that are TIFF inside are known by their content, whatever their suffix."""

import io
import struct
from pathlib import Path

import pytest

from tests.fakes import picture
from vggsearch.photos.decode import decode

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
