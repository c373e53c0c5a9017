"""The file of pairs: reading returns what was written, nothing, or an error."""

from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest

from vggsearch.errors import IndexDamaged
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.edges import Edges, edges_from_pairs, edges_from_pieces
from vggsearch.knn.vectors import unit_rows
from vggsearch.store.contents import EDGES
from vggsearch.store.edges import EdgeFacts, StoredEdges, read_edges, vectors_id, write_edges
from vggsearch.store.files import FileHash
from vggsearch.store.manifest import StoredVectorIndex, VectorIndexInfo


def stored(rows: int = 300, floor: float = 0.1) -> StoredEdges:
    vectors = unit_rows(np.random.default_rng(0).standard_normal((rows, 16))).astype(np.float16)
    edges = all_pairs(vectors, 4, floor)
    assert edges is not None
    facts = EdgeFacts("abc", edges.rows, edges.count, edges.floor)
    return StoredEdges(facts, edges.first, edges.second, edges.similarity)


def assert_same(found: StoredEdges | None, written: StoredEdges) -> None:
    assert found is not None
    assert found.facts == written.facts
    for name in ("first", "second", "similarity"):
        column, wanted = getattr(found, name), getattr(written, name)
        assert column.dtype == wanted.dtype
        np.testing.assert_array_equal(column, wanted)


@pytest.mark.parametrize("rows", [300, 1])
def test_pairs_are_read_as_they_were_written(tmp_path: Path, rows: int) -> None:
    written = stored(rows)
    write_edges(tmp_path, written)
    assert_same(read_edges(tmp_path, "abc"), written)
    assert [path.name for path in tmp_path.iterdir()] == [EDGES]


def test_edges_of_all_pairs_have_no_count(tmp_path: Path) -> None:
    written = replace(stored(), facts=EdgeFacts("abc", 300, None, 0.1))
    write_edges(tmp_path, written)
    assert_same(read_edges(tmp_path, "abc"), written)


def test_pairs_of_other_vectors_are_ignored_and_a_missing_file_is_no_error(tmp_path: Path) -> None:
    assert read_edges(tmp_path, "abc") is None
    write_edges(tmp_path, stored())
    assert read_edges(tmp_path, "abd") is None


def test_newer_pairs_replace_older_ones(tmp_path: Path) -> None:
    write_edges(tmp_path, stored())
    newer = replace(stored(floor=0.5), facts=EdgeFacts("xyz", 300, 4, 0.5))
    write_edges(tmp_path, newer)
    assert_same(read_edges(tmp_path, "xyz"), newer)


def test_the_file_opens_elsewhere(tmp_path: Path) -> None:
    written = stored()
    write_edges(tmp_path, written)
    rows = duckdb.read_parquet(str(tmp_path / EDGES)).fetchall()
    columns = (written.first.tolist(), written.second.tolist(), written.similarity.tolist())
    assert rows == list(zip(*columns, strict=True))


def test_every_flipped_byte_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    written = stored(60)
    write_edges(tmp_path, written)
    whole = bytearray((tmp_path / EDGES).read_bytes())
    refused = 0
    for place in range(0, len(whole), 3):
        damaged = whole.copy()
        damaged[place] ^= 0xFF
        (tmp_path / EDGES).write_bytes(damaged)
        try:
            assert_same(read_edges(tmp_path, "abc"), written)
        except IndexDamaged:
            refused += 1
    assert refused > len(whole) // 12


@pytest.mark.parametrize("left", [0, 10, 0.5])
def test_a_truncated_file_is_an_error(tmp_path: Path, left: float) -> None:
    write_edges(tmp_path, stored())
    data = (tmp_path / EDGES).read_bytes()
    (tmp_path / EDGES).write_bytes(data[: int(left * len(data)) if left == 0.5 else int(left)])
    with pytest.raises(IndexDamaged, match=r"edges\.parquet is damaged .* the pairs are then searched again"):
        read_edges(tmp_path, "abc")


def test_edges_are_tied_to_the_file_of_vectors_alone() -> None:
    files = (FileHash("index.faiss", 1, "aa"), FileHash("vectors.npy", 2, "bb"))
    facts = VectorIndexInfo(
        recipe="flat",
        factory="Flat",
        lists=0,
        trained_rows=9,
        effort=0,
        candidates=1,
        recall=1.0,
        milliseconds=1.0,
        whitening=None,
    )
    side = StoredVectorIndex(**vars(facts), fingerprint="one", name="000001", files=files, made_from=())
    rebuilt = replace(side, recipe="ivf", fingerprint="two", files=(FileHash("index.faiss", 3, "cc"), files[1]))
    assert vectors_id(rebuilt) == vectors_id(side)
    assert vectors_id(replace(side, files=(files[0], FileHash("vectors.npy", 2, "dd")))) != vectors_id(side)


def listed(edges: Edges) -> dict[tuple[int, int], float]:
    assert [edges.first.dtype, edges.second.dtype, edges.similarity.dtype] == [np.int32, np.int32, np.float32]
    pairs = list(zip(edges.first.tolist(), edges.second.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    return dict(zip(pairs, edges.similarity.tolist(), strict=True))


@pytest.mark.parametrize("at_once", [1, 7, 100, 10**6])
def test_pairs_in_pieces_are_each_listed_once(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("vggsearch.knn.edges.AT_ONCE", at_once)
    random = np.random.default_rng(1)
    pieces = [(random.integers(0, 20, size), random.integers(20, 40, size)) for size in (0, 50, 120)]
    both_ways = [pair if number % 2 else pair[::-1] for number, pair in enumerate(pieces)]
    edges = edges_from_pieces(40, 5, 0.1, [(*pair, (pair[0] * pair[1]).astype(np.float32)) for pair in both_ways])
    wanted = {pair for ones, others in pieces for pair in zip(ones.tolist(), others.tolist(), strict=True)}
    assert listed(edges) == {(one, other): one * other for one, other in wanted}


def test_a_union_has_the_pairs_of_both_with_the_larger_similarity() -> None:
    random = np.random.default_rng(2)

    def some(size: int) -> Edges:
        rows, values = random.integers(0, 30, (2, size)), random.random(size, np.float32)
        return edges_from_pairs(30, 5, 0.0, rows[0], rows[1], values)

    ones, others = some(60), some(40)
    united, own, new = listed(ones.union(others)), listed(ones), listed(others)
    assert own.keys() & new.keys()
    assert united == {pair: max(own.get(pair, 0), new.get(pair, 0)) for pair in own.keys() | new.keys()}
    assert listed(ones.union(some(0))) == listed(some(0).union(ones)) == own
