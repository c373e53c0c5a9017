"""Decoder processes: real ones, really crashed, hung, flooded and killed."""

import contextlib
import gc
import hashlib
import io
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.fakes import FAKE_SPEC, FakeEngine, picture, save_photo
from tests.helpers import hostile
from tests.helpers.odd_files import (
    make_device,
    make_folder,
    make_link_out,
    make_photo_of_a_terabyte,
    make_pipe,
    make_terabyte,
)
from vggsearch import defaults
from vggsearch.errors import ForkError, ImageError, InstallationError
from vggsearch.indexing.extract import extract
from vggsearch.photos import decoder_pool, decoder_process
from vggsearch.photos.capture import FRACTION, Capture
from vggsearch.photos.decode import decode
from vggsearch.photos.decoder_pool import Decoders, Source, Square, default_workers
from vggsearch.photos.decoder_process import LOW_PRIORITY
from vggsearch.photos.exif import ORIENTATION
from vggsearch.photos.resize import small_grey, square
from vggsearch.photos.shared_pixels import SharedPixels
from vggsearch.photos.upright import OutsideError
from vggsearch.photos.walk import PhotoFile, Skipped, walk
from vggsearch.store.records import Embedded

pytestmark = pytest.mark.decoders

SIZE, RESIZE = 64, "squash"
ODD_NAMES = ["line\nbreak.jpg", "\u00fcml\u00e4ut.jpg", 'quo"te.jpg', "{}.jpg", " .jpg"]


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    with Decoders(1) as opened:
        yield opened


@pytest.fixture
def hostile_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_process, "WORKER_CODE", "from tests.helpers.hostile import serve; serve()")
    monkeypatch.setattr(defaults, "DECODER", hostile.LIMITS)


def file_at(path: Path) -> PhotoFile:
    try:
        status = path.stat()
    except FileNotFoundError:
        return PhotoFile(path.name, 0, 0)
    return PhotoFile(path.name, status.st_size, status.st_mtime_ns)


def square_of(decoders: Decoders, path: Path, resize: str = RESIZE) -> Square:
    return decoders.decode(path.parent, file_at(path), SIZE, resize)


def save_hostile(path: Path, deed: str) -> str:
    path.write_bytes(f"HOSTILE {deed}".encode())
    return path.name


def children() -> set[int]:
    mine = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            mine.add(int(path.parent.name))
    return mine


def the_process(decoders: Decoders) -> int:
    (decoder,) = decoders._all
    return decoder._process.pid


@pytest.mark.parametrize("name", ["a.jpg", "a.png", *ODD_NAMES])
def test_a_decoder_process_decodes_as_this_process_does(tmp_path: Path, decoders: Decoders, name: str) -> None:
    path = save_photo(tmp_path / name, 0, (300, 200))
    got = square_of(decoders, tmp_path / name)
    with path.open("rb") as file:
        photo = decode(file, name, at_least=SIZE)
    assert (got.pixels == square(photo.image, SIZE, RESIZE)).all()
    assert (got.width, got.height, got.format, got.capture) == (300, 200, photo.format, Capture())
    assert got.pixels.dtype == np.uint8
    assert not got.is_blank
    assert got.pixels.flags.writeable
    assert got.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_largest_square_fits_the_shared_memory(tmp_path: Path, decoders: Decoders) -> None:
    side = defaults.EMBEDDING.largest_size
    picture(0, (side, side)).save(tmp_path / "a.png")
    got = decoders.decode(tmp_path, file_at(tmp_path / "a.png"), side, RESIZE)
    assert (got.pixels == np.asarray(picture(0, (side, side)))).all()


def test_pixels_are_not_those_of_the_next_photo(tmp_path: Path, decoders: Decoders) -> None:
    for number in range(2):
        save_photo(tmp_path / f"{number}.png", number)
    first = square_of(decoders, tmp_path / "0.png").pixels
    before = first.copy()
    assert (square_of(decoders, tmp_path / "1.png").pixels != before).any()
    assert (first == before).all()


def test_a_file_that_changed_since_the_walk_is_refused(tmp_path: Path, decoders: Decoders) -> None:
    found = file_at(save_photo(tmp_path / "a.jpg", 0))
    for other in (found._replace(mtime_ns=1), found._replace(bytes=found.bytes + 1)):
        with pytest.raises(ImageError, match="changed while it was read") as changed:
            decoders.decode(tmp_path, other, SIZE, RESIZE)
        assert changed.value.kind == "unreadable"


