import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import FAKE_SPEC
from tests.helpers.examples import examples
from tests.helpers.known_files import files_in
from vggsearch.errors import (
    IndexDamaged,
    IndexExists,
    IndexFormatError,
    IndexLocked,
    IndexMissing,
    IndexNotWritable,
)
from vggsearch.photos.capture import FRACTION, Capture
from vggsearch.photos.perceptual_hash import BYTES
from vggsearch.photos.walk import PhotoFile, Skipped
from vggsearch.store.manifest import FORMAT, checksum
from vggsearch.store.parts import CAPTURE, read_skipped, write_skipped
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

MADE_BY = EngineInfo("fake", "fp32")


def photo(path: str, seed: int = 0) -> Embedded:
    random = np.random.default_rng(seed)
    vector = random.standard_normal(FAKE_SPEC.dim).astype(np.float32)
    return Embedded(
        file=PhotoFile(path, bytes=1000 + seed, mtime_ns=10**18 + seed),
        sha256=f"{seed:064x}",
        width=640,
        height=480,
        format="JPEG",
        capture=Capture(datetime(2020, 1, 2, 3, 4, 5, 678_000), FRACTION, "Canon EOS", "7")
        if seed % 2
        else Capture(),
        is_blank=seed == 4,
        perceptual_hash=bytes([seed]) * BYTES if seed else None,
        embedding=vector / np.linalg.norm(vector),
        made_by=MADE_BY,
    )


def made(directory: Path, *parts: list[Embedded]) -> Store:
    store = Store.create(directory, FAKE_SPEC)
    with writing(store) as writer:
        for part in parts:
            writer.commit(part)
    return store


def all_embeddings(store: Store) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    return np.concatenate([np.empty((0, FAKE_SPEC.dim), np.float16), *store.embeddings()])


def test_commits_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    photos = [photo(f"{seed}.jpg", seed) for seed in range(5)]
    made(tmp_path / "x", photos[:3], photos[3:])
    store = Store.open(tmp_path / "x")
    assert store.paths() == [one.file.path for one in photos]
    assert list(files_in(store).values()) == [one.file for one in photos]
    expected = np.stack([one.embedding for one in photos]).astype(np.float16)
    np.testing.assert_array_equal(all_embeddings(store), expected)
    assert [store.column(part, "taken") for part in store.manifest.parts] == [
        [one.capture.taken for one in photos[:3]],
        [one.capture.taken for one in photos[3:]],
    ]
    assert store.manifest.made_by == ("fake fp32",)


