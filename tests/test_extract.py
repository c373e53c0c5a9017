import hashlib
import io
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.fakes import FAKE_SPEC, FakeEngine, picture, save_photo
from vggsearch.indexing.extract import extract
from vggsearch.photos.capture import Capture
from vggsearch.photos.decode import decode
from vggsearch.photos.resize import square
from vggsearch.photos.walk import PhotoFile, Skipped, Stamp, walk
from vggsearch.store.records import Embedded


def files_in(root: Path) -> list[PhotoFile]:
    return [item for item in walk(root) if isinstance(item, PhotoFile)]


def save_small(root: Path, count: int) -> list[PhotoFile]:
    for number in range(count):
        save_photo(root / f"{number:03}.jpg", number, (40, 30))
    return files_in(root)


def save_bad(path: Path) -> None:
    path.write_bytes(b"no picture")


def embed_slowly(file: Path) -> NDArray[np.float32]:
    with file.open("rb") as opened:
        photo = decode(opened, file.name, at_least=FAKE_SPEC.size)
    (row,) = FakeEngine().embed(square(photo.image, FAKE_SPEC.size, FAKE_SPEC.resize)[np.newaxis])
    return np.asarray(row, dtype=np.float32)


def embedded(items: Iterable[Embedded | Skipped]) -> list[Embedded]:
    return [item for item in items if isinstance(item, Embedded)]


def path_of(item: Embedded | Skipped) -> str:
    return item.file.path if isinstance(item, Embedded) else item.path


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


class Counted:
    """Files, and how many were asked for so far."""

    def __init__(self, files: list[PhotoFile]) -> None:
        self.files = files
        self.pulled = 0

    def __iter__(self) -> Iterator[PhotoFile]:
        for file in self.files:
            self.pulled += 1
            yield file


class FailingEngine(FakeEngine):
    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError(f"no memory for {len(squares)}")


class StrictEngine(FakeEngine):
    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert squares.dtype == np.uint8
        assert squares.shape[1:] == (FAKE_SPEC.size, FAKE_SPEC.size, 3)
        assert 1 <= len(squares) <= self.batch_size
        return super().embed(squares)


def furthest_ahead(files: list[PhotoFile], root: Path, batch_size: int, workers: int) -> int:
    counted = Counted(files)
    items = extract(counted, root, FAKE_SPEC, partial(FakeEngine, batch_size=batch_size), workers=workers)
    ahead = [counted.pulled - number for number, _ in enumerate(items, start=1)]
    assert len(ahead) == len(files)
    return max(ahead)


def test_the_fake_engine_makes_embeddings_of_the_default_kind() -> None:
    squares = np.stack([square(picture(seed), FAKE_SPEC.size, "squash") for seed in range(3)])
    rows = FakeEngine().embed(squares)
    assert rows.shape == (3, FAKE_SPEC.dim)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1)


def test_a_half_size_copy_is_nearer_than_another_photo(tmp_path: Path) -> None:
    save_photo(tmp_path / "a.jpg", 1, (640, 480))
    picture(1, (640, 480)).resize((320, 240)).save(tmp_path / "b.jpg", quality=60)
    save_photo(tmp_path / "c.jpg", 2, (640, 480))
    first, copy, other = (
        item.embedding for item in embedded(extract(files_in(tmp_path), tmp_path, FAKE_SPEC, FakeEngine))
    )
    assert first @ copy > 0.999
    assert first @ other < 0.98


@pytest.mark.decoders
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_photos_come_out_in_the_order_they_went_in(tmp_path: Path, workers: int) -> None:
    for number in range(20):
        size = (1600, 1200) if number % 5 == 0 else (40, 30)
        save_photo(tmp_path / f"{number:03}.png", number, size, compress_level=1)
    files = files_in(tmp_path)[::-1]
    items = embedded(extract(files, tmp_path, FAKE_SPEC, partial(FakeEngine, batch_size=3), workers=workers))
    assert [item.file for item in items] == files
    for item in items[::5]:
        assert item.embedding == pytest.approx(embed_slowly(tmp_path / item.file.path))


@pytest.mark.decoders
def test_a_bad_file_costs_only_itself_and_keeps_its_place(tmp_path: Path) -> None:
    save_small(tmp_path, 7)
    save_bad(tmp_path / "003.jpg")
    (tmp_path / "005.jpg").write_bytes(b"")
    files = files_in(tmp_path)
    engine = StrictEngine(batch_size=4)
    items = list(extract(files, tmp_path, FAKE_SPEC, lambda: engine))
    assert [path_of(item) for item in items] == [file.path for file in files]
    skipped = [item for item in items if isinstance(item, Skipped)]
    assert [(item.path, item.kind) for item in skipped] == [("003.jpg", "broken"), ("005.jpg", "broken")]
    assert [(item.bytes, item.mtime_ns) for item in skipped] == [
        (files[n].bytes, files[n].mtime_ns) for n in (3, 5)
    ]
    assert engine.pictures == 5


@pytest.mark.decoders
def test_each_photo_gets_its_own_embedding_where_others_are_bad(tmp_path: Path) -> None:
    save_small(tmp_path, 12)
    for number in (0, 4, 5, 11):
        save_bad(tmp_path / f"{number:03}.jpg")
    items = embedded(extract(files_in(tmp_path), tmp_path, FAKE_SPEC, partial(FakeEngine, batch_size=3), workers=4))
    assert len(items) == 8
    for item in items:
        assert item.embedding == pytest.approx(embed_slowly(tmp_path / item.file.path))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_the_look_ahead_is_bounded(tmp_path: Path, batch_size: int, workers: int) -> None:
    files = save_small(tmp_path, 60)
    assert furthest_ahead(files, tmp_path, batch_size, workers) <= 2 * batch_size + workers + 1