def test_only_the_start_of_a_video_is_read(tmp_path: Path, decoders: Decoders) -> None:
    with (tmp_path / "holiday.mov").open("wb") as file:
        file.write(b"\0\0\0\x14ftypqt  ")
        file.truncate(1 << 40)  # a terabyte, sparse
    with pytest.raises(ImageError, match="not a picture"):
        square_of(decoders, tmp_path / "holiday.mov")


def mappings() -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line for line in lines if "/memfd:vggsearch (deleted)" in line}


WRITE = (
    "import sys; from vggsearch.photos.shared_pixels import open_shared as o; o(sys.argv[1])[:12] = bytes([7] * 12)"
)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_process_writes_into_memory_that_has_no_name_in_the_file_system(
    platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", platform)
        patched.setattr(tempfile, "tempdir", str(tmp_path))
        shared = SharedPixels()
    command = [sys.executable, "-c", WRITE, shared.name]
    subprocess.run(command, pass_fds=shared.file_descriptors, check=True)
    shared.close()
    assert (shared.copy((2, 2, 3)) == 7).all()
    assert not list(tmp_path.iterdir())


def use_and_kill_decoders(path: Path) -> None:
    with Decoders(2) as decoders:
        for _ in range(3):
            square_of(decoders, path)
            for decoder in decoders._all:
                if decoder._is_ready:
                    os.kill(decoder._process.pid, signal.SIGKILL)


def test_nothing_is_left_of_decoders_and_of_what_they_shared(tmp_path: Path) -> None:
    gc.collect()
    descriptors, mapped = len(list(Path("/proc/self/fd").iterdir())), mappings()
    use_and_kill_decoders(save_photo(tmp_path / "a.jpg", 0))
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert mappings() == mapped


@pytest.mark.parametrize(
    ("quota", "usable", "expected"),
    [("max 100000", 3, 3), ("250000 100000", 8, 3), ("50000 100000", 8, 1), ("", 16, 16), (None, 40, 40)],
)
def test_there_is_a_process_for_each_cpu_that_may_be_used(
    quota: str | None, usable: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(decoder_pool, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)))
    assert default_workers() == expected


def test_time_and_camera_are_transferred(tmp_path: Path, decoders: Decoders) -> None:
    save_photo(tmp_path / "a.jpg", 0, exif=_taken("2004:02:29 23:59:58"))
    found = square_of(decoders, tmp_path / "a.jpg").capture
    assert found == Capture(datetime(2004, 2, 29, 23, 59, 58, 500_000), FRACTION, "EOS")


