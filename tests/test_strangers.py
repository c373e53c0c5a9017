"""An index from somebody else is data: whatever it says, nothing outside the photo folder is read or changed."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from tests.fakes import FakeEngine, save_photo
from tests.helpers.removals import fill, removal, remove, sha256, tree
from tests.test_store import made, photo
from vggsearch import undo
from vggsearch.cli import cli
from vggsearch.defaults import BUILD
from vggsearch.duplicates.calibration import LabelledPairs
from vggsearch.duplicates.calibration_pairs import CalibrationPairs, read_calibration_pairs, write_calibration_pairs
from vggsearch.errors import ImageError, IndexDamaged, JournalError, PathOutside, VggsearchError
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.integrity import verify
from vggsearch.knn.faiss_import import faiss
from vggsearch.knn.vector_index import VectorIndex
from vggsearch.knn.vectors import unit_rows
from vggsearch.photos.opening import open_photo
from vggsearch.removal.undo import undo as undo_in
from vggsearch.store.contents import CALIBRATION, JOURNALS, KEYPOINT_MATCHES, MANIFEST
from vggsearch.store.files import FileHash
from vggsearch.store.keypoint_codes import KEYPOINT, read_keypoint_codes, write_keypoint_codes
from vggsearch.store.keypoint_matches import KeypointMatch, read_keypoint_matches, write_keypoint_matches
from vggsearch.store.manifest import checksum, read_manifest, write_manifest
from vggsearch.store.store import Store
from vggsearch.system.json_lines import decoded, encoded

OUTSIDE = (
    "../secret.jpg",
    "/etc/passwd",
    "a/../../secret.jpg",
    "..",
    ".",
    "",
    "a//b.jpg",
    "./a.jpg",
    "a/",
    "nul\0.jpg",
)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return save_photo(tmp_path / "secret" / "secret.jpg", 7)


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words, prog_name="vggsearch")


def rewrite(index: ImageIndex, column: str, row: int, value: object) -> None:
    """Change a value in the only part of an index, as somebody may who makes the checksums fit."""
    [part] = index._store.manifest.parts
    path = index.directory / "embeddings" / part.name
    table = pq.read_table(path)
    at = table.schema.get_field_index(column)
    values = table.column(column).to_pylist()
    values[row] = value
    kind = pa.field(column, table.schema.field(column).type)
    pq.write_table(table.set_column(at, kind, pa.array(values, kind.type)), path)
    changed = replace(part, **vars(FileHash.of(path)))
    write_manifest(index.directory, replace(index._store.manifest, parts=(changed,), search=None))


@pytest.mark.parametrize("path", OUTSIDE)
def test_an_index_with_a_path_outside_the_photo_folder_is_not_opened(
    index: ImageIndex, photos: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    rewrite(index, "path", 3, path)
    with pytest.raises(PathOutside, match=r"has in row 3 a path outside the photo folder"):
        ImageIndex.open(index.directory)
    for words in (["index", "photos"], ["query", "photos/summer/0.jpg"], ["dups"], ["info"], ["build"]):
        done = run(*words)
        assert done.exit_code == 1, words
        assert "in row 3 a path outside the photo folder" in done.stderr
        assert done.stderr.count("\n") == 1
    [finding] = verify(index.directory).findings
    assert "row 3" in finding.problem
    assert verify(index.directory, repair=True).is_repaired
    with ImageIndex.open(index.directory, engine=FakeEngine()) as again:
        assert again.update(photos).photos == 6


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sha256", "é" * 64),
        ("sha256", "../" * 20),
        ("sha256", None),
        ("width", 0),
        ("height", -1),
        ("bytes", -5),
        ("path", None),
    ],
)
def test_values_that_no_photo_has_are_errors_that_name_them(
    index: ImageIndex, photos: Path, column: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    rewrite(index, column, 1, value)
    done = run("dups")
    assert done.exit_code == 1
    assert column in done.stderr
    assert done.stderr.count("\n") == 1
    assert not verify(index.directory).is_whole


def test_no_photo_is_read_that_a_link_leads_out_of_the_folder(
    tmp_path: Path, photos: Path, index: ImageIndex, secret: Path
) -> None:
    shutil.rmtree(photos / "winter")
    (photos / "winter").symlink_to(secret.parent)
    (photos / "summer" / "0.jpg").unlink()
    (photos / "summer" / "0.jpg").symlink_to(secret)
    (photos / "inner.jpg").symlink_to(photos / "summer" / "1.jpg")
    for path in ("winter/secret.jpg", "summer/0.jpg", "../secret/secret.jpg"):
        with pytest.raises(ImageError, match=r"leads out of the photo folder, to .*secret\.jpg"):
            open_photo(photos, path)
    for path in ("summer/1.jpg", "inner.jpg"):
        with open_photo(photos, path) as file:
            assert file.read() == (photos / "summer" / "1.jpg").read_bytes()
    os.mkfifo(photos / "pipe.jpg")
    for path in ("pipe.jpg", "summer"):
        with pytest.raises((ImageError, OSError)):
            open_photo(photos, path)
    [finding] = verify(index.directory).findings
    assert "3 photos that a link leads out of" in finding.problem
    assert set(finding.photos) == {"summer/0.jpg", "winter/4.jpg", "winter/5.jpg"}
    assert verify(index.directory, repair=True).photos == 3
    assert verify(index.directory).is_whole


def message_of(read: Callable[[], object]) -> str:
    """The message of the error that reading raises, "" if it raises none."""
    try:
        read()
    except VggsearchError as error:
        return str(error)
    return ""


# ---- journals


@pytest.fixture
def moved(index: ImageIndex, photos: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The journal, in the index, of one copy that was moved away; and where it is now."""
    shutil.copy(photos / "summer" / "1.jpg", photos / "copy.jpg")
    report = remove(photos, [removal(photos, "copy.jpg", "summer/1.jpg")], f"move:{tmp_path / 'out'}")
    folder = index.directory / JOURNALS
    folder.mkdir()
    return report.journal.rename(folder / "a.jsonl"), tmp_path / "out" / "copy.jpg"