@pytest.mark.parametrize("first_is_good", [True, False])
def test_bad_files_do_not_stretch_the_look_ahead(tmp_path: Path, first_is_good: bool) -> None:
    for number in range(60):
        save_bad(tmp_path / f"{number:03}.jpg")
    if first_is_good:
        save_photo(tmp_path / "000.jpg", 0, (40, 30))
    assert furthest_ahead(files_in(tmp_path), tmp_path, batch_size=4, workers=2) <= 2 * 4 + 2 + 1


def test_nothing_is_read_before_the_first_photo_is_asked_for(tmp_path: Path) -> None:
    counted = Counted(save_small(tmp_path, 3))
    extract(counted, tmp_path, FAKE_SPEC, FakeEngine)
    assert counted.pulled == 0


def test_a_folder_of_bad_files_never_troubles_the_engine(tmp_path: Path) -> None:
    for number in range(20):
        save_bad(tmp_path / f"{number:03}.txt")
    engine = FakeEngine(batch_size=4)
    items = list(extract(files_in(tmp_path), tmp_path, FAKE_SPEC, lambda: engine))
    assert [item.kind for item in items if isinstance(item, Skipped)] == ["not a picture"] * 20
    assert engine.calls == 0


def test_no_files_are_no_embeddings(tmp_path: Path) -> None:
    engine = FakeEngine()
    assert list(extract([], tmp_path, FAKE_SPEC, lambda: engine)) == []
    assert engine.calls == 0


@pytest.mark.parametrize(("count", "calls"), [(8, 2), (9, 3), (3, 1)])
def test_the_last_batch_may_be_smaller(tmp_path: Path, count: int, calls: int) -> None:
    engine = StrictEngine(batch_size=4)
    items = embedded(extract(save_small(tmp_path, count), tmp_path, FAKE_SPEC, lambda: engine))
    assert len(items) == count
    assert (engine.calls, engine.pictures) == (calls, count)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (2, 3), (5, 2), (64, 8)])
def test_embeddings_do_not_depend_on_batches_or_threads(tmp_path: Path, batch_size: int, workers: int) -> None:
    files = save_small(tmp_path, 11)
    items = extract(files, tmp_path, FAKE_SPEC, partial(FakeEngine, batch_size=batch_size), workers=workers)
    rows = np.stack([item.embedding for item in embedded(items)])
    assert (rows == np.stack([embed_slowly(tmp_path / file.path) for file in files])).all()


@pytest.mark.decoders
def test_what_is_known_of_a_photo_comes_with_its_embedding(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = save_photo(tmp_path / "sub" / "a.jpg", 0, (1600, 1200), exif=exif)
    (item,) = embedded(extract(files_in(tmp_path), tmp_path, FAKE_SPEC, FakeEngine))
    assert item.file == PhotoFile("sub/a.jpg", path.stat().st_size, path.stat().st_mtime_ns, Stamp.of(path.stat()))
    assert (item.width, item.height, item.format, item.capture) == (1200, 1600, "JPEG", Capture())
    assert item.embedding.shape == (FAKE_SPEC.dim,)


def test_the_hash_is_of_the_bytes_in_the_file(tmp_path: Path) -> None:
    save_photo(tmp_path / "a.jpg", 0)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(data)
    with Image.open(io.BytesIO(data)) as same_pixels:
        same_pixels.save(tmp_path / "c.png")
    items = embedded(extract(files_in(tmp_path), tmp_path, FAKE_SPEC, FakeEngine))
    one, copy, other = (item.sha256 for item in items)
    assert one == copy == hashlib.sha256(data).hexdigest()
    assert other == hashlib.sha256((tmp_path / "c.png").read_bytes()).hexdigest() != one


@pytest.mark.decoders
def test_a_file_that_is_gone_since_the_walk_is_unreadable(tmp_path: Path) -> None:
    files = save_small(tmp_path, 3)
    (tmp_path / files[1].path).unlink()
    first, gone, last = extract(files, tmp_path, FAKE_SPEC, FakeEngine)
    assert isinstance(gone, Skipped)
    assert (gone.path, gone.kind) == (files[1].path, "unreadable")
    assert isinstance(first, Embedded)
    assert isinstance(last, Embedded)


@pytest.mark.decoders
def test_a_file_that_changed_since_the_walk_waits_for_the_next_update(tmp_path: Path) -> None:
    files = save_small(tmp_path, 3)
    save_photo(tmp_path / files[1].path, 77, (50, 40))
    first, changed, last = extract(files, tmp_path, FAKE_SPEC, FakeEngine)
    assert isinstance(changed, Skipped)
    assert (changed.kind, changed.reason) == ("unreadable", "changed while it was read; the next update indexes it")
    assert isinstance(first, Embedded)
    assert isinstance(last, Embedded)


@pytest.mark.decoders
def test_closing_early_ends_the_threads(tmp_path: Path) -> None:
    items = extract(save_small(tmp_path, 40), tmp_path, FAKE_SPEC, partial(FakeEngine, batch_size=2), workers=4)
    next(items)
    assert decoding_threads()
    items.close()
    assert decoding_threads() == []


def test_a_finished_extraction_leaves_no_threads(tmp_path: Path) -> None:
    list(extract(save_small(tmp_path, 10), tmp_path, FAKE_SPEC, FakeEngine, workers=4))
    assert decoding_threads() == []


@pytest.mark.decoders
def test_an_engine_that_fails_is_heard_and_leaves_no_threads(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no memory for 2"):
        list(
            extract(save_small(tmp_path, 40), tmp_path, FAKE_SPEC, partial(FailingEngine, batch_size=2), workers=4)
        )
    assert decoding_threads() == []