def _taken(text: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update({0x9003: text, 0x9291: "5"})
    exif[ExifTags.Base.Model] = "EOS"
    return exif.tobytes()


def test_a_file_that_cannot_be_used_leaves_the_process_alive(tmp_path: Path, decoders: Decoders) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    save_photo(tmp_path / "good.jpg", 0)
    process = the_process(decoders)
    for _ in range(3):
        with pytest.raises(ImageError):
            square_of(decoders, tmp_path / "bad.jpg")
        with pytest.raises(ImageError) as gone:
            square_of(decoders, tmp_path / "gone.jpg")
        assert gone.value.kind == "unreadable"
        assert square_of(decoders, tmp_path / "good.jpg").width == 320
    assert the_process(decoders) == process


@pytest.mark.usefixtures("hostile_decoders")
@pytest.mark.parametrize(
    ("deed", "kind", "reason"),
    [
        ("crash", "broken", "its decoder crashed (Segmentation fault)"),
        ("hang", "broken", "decoding took more than 1 s"),
        ("flood", "unreadable", "not enough memory to decode it"),
        ("end", "broken", "its decoder exited with status 3"),
        ("be_killed", "unreadable", "its decoder was killed, perhaps because memory ran out"),
        ("chatter", "broken", "damaged (ValueError: chatter only)"),
    ],
)
def test_a_hostile_file_affects_no_other_file(tmp_path: Path, deed: str, kind: str, reason: str) -> None:
    save_photo(tmp_path / "good.jpg", 0)
    name = save_hostile(tmp_path / "bad.jpg", deed)
    with Decoders(1) as decoders:
        before = square_of(decoders, tmp_path / "good.jpg")
        with pytest.raises(ImageError) as raised:
            square_of(decoders, tmp_path / name)
        assert (raised.value.kind, raised.value.reason) == (kind, reason)
        after = square_of(decoders, tmp_path / "good.jpg")
    assert (before.pixels == after.pixels).all()


@pytest.mark.usefixtures("hostile_decoders")
def test_a_folder_of_hostile_files_is_processed_in_order(tmp_path: Path) -> None:
    deeds = sorted(name.decode() for name in hostile.DEEDS)
    for number in range(24):
        if number % 3 == 1:
            save_hostile(tmp_path / f"{number:02}.jpg", deeds[number // 3 % len(deeds)])
        else:
            save_photo(tmp_path / f"{number:02}.jpg", number, (40, 30))
    files = [item for item in walk(tmp_path) if isinstance(item, PhotoFile)]
    items = list(extract(files, tmp_path, FAKE_SPEC, partial(FakeEngine, batch_size=4), workers=3))
    assert [item.file.path if isinstance(item, Embedded) else item.path for item in items] == [
        file.path for file in files
    ]
    assert [number for number, item in enumerate(items) if isinstance(item, Skipped)] == list(range(1, 24, 3))


def test_a_process_that_died_between_two_files_is_replaced(tmp_path: Path, decoders: Decoders) -> None:
    save_photo(tmp_path / "a.jpg", 0)
    square_of(decoders, tmp_path / "a.jpg")
    os.kill(the_process(decoders), signal.SIGKILL)
    assert square_of(decoders, tmp_path / "a.jpg").width == 320


def test_ctrl_c_in_the_terminal_does_not_reach_a_process(tmp_path: Path, decoders: Decoders) -> None:
    assert os.getpgid(the_process(decoders)) != os.getpgid(0)


def test_a_process_ends_with_its_parent(tmp_path: Path, decoders: Decoders) -> None:
    save_photo(tmp_path / "a.jpg", 0)
    square_of(decoders, tmp_path / "a.jpg")
    (decoder,) = decoders._all
    decoder._requests.close()  # as the system does for a parent that is gone
    assert decoder._process.wait(timeout=10) == 0


def test_closing_interrupts_a_file_that_hangs(
    tmp_path: Path, hostile_decoders: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        decoder_process,
        "WORKER_CODE",
        "from tests.helpers import hostile; hostile.LIMITS = hostile.DecoderDefaults(); hostile.serve()",
    )
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    save_photo(tmp_path / "a.jpg", 0)
    for number in range(8):
        save_hostile(tmp_path / f"b{number}.jpg", "hang")
    before = children()
    files = [item for item in walk(tmp_path) if isinstance(item, PhotoFile)]
    items = extract(files, tmp_path, FAKE_SPEC, partial(FakeEngine, batch_size=1), workers=2)
    assert isinstance(next(items), Embedded)
    items.close()
    assert children() == before
    # They were killed; what ends at the time limit for a file, of a minute, ends with an exit status.
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


def test_no_process_is_left_running(tmp_path: Path) -> None:
    before = children()
    for number in range(4):
        save_photo(tmp_path / f"{number}.jpg", number)
    files = [item for item in walk(tmp_path) if isinstance(item, PhotoFile)]
    list(extract(files, tmp_path, FAKE_SPEC, FakeEngine, workers=2))
    assert children() == before


def test_the_error_of_a_decoder_that_does_not_start_says_how_to_find_out_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_process, "WORKER_CODE", "import no_such_module")
    save_photo(tmp_path / "a.jpg", 0)
    with Decoders(1) as decoders, pytest.raises(InstallationError, match=r"does not start \(exit status 1\)"):
        square_of(decoders, tmp_path / "a.jpg")


def test_a_bug_in_vggsearch_is_not_blamed_on_the_file(tmp_path: Path, decoders: Decoders) -> None:
    save_photo(tmp_path / "a.jpg", 0)
    with pytest.raises(RuntimeError, match=r"(?s)a bug in vggsearch, at a\.jpg:.*KeyError: 'no such resize'"):
        square_of(decoders, tmp_path / "a.jpg", "no such resize")
    assert square_of(decoders, tmp_path / "a.jpg").width == 320


def png_with_text_bomb() -> bytes:
    """A small picture whose zTXt chunk unpacks to 256 MB."""
    packed = zlib.compress(bytes(256 << 20), 9)
    chunk = b"zTXt" + b"Comment\0\0" + packed
    whole = io.BytesIO()
    picture(0, (40, 30)).save(whole, "PNG")
    start, rest = whole.getvalue()[:33], whole.getvalue()[33:]  # behind the signature and IHDR
    return start + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + rest


@pytest.mark.parametrize(("name", "reason"), [("text bomb.png", "too large"), ("pixel bomb.png", "exceeds limit")])
def test_a_decompression_bomb_is_refused_before_it_is_decompressed(
    tmp_path: Path, decoders: Decoders, name: str, reason: str
) -> None:
    if name.startswith("text"):
        (tmp_path / name).write_bytes(png_with_text_bomb())
    else:
        Image.new("1", (20_000, 20_000)).save(tmp_path / name)
    with pytest.raises(ImageError, match=reason):
        square_of(decoders, tmp_path / name)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{the_process(decoders)}/status").read_text())
    assert peak is not None
    assert int(peak[1]) < 200_000


def test_a_panorama_of_60_000_pixels_is_decoded(tmp_path: Path, decoders: Decoders) -> None:
    picture(3, (600, 20)).resize((60_000, 2000), Image.Resampling.NEAREST).save(tmp_path / "wide.jpg", quality=50)
    found = square_of(decoders, tmp_path / "wide.jpg")
    assert (found.width, found.height) == (60_000, 2000)
    assert not found.is_blank


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="the operating system has no priorities")
def test_decoders_that_stand_back_do_so_after_a_restart_too() -> None:
    with Decoders(2) as decoders:
        decoders.lower_priority()
        decoders._all[0].end()
        decoders._all[0].start()
        for decoder in decoders._all:
            assert os.getpriority(os.PRIO_PROCESS, decoder._process.pid) == LOW_PRIORITY


def at(path: Path) -> Source:
    return Source(path.name, path.parent)


def test_a_picture_is_delivered_upright_and_bounded(tmp_path: Path, decoders: Decoders) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    picture(0, (1600, 800)).save(tmp_path / "a.jpg", exif=exif)
    assert decoders.picture(at(tmp_path / "a.jpg"), 384, of_longer=True).size == (400, 800)
    assert decoders.picture(at(tmp_path / "a.jpg"), 384).size == (800, 1600)
    save_photo(tmp_path / "small.png", 1, (20, 10))
    small = decoders.picture(at(tmp_path / "small.png"), 384, of_longer=True)
    np.testing.assert_array_equal(np.asarray(small), np.asarray(picture(1, (20, 10))))


@pytest.mark.parametrize("size", [(4000, 1000), (1_000_000, 3), (3, 1_000_000), (2_500_000, 1)])
def test_no_picture_is_larger_than_the_memory_shared_for_it(tmp_path: Path, decoders: Decoders, size: Any) -> None:
    Image.new("1", size, 1).save(tmp_path / "a.png")
    got = decoders.picture(at(tmp_path / "a.png"), 1024)
    assert 0 < got.width * got.height <= defaults.IMAGE.picture_pixels
    assert np.asarray(got).min() == 255


def test_a_view_is_that_of_the_crop_in_pixels_of_the_whole_photo(tmp_path: Path, decoders: Decoders) -> None:
    whole, crop = picture(0, (900, 600)), (300, 100, 400, 200)
    whole.save(tmp_path / "a.png")
    found = decoders.view(at(tmp_path / "a.png"), SIZE, RESIZE, crop)
    np.testing.assert_array_equal(found.pixels, square(whole.crop((300, 100, 700, 300)), SIZE, RESIZE))
    assert found.aspect == 2.0
    assert decoders.view(at(tmp_path / "a.png"), SIZE, RESIZE).aspect == 1.5
    assert found.grey is None
    both = decoders.view(at(tmp_path / "a.png"), SIZE, RESIZE, crop, longer=120)
    np.testing.assert_array_equal(both.pixels, found.pixels)
    np.testing.assert_array_equal(both.grey, small_grey(whole.crop((300, 100, 700, 300)), 120))
    assert both.grey is not None
    assert both.grey.shape == (60, 120)
    with pytest.raises(OutsideError) as outside:
        decoders.view(at(tmp_path / "a.png"), SIZE, RESIZE, (600, 0, 301, 10))
    assert (outside.value.width, outside.value.height) == (900, 600)


def test_bytes_are_decoded_as_the_file_is_and_files_do_not_follow_them(tmp_path: Path, decoders: Decoders) -> None:
    data = save_photo(tmp_path / "a.png", 0, (1200, 900)).read_bytes()  # more than a pipe holds
    expected = decoders.view(at(tmp_path / "a.png"), SIZE, RESIZE)
    for _ in range(2):
        given = decoders.view(Source("", data=data), SIZE, RESIZE)
        assert (given.pixels == expected.pixels).all()
        with pytest.raises(ImageError):
            decoders.view(Source("", data=data[:1000]), SIZE, RESIZE)
        with pytest.raises(ImageError, match="empty"):
            decoders.view(Source("", data=b""), SIZE, RESIZE)


def test_the_hash_of_pixels_is_equal_for_equal_pixels_only(tmp_path: Path, decoders: Decoders) -> None:
    save_photo(tmp_path / "a.png", 0)
    picture(0).save(tmp_path / "b.tif")
    changed = picture(0)
    changed.putpixel((319, 239), (0, 0, 0))
    changed.save(tmp_path / "c.png")
    first, same, other = (decoders.pixel_hash(at(tmp_path / name)) for name in ("a.png", "b.tif", "c.png"))
    assert first == same != other


def test_the_quality_of_a_jpeg_is_told_and_of_another_file_none(tmp_path: Path, decoders: Decoders) -> None:
    save_photo(tmp_path / "a.jpg", 0, quality=60)
    save_photo(tmp_path / "a.png", 0)
    assert decoders.jpeg_quality(at(tmp_path / "a.jpg")) == pytest.approx(60, abs=1)
    assert decoders.jpeg_quality(at(tmp_path / "a.png")) is None


STRANGE: dict[Callable[[Path], None], str] = {
    make_pipe: "not a regular file",
    make_link_out: "leads out of the photo folder, to /etc/passwd",
    make_folder: "not a regular file",
    make_device: "not a regular file",
    make_terabyte: "damaged or in an unsupported variant",
}


@pytest.mark.parametrize("make", STRANGE)
def test_whatever_a_file_has_become_costs_one_reason(
    make: Callable[[Path], None], tmp_path: Path, decoders: Decoders
) -> None:
    path = tmp_path / "a.jpg"
    make(path)
    asked: list[Callable[[], object]] = [
        lambda: decoders.decode(tmp_path, file_at(path), SIZE, RESIZE),
        lambda: decoders.view(at(path), SIZE, RESIZE),
        lambda: decoders.picture(at(path), SIZE),
        lambda: decoders.pixel_hash(at(path)),
        lambda: decoders.jpeg_quality(at(path)),
    ]
    for ask in asked[: 4 if make is make_terabyte else 5]:
        with pytest.raises(ImageError) as raised:
            ask()
        assert STRANGE[make] in raised.value.reason


def test_a_photo_of_a_terabyte_is_not_read_to_its_end(tmp_path: Path, decoders: Decoders) -> None:
    make_photo_of_a_terabyte(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=r"has 1,099\.5 GB; the limit for a photo is 2\.1 GB") as raised:
        square_of(decoders, tmp_path / "a.jpg")
    assert raised.value.kind == "too large"


def test_what_a_user_names_may_lie_anywhere_and_relative_to_the_current_folder(
    tmp_path: Path, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photo(tmp_path / "elsewhere" / "a.jpg", 0)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert decoders.view(Source("a.jpg"), SIZE, RESIZE).aspect == 4 / 3
    assert decoders.view(Source("a.jpg", Path()), SIZE, RESIZE).aspect == 4 / 3


def test_pictures_that_take_much_memory_wait_for_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = at(save_photo(tmp_path / "a.png", 0, (400, 300)))
    monkeypatch.setattr(defaults, "DECODER", replace(defaults.DECODER, usual_bytes=1000, picture_bytes=500_000))
    busy: list[int] = []
    with Decoders(3) as decoders, ThreadPoolExecutor(6) as threads:
        answered = decoders._answered

        def watched(request: Any) -> Any:
            is_large = request.values["memory"] > 1000
            busy.append(is_large)
            at_once = sum(busy)
            response = answered(request)
            busy.append(-is_large)
            assert at_once <= 1
            return response

        monkeypatch.setattr(decoders, "_answered", watched)
        hashes = set(threads.map(lambda _: decoders.pixel_hash(photo), range(12)))
    assert len(hashes) == 1
    assert busy.count(1) == 12


def test_a_fork_neither_uses_nor_ends_the_decoders_of_its_parent(tmp_path: Path, decoders: Decoders) -> None:
    photo = at(save_photo(tmp_path / "a.jpg", 0))
    child = os.fork()
    if child == 0:  # it must not return into pytest
        status = 1
        with contextlib.suppress(ForkError):
            decoders.jpeg_quality(photo)
            status = 2
        decoders.close()
        os._exit(0 if status == 1 and not decoders.is_usable else 3)
    assert os.waitpid(child, 0)[1] == 0
    assert decoders.is_usable
    assert decoders.jpeg_quality(photo) is not None


def test_decoders_that_are_forgotten_end(tmp_path: Path) -> None:
    before = children()
    forgotten = Decoders(1)
    square_of(forgotten, save_photo(tmp_path / "a.jpg", 0))
    assert len(children() - before) == 1
    del forgotten
    gc.collect()
    assert children() == before


def test_after_closing_every_request_is_an_error_of_one_line(tmp_path: Path) -> None:
    closed = Decoders(1)
    closed.close()
    closed.close()
    with pytest.raises(ImageError, match="were closed"):
        closed.jpeg_quality(at(save_photo(tmp_path / "a.jpg", 0)))