def test_a_journal_restores_only_into_the_folder_of_its_index(
    moved: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    journal, there = moved
    victim = fill(tmp_path / "victim", {"x.jpg": b"theirs"})
    text = journal.read_text("utf-8")
    first, *lines = text.encode("utf-8").split(b"\n")
    journal.write_bytes(b"\n".join([encoded(decoded(first) | {"root": str(victim)}), *lines]))
    with pytest.raises(JournalError, match=r"names the photo folder .*victim, but its index belongs to .*photos"):
        undo(journal)
    assert list(tree(victim)) == ["x.jpg"]
    journal.write_text(text, "utf-8")
    alone = tmp_path / "alone.jsonl"
    shutil.copy(journal, alone)
    with pytest.raises(JournalError, match="that of its index is not known"):
        undo(alone)
    done = run("dups", "undo", str(alone))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "--root PHOTOS" in done.stderr
    assert there.exists()
    assert undo(alone, photos).restored == ("copy.jpg",)
    assert undo(journal).already_there == ("copy.jpg",)


def test_a_journal_of_a_damaged_index_needs_the_folder(moved: tuple[Path, Path], photos: Path) -> None:
    journal, _ = moved
    (journal.parent.parent / MANIFEST).write_text("{")
    with pytest.raises(JournalError, match="State the folder"):
        undo(journal)
    assert undo(journal, photos).restored == ("copy.jpg",)


@pytest.mark.parametrize("mode", [0o104755, 0o102755, 0o107777, 0o101644])
def test_undo_brings_back_no_bit_that_lets_a_program_run_as_another(tmp_path: Path, mode: int) -> None:
    root = fill(tmp_path / "photos", {"a.jpg": b"photo", "b.jpg": b"photo"})
    report = remove(root, [removal(root, "b.jpg", "a.jpg")], "delete")
    (root / "a.jpg").chmod(0o4755)
    lines = report.journal.read_text("utf-8").splitlines()
    entry = decoded(lines[1].encode()) | {"mode": mode}
    report.journal.write_text("\n".join([lines[0], encoded(entry).decode(), *lines[2:]]) + "\n", "utf-8")
    assert undo_in(report.journal).restored == ("b.jpg",)
    assert stat.S_IMODE((root / "b.jpg").stat().st_mode) == mode & 0o777


STRANGE: dict[str, tuple[object, ...]] = {
    "path": ("../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "nul\0.jpg", "\ud800.jpg", "", 5, None, [], "x" * 5000),
    "keeper": ("../x.jpg", "/etc/passwd", "nul\0", "\ud800", "", 5, {}),
    "target": ("nul\0", "\ud800", "relative", "", 5, "/" + "x" * 5000),
    "mtime_ns": (10**30, -(10**30), "5", None, 1.5, True),
    "mode": (10**30, -1, "x", None),
    "bytes": (10**30, -1, "x", None),
    "token": ("../../x", "a/b", "", "x" * 5000, "é", "a\0", 5),
    "sha256": ("x", "", "é", 5, None),
    "act": (10**30, "1", None, -1, True),
    "does": ("format", "", 5, None, [], {}),
}


@pytest.mark.parametrize("action", ["move", "delete", "hardlink", "symlink"])
@pytest.mark.parametrize("name", STRANGE)
def test_strange_values_in_a_journal_change_nothing_outside_the_folder(
    tmp_path: Path, action: str, name: str
) -> None:
    for number, value in enumerate(STRANGE[name]):
        base = tmp_path / str(number)
        root = fill(base / "photos", {"a.jpg": b"photo", "b.jpg": b"photo"})
        others = fill(base / "others", {"x.jpg": b"theirs", "photo.jpg": b"photo"})
        done = remove(
            root, [removal(root, "b.jpg", "a.jpg")], f"move:{base / 'out'}" if action == "move" else action
        )
        lines = done.journal.read_text("utf-8").splitlines()
        entry = decoded(lines[1].encode()) | {name: value, "check": None}
        done.journal.write_text("\n".join([lines[0], json.dumps(entry), *lines[2:]]) + "\n", "utf-8")
        with suppress(JournalError):
            undo_in(done.journal)
        assert tree(others) == {"photo.jpg": b"photo", "x.jpg": b"theirs"}
        assert tree(root)["a.jpg"] == b"photo"
        assert sha256(b"photo") in {sha256(content) for content in {**tree(base / "out"), **tree(root)}.values()}


# ---- manifest, calibration, checks

WRONG: tuple[object, ...] = (
    None,
    True,
    -1,
    5,
    10**30,
    1.5,
    "x",
    "..",
    "a/b",
    "\ud800",
    [],
    [[]],
    {},
    {"a": 1},
    [None],
    ["x"],
    [-1],
)


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def with_value(values: dict[str, Any], path: tuple[Any, ...], new: object) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(values))
    at: Any = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return copy


def test_a_manifest_is_read_or_refused_whatever_its_fields_hold(index: ImageIndex, photos: Path) -> None:
    index.update(photos, local_features=True)
    path = index.directory / MANIFEST
    values = json.loads(path.read_text("ascii"))
    tried = refused = 0
    for place in places(values):
        for new in WRONG if place else ():
            changed = with_value(values, place, new)
            path.write_text(json.dumps({**changed, "sha256": checksum(changed)}), "ascii")
            tried += 1
            message = message_of(lambda: read_manifest(index.directory))
            refused += message != ""
            assert "\n" not in message
            assert len(message) < 1000
    assert tried > 1000
    assert refused > 0.8 * tried


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a\\b", "/etc", "nul\0"])
def test_no_name_in_a_manifest_leads_out_of_the_index(name: str) -> None:
    with pytest.raises(ValueError, match="points outside the index"):
        FileHash(name, 1, "0")


def test_a_crafted_calibration_is_computed_again(tmp_path: Path) -> None:
    pairs = CalibrationPairs(LabelledPairs((0.5, -0.2), (3, 0)), LabelledPairs((0.1,), (1,)))
    write_calibration_pairs(tmp_path, pairs, "abc")
    assert read_calibration_pairs(tmp_path, "abc") == pairs
    path = tmp_path / CALIBRATION
    values = json.loads(path.read_text("utf-8"))
    for place in places(values):
        for new in (*WRONG, -5, 10**30, "\ud800", float("nan"), float("inf"), [None, 1]):
            if place:
                changed = with_value(values, place, new)
                path.write_text(json.dumps({**changed, "sha256": checksum(changed)}), "utf-8")
                found = read_calibration_pairs(tmp_path, "abc")
                if found is not None:
                    numbers = [*found.copies.similarities, *found.others.similarities]
                    assert all(abs(each) < 2 for each in numbers)
                    assert {type(each) for each in numbers} <= {float}
    whole = json.dumps(values).encode("ascii")
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert read_calibration_pairs(tmp_path, "abc") in (None, pairs)
    path.write_text("[" * 100_000, "utf-8")
    assert read_calibration_pairs(tmp_path, "abc") is None


def test_every_flipped_byte_of_the_checks_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    matches = {
        (f"{number:064x}", f"{number + 1:064x}"): KeypointMatch(
            0.5,
            number,
            number / 16,
            number % 2 == 0,
            1.5,
            0.7,
            tuple(map(float, range(8))),
            (None, True, False)[number % 3],
        )
        for number in range(12)
    }
    write_keypoint_matches(tmp_path, matches, "this")
    assert read_keypoint_matches(tmp_path, "this") == matches
    assert read_keypoint_matches(tmp_path, "that") == {}
    whole = (tmp_path / KEYPOINT_MATCHES).read_bytes()
    refused = 0
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 0x11
        (tmp_path / KEYPOINT_MATCHES).write_bytes(changed)
        found: list[object] = []
        message = message_of(lambda: found.append(read_keypoint_matches(tmp_path, "this")))  # noqa: B023
        assert found[:1] in ([matches], [{}]) or message.endswith(
            "Delete this file: the pairs are then compared again."
        )
        refused += not found
    assert refused > len(whole) // 30


@pytest.mark.parametrize(
    ("field", "value"), [("angle", float("nan")), ("size", float("inf")), ("size", 0.0), ("size", -1.0)]
)
def test_keypoints_of_no_angle_or_size_are_not_used(tmp_path: Path, field: str, value: float) -> None:
    codes = np.ones(3, KEYPOINT)
    write_keypoint_codes(tmp_path, {"a" * 64: codes}, "this")
    assert read_keypoint_codes(tmp_path, "this")["a" * 64].tobytes() == codes.tobytes()
    assert read_keypoint_codes(tmp_path, "that") == {}
    codes[field][1] = value
    write_keypoint_codes(tmp_path, {"a" * 64: codes}, "this")
    with pytest.raises(IndexDamaged, match="not the angle and size"):
        read_keypoint_codes(tmp_path, "this")


def test_one_wrong_value_with_intact_pages_is_found_by_the_checksum(tmp_path: Path) -> None:
    matches = {("a" * 64, "b" * 64): KeypointMatch(0.5, 7)}
    write_keypoint_matches(tmp_path, matches, "this")
    table = pq.read_table(tmp_path / KEYPOINT_MATCHES)
    changes: dict[str, Callable[[], pa.Array]] = {
        "first": lambda: pa.array(["c" * 64]),
        "score": lambda: pa.array([0.6]),
        "inliers": lambda: pa.array([900], pa.int32()),
        "agreement": lambda: pa.array([0.9]),
        "mirrored": lambda: pa.array([True]),
        "same_pixels": lambda: pa.array([True]),
        "corners": lambda: pa.array([[1.0] * 8], pa.list_(pa.float64(), 8)),
    }
    for name, change in changes.items():
        at = table.schema.get_field_index(name)
        pq.write_table(table.set_column(at, table.schema.field(name), change()), tmp_path / KEYPOINT_MATCHES)
        with pytest.raises(IndexDamaged, match="wrong checksum"):
            read_keypoint_matches(tmp_path, "this")


def test_a_store_of_normal_photos_is_unaffected(tmp_path: Path) -> None:
    names = ["...jpg", "..a/b..jpg", "a b/é.jpg", ".hidden/x", "a\\b.jpg", "\u2028.jpg"]
    store = made(tmp_path / "x", [photo(name, number) for number, name in enumerate(names)])
    assert Store.open(store.directory).paths() == names


def test_a_damaged_header_of_an_array_is_an_error(index: ImageIndex, photos: Path) -> None:
    index.update(photos, local_features=True)
    path = index.directory / "local" / "000001" / "keys.npy"
    whole = path.read_bytes()
    for place in range(128):
        for flip in (0x01, 0x04, 0x11, 0x80, 0xFF):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            message_of(index._store.local().all_keys)
    path.write_bytes(whole)
    assert len(index._store.local().all_keys()) == 6


def test_a_damaged_footer_of_a_part_is_an_error(index: ImageIndex) -> None:
    [path] = (index.directory / "embeddings").iterdir()
    whole = path.read_bytes()
    for place in range(len(whole) - 2000, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
        message_of(lambda: list(index._store.paths()))
    path.write_bytes(whole)
    assert len(index._store.paths()) == 6


def test_a_vector_index_of_usual_size_is_compared_with_its_checksum_before_faiss_reads_it(
    index: ImageIndex, photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = index.query(photos / "summer/0.jpg").matches
    (file,) = index.directory.glob("search/*/index.faiss")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    monkeypatch.setattr("vggsearch.knn.vector_index.read_index", lambda *_: pytest.fail("FAISS has read it"))
    with ImageIndex.open(index.directory, engine=FakeEngine()) as opened:
        assert opened.query(photos / "summer/0.jpg").matches == expected
    assert "index.faiss has sha256" in caplog.text
    assert "until then, queries search the embeddings" in caplog.text
    monkeypatch.undo()
    monkeypatch.setattr("vggsearch.store.store.BUILD", replace(BUILD, hashed_bytes=1000))
    with ImageIndex.open(index.directory, engine=FakeEngine()) as opened:
        assert opened.query(photos / "summer/0.jpg").matches == expected, "a large one is only measured"


def test_rows_that_faiss_makes_up_are_left_out() -> None:
    vectors = unit_rows(np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)).astype(np.float16)
    core = faiss().index_factory(8, "IDMap,Flat", faiss().METRIC_INNER_PRODUCT)
    core.add_with_ids(vectors.astype(np.float32), np.array([0, 1, 2, 3, 4, 5, 6, 9, 2**40], np.int64))
    rows, _ = VectorIndex(core, vectors).nearest(vectors[:3].astype(np.float32), 5)
    assert rows.max() < 9
    assert rows[:, 0].tolist() == [0, 1, 2]
