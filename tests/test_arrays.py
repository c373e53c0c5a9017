"""Memory-mapped arrays: every damage of a header is one error, which names the file."""

import errno
import os
import random
from pathlib import Path

import numpy as np
import pytest

from vggsearch.errors import IndexDamaged, IndexNotReadable
from vggsearch.knn.files import SLOTS_FILE, VECTORS_FILE, read_slots, read_vectors
from vggsearch.system.arrays import map_array

HEADER_BYTES = 128
ARRAY = np.arange(320, dtype=np.float16).reshape(40, 8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.save(tmp_path / VECTORS_FILE, ARRAY)
    return tmp_path / VECTORS_FILE


def with_header(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(ARRAY.nbytes)


def test_an_array_is_mapped_and_cannot_be_written_to(file: Path) -> None:
    mapped = map_array(file)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, ARRAY)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04K\x01.",  # a pickle
        b"PK\x03\x04 a ZIP archive",
        with_header("(" * 300),
        with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (40, 8), "),
        with_header("-" * 5000 + "1"),
        with_header("{'descr': ('<f2',), 'fortran_order': False, 'shape': (40, 8)}"),
        with_header("{1: 2, 'a': 3}"),
        with_header("{[]: 1}"),
        with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (-40, 8)}"),
        with_header(f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({10**30}, 8)}}"),
        with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (40000000, 8)}"),
        with_header("{'descr': 'O', 'fortran_order': False, 'shape': (40, 8)}"),
        with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (True,)}"),
    ],
)
def test_what_is_no_array_is_an_error_that_names_the_file(data: bytes, file: Path) -> None:
    file.write_bytes(data)
    with pytest.raises(IndexDamaged) as damaged:
        map_array(file)
    assert damaged.value.file == file


def test_an_array_that_cannot_be_opened_now_is_no_damage(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        def open_memmap(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number), str(file))

        monkeypatch.setattr(np.lib.format, "open_memmap", open_memmap)

    fail(errno.EACCES)
    with pytest.raises(IndexNotReadable, match=r"cannot be read \(Permission denied\)"):
        map_array(file)
    for number in (errno.EMFILE, errno.ENOMEM):
        fail(number)
        with pytest.raises(OSError, match=os.strerror(number)):
            map_array(file)


def test_a_missing_file_is_the_same_error(tmp_path: Path) -> None:
    with pytest.raises(IndexDamaged, match="is missing, but the manifest lists it"):
        map_array(tmp_path / "absent.npy")


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.filterwarnings("ignore:Reading .* needed:UserWarning")
def test_a_header_with_any_bytes_changed_is_read_or_damaged_and_nothing_else(file: Path) -> None:
    data, chance = file.read_bytes(), random.Random(0)
    assert data.index(ARRAY.tobytes()) == HEADER_BYTES
    damaged = 0
    for _ in range(3000):
        changed = bytearray(data)
        for place in chance.choices(range(HEADER_BYTES), k=chance.choice((1, 2, 4))):
            changed[place] = chance.randrange(256)
        file.write_bytes(changed)
        try:
            read_vectors(file.parent)
        except IndexDamaged:
            damaged += 1
    assert damaged > 2000


def test_damaged_slots_are_the_same_error(tmp_path: Path) -> None:
    (tmp_path / SLOTS_FILE).write_bytes(with_header("(" * 300))
    with pytest.raises(IndexDamaged, match=SLOTS_FILE):
        read_slots(tmp_path, 40)