def test_the_manifest_lists_size_and_hash_of_every_part(tmp_path: Path) -> None:
    import hashlib

    store = made(tmp_path / "x", [photo("a.jpg")], [photo("b.jpg", 1)])
    assert len(store.manifest.parts) == 2
    for part in store.manifest.parts:
        data = (tmp_path / "x" / "embeddings" / part.name).read_bytes()
        assert (part.bytes, part.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_parts_hold_fixed_size_lists_of_float16_and_few_nulls(tmp_path: Path) -> None:
    made(tmp_path / "x", [photo("a.jpg")])
    schema = pq.read_schema(next((tmp_path / "x" / "embeddings").iterdir()))
    field = schema.field("embedding")
    assert (str(field.type.value_type), field.type.list_size, field.nullable) == ("halffloat", FAKE_SPEC.dim, False)
    assert [field.name for field in schema if field.nullable] == [*CAPTURE, "perceptual_hash"]


def test_replaced_and_removed_photos_are_no_longer_rows(tmp_path: Path) -> None:
    store = made(tmp_path / "x", [photo("a.jpg"), photo("b.jpg", 1), photo("c.jpg", 2)])
    before = store.manifest.fingerprint
    with writing(store) as writer:
        writer.commit([photo("b.jpg", 9)], removed=["a.jpg"])
    reopened = Store.open(tmp_path / "x")
    assert reopened.paths() == ["c.jpg", "b.jpg"]
    assert len(reopened) == 2
    np.testing.assert_array_equal(all_embeddings(reopened)[1], photo("b.jpg", 9).embedding.astype(np.float16))
    assert reopened.manifest.fingerprint != before


def test_paths_are_a_sequence_over_all_parts_without_dead_rows(tmp_path: Path) -> None:
    store = made(tmp_path / "x", [photo(f"{seed}.jpg", seed) for seed in range(4)], [photo("ä/4.jpg", 4)])
    with writing(store) as writer:
        writer.commit([], removed=["1.jpg"])
    paths, expected = Store.open(tmp_path / "x").paths(), ["0.jpg", "2.jpg", "3.jpg", "ä/4.jpg"]
    assert (list(paths), len(paths), paths == expected) == (expected, 4, True)
    assert paths != expected[:3]
    assert paths != [*expected[:3], "4.jpg"]
    assert [paths[row] for row in (*range(4), -1)] == [*expected, "ä/4.jpg"]
    assert paths[1:] == expected[1:]
    assert [paths.index(path) for path in expected] == [0, 1, 2, 3]
    assert [path in paths for path in ("ä/4.jpg", "1.jpg", None)] == [True, False, False]
    with pytest.raises(IndexError):
        paths[4]
    with pytest.raises(ValueError, match=r"'1\.jpg' is not the path of a photo"):
        paths.index("1.jpg")
    empty = made(tmp_path / "y").paths()
    assert (list(empty), "0.jpg" in empty) == ([], False)


def test_a_part_without_live_rows_is_dropped_and_the_next_writer_deletes_its_file(tmp_path: Path) -> None:
    store = made(tmp_path / "x", [photo("a.jpg")], [photo("b.jpg", 1)])
    with writing(store) as writer:
        writer.commit([], removed=["a.jpg"])
    assert [part.name for part in store.manifest.parts] == ["part-000002.parquet"]
    with writing(store):
        pass
    assert [path.name for path in (tmp_path / "x" / "embeddings").iterdir()] == ["part-000002.parquet"]


def test_leftovers_of_a_crashed_run_are_removed_and_their_name_is_free(tmp_path: Path) -> None:
    store = made(tmp_path / "x", [photo("a.jpg")])
    (tmp_path / "x" / "embeddings" / "part-000002.parquet").write_bytes(b"half of it")
    (tmp_path / "x" / "embeddings" / "part-000002.parquet.77.tmp").write_bytes(b"half")
    (tmp_path / "x" / "manifest.json.77.tmp").write_bytes(b"{")
    with writing(store) as writer:
        writer.commit([photo("b.jpg", 1)])
    assert Store.open(tmp_path / "x").paths() == ["a.jpg", "b.jpg"]
    assert not list((tmp_path / "x").rglob("*.tmp"))


def test_a_failed_write_keeps_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path / "x", [photo("a.jpg")])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with writing(store) as writer:
        monkeypatch.setattr("vggsearch.store.parts.pq.write_table", full)
        with pytest.raises(IndexNotWritable, match=r"part-000002.parquet cannot be written \(No space left"):
            writer.commit([photo("b.jpg", 1)])
        monkeypatch.undo()
    assert Store.open(tmp_path / "x").paths() == ["a.jpg"]
    assert not list((tmp_path / "x").rglob("*.tmp"))


def test_skipped_files_are_stored_with_their_reasons(tmp_path: Path) -> None:
    store = made(tmp_path / "x")
    skipped = {
        "b.jpg": Skipped("b.jpg", "cut short\nhere", "broken", 5, 7),
        "a.txt": Skipped("a.txt", "no", "link"),
    }
    with writing(store) as writer:
        writer.commit([], skipped=skipped)
    assert Store.open(tmp_path / "x").skipped() == skipped
    assert list(Store.open(tmp_path / "x").skipped()) == ["a.txt", "b.jpg"]


def test_the_photo_folder_is_stored_relative_to_the_index(tmp_path: Path) -> None:
    store = made(tmp_path / "indexes" / "x")
    with writing(store) as writer:
        writer.set_root(tmp_path / "photos")
    assert store.manifest.root == "../../photos"


def hold_the_lock(directory: Path, held: "multiprocessing.synchronize.Event") -> None:
    with writing(Store.open(directory)):
        held.set()
        time.sleep(60)


def test_a_second_writer_is_refused_with_the_process_of_the_first(tmp_path: Path) -> None:
    store = made(tmp_path / "x", [photo("a.jpg")])
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold_the_lock, args=(tmp_path / "x", held))
    process.start()
    try:
        assert held.wait(60)
        with pytest.raises(IndexLocked, match=f"process {process.pid} on "), writing(store):
            pass
        assert Store.open(tmp_path / "x").paths() == ["a.jpg"]
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with writing(store) as writer:
            writer.commit([photo("b.jpg", 1)])
    finally:
        process.kill()
        process.join()
    assert Store.open(tmp_path / "x").paths() == ["a.jpg", "b.jpg"]


def test_an_existing_index_or_folder_is_not_overwritten(tmp_path: Path) -> None:
    made(tmp_path / "x")
    with pytest.raises(IndexExists, match=r"x is already an index\. Choose another folder for the index\.$"):
        Store.create(tmp_path / "x", FAKE_SPEC)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("John")
    with pytest.raises(IndexExists, match="is not empty and not an index"):
        Store.create(tmp_path / "letters", FAKE_SPEC)


def test_a_missing_index_is_an_error_that_says_how_to_create_one(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing, match=r"Create one: ImageIndex\.for_photos"):
        Store.open(tmp_path / "nowhere")


def change(manifest: Path, **values: object) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **values}))


def rewrite_part(manifest: Path) -> None:
    part = manifest.parent / "embeddings" / "part-000001.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 0xFF
    part.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda m: change(m, format=99),
            IndexFormatError,
            f"format 99, but this version of vggsearch reads formats 1 to {FORMAT}. Upgrade",
        ),
        (lambda m: m.write_text("{"), IndexDamaged, "manifest.json is damaged"),
        (lambda m: m.write_text("[]"), IndexDamaged, "format is None"),
        (lambda m: change(m, parts=[{"name": "x"}]), IndexDamaged, "is damaged"),
        (lambda m: change(m, embedding={"model": "vgg99"}), IndexDamaged, "is damaged"),
        (rewrite_part, IndexDamaged, "part-000001.parquet is damaged"),
        (lambda m: (m.parent / "embeddings/part-000001.parquet").unlink(), IndexDamaged, "is missing"),
        (
            lambda m: (m.parent / "embeddings/part-000001.parquet").write_bytes(b""),
            IndexDamaged,
            "has 0 bytes, but the manifest says",
        ),
    ],
)
def test_damage_is_named(
    tmp_path: Path, damage: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    made(tmp_path / "x", [photo(f"{seed}.jpg", seed) for seed in range(4)])
    damage(tmp_path / "x" / "manifest.json")
    with pytest.raises(error, match=message):
        all_embeddings(Store.open(tmp_path / "x"))


def test_a_file_name_cannot_point_outside_the_index(tmp_path: Path) -> None:
    made(tmp_path / "x", [photo("a.jpg")])
    values = json.loads((tmp_path / "x" / "manifest.json").read_text())
    values["parts"][0]["name"] = "../../secret.parquet"
    change(tmp_path / "x" / "manifest.json", **{**values, "sha256": checksum(values)})
    with pytest.raises(IndexDamaged, match="points outside the index"):
        Store.open(tmp_path / "x")


names = st.sampled_from(["a", "b", "c", "d", "é/ü ñ.jpg", "new\nline"])
steps = st.lists(st.tuples(st.lists(names, unique=True, max_size=4), st.sets(names, max_size=3)), max_size=5)


@settings(max_examples=examples(40))
@given(steps=steps)
def test_any_sequence_of_commits_behaves_like_a_dictionary(
    steps: list[tuple[list[str], set[str]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "x", FAKE_SPEC)
        model: dict[str, Embedded] = {}
        for number, (added, gone) in enumerate(steps):
            new = [replace(photo(name, number * 10 + at), sha256=f"{number:064x}") for at, name in enumerate(added)]
            with writing(store) as writer:
                writer.commit(new, removed=gone - set(added))
            for name in gone - set(added):
                model.pop(name, None)
            for one in new:
                model.pop(one.file.path, None)
                model[one.file.path] = one
        reopened = Store.open(Path(folder) / "x")
        assert sorted(reopened.paths()) == sorted(model)
        assert files_in(reopened) == {path: one.file for path, one in model.items()}
        for path, vector in zip(reopened.paths(), all_embeddings(reopened), strict=True):
            np.testing.assert_array_equal(vector, model[path].embedding.astype(np.float16))


def test_no_thread_of_arrow_reads_from_memory_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would free it after the interpreter has ended, which aborted one command in twelve on a busy machine."""
    path = tmp_path / "skipped.parquet"
    write_skipped(path, [Skipped("a.txt", "text", "not a picture")])
    threads: list[bool] = []
    read = pq.ParquetFile.read

    def recorded(file: pq.ParquetFile, columns: list[str], use_threads: bool = True) -> pa.Table:
        threads.append(use_threads)
        return read(file, columns, use_threads=use_threads)

    monkeypatch.setattr(pq.ParquetFile, "read", recorded)
    assert [skipped.path for skipped in read_skipped(path, path.read_bytes())] == ["a.txt"]
    assert threads == [False]


def test_keys_and_hashes_of_all_live_photos_are_arrays(tmp_path: Path) -> None:
    photos = [photo(f"{seed}.jpg", seed) for seed in range(5)]
    store = made(tmp_path / "x", photos[:3], photos[3:])
    with writing(store) as writer:
        writer.commit([], ["1.jpg"])
    assert store.keys().tolist() == [f"{seed:064x}".encode() for seed in (0, 2, 3, 4)]
    assert store.perceptual_hashes()[:, 0].tolist() == [0, 2, 3, 4]
    empty = made(tmp_path / "y")
    assert (empty.keys().shape, empty.perceptual_hashes().shape) == ((0,), (0, BYTES))
