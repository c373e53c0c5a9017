"""Results as Arrow and pandas tables."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.duplicates import group, member, photo
from vggsearch import ImageIndex, Match, QueryResult, Skipped
from vggsearch.duplicates.results import Groups, Pair, Pairs
from vggsearch.errors import InstallationError
from vggsearch.evaluation.evaluate import evaluate, evaluate_copies
from vggsearch.matching.alignment import Alignment
from vggsearch.photos.walk import SkippedFiles
from vggsearch.tables import arrow_table

AT = Alignment(0.8, 20, False, 90.0, 0.5, ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)))


def test_a_query_result_is_one_row_per_match() -> None:
    result = QueryResult("q.jpg", (Match("a.jpg", 0.9, AT), Match("b.jpg", 0.5)))
    assert result.to_arrow().to_pylist() == [
        {"query": "q.jpg", "rank": 1, "path": "a.jpg", "similarity": 0.9, "confidence": None, "index": None}
        | {"score": 0.8, "inliers": 20, "mirrored": False, "turned": 90.0, "scale": 0.5},
        {"query": "q.jpg", "rank": 2, "path": "b.jpg", "similarity": 0.5, "confidence": None, "index": None}
        | dict.fromkeys(("score", "inliers", "mirrored", "turned", "scale")),
    ]


def test_an_empty_result_has_the_same_columns_and_types() -> None:
    empty, full = QueryResult("q.jpg", ()).to_arrow(), QueryResult("q.jpg", (Match("a.jpg", 0.9, AT),)).to_arrow()
    assert empty.num_rows == 0
    assert empty.schema == full.schema
    some = Groups([group(1, photo("a.jpg"), member("b.jpg", "near", 0.9, 0.99))])
    assert Groups().to_arrow().schema == some.to_arrow().schema
    assert Pairs().to_arrow().num_rows == SkippedFiles().to_arrow().num_rows == 0


def test_many_results_are_one_table_with_a_reason_for_each_that_failed(index: ImageIndex, photos: Path) -> None:
    (photos.parent / "bad.jpg").write_bytes(b"no image")
    queries = [photos / "summer" / "0.jpg", photos.parent / "bad.jpg", photos / "summer" / "1.jpg"]
    table = index.query_many(queries, 2, rerank=False).to_arrow().to_pandas()
    assert list(table["query"]) == [str(queries[0])] * 2 + [str(queries[1])] + [str(queries[2])] * 2
    assert list(table["path"].isna()) == [False, False, True, False, False]
    assert [table["path"][row] for row in (0, 3)] == ["summer/0.jpg", "summer/1.jpg"]
    assert list(table["reason"].notna()) == [False, False, True, False, False]
    rest = index.query_many(queries, 1, rerank=False)
    assert isinstance(next(rest), QueryResult)
    assert rest.to_arrow().num_rows == 2


def test_groups_are_one_row_per_photo_and_pairs_one_row_per_pair() -> None:
    kept, copy = photo("a.jpg"), photo("b.jpg")
    groups = Groups([group(1, kept, member("b.jpg", "near", 0.9, 0.99, left_alone="protected"))])
    first, second = groups.to_arrow().to_pylist()
    assert (first["group"], first["role"], first["path"], first["taken"]) == (1, "keep", "a.jpg", kept.taken)
    assert first["similarity"] is first["kind"] is first["left_alone"] is None
    assert (second["role"], second["left_alone"], second["sha256"]) == ("duplicate", "protected", copy.sha256)
    pair = Pair(kept, copy, "near", 0.9, 0.99, None)
    assert Pairs([pair]).to_arrow().to_pylist() == [
        {"a": "a.jpg", "b": "b.jpg", "similarity": 0.9, "confidence": 0.99, "kind": "near"}
    ]


def test_skipped_files_keep_their_reasons() -> None:
    table = SkippedFiles([Skipped("x.jpg", "empty", "broken", 7, 8)]).to_arrow()
    assert table.to_pylist() == [{"path": "x.jpg", "kind": "broken", "reason": "empty", "bytes": 7, "mtime_ns": 8}]


def test_an_index_is_one_row_per_photo_with_its_embedding(index: ImageIndex, photos: Path) -> None:
    (photos / "summer" / "0.jpg").unlink()
    index.update()
    table = index.to_arrow()
    assert table.column("path").to_pylist() == index.paths()
    assert table.num_rows == 5
    kind = table.schema.field("embedding").type
    assert (pa.types.is_fixed_size_list(kind), kind.list_size) == (True, index.spec.dim)
    embeddings = np.stack(index.to_pandas()["embedding"].to_list())
    np.testing.assert_allclose(embeddings, index.embeddings(), atol=2e-3)


def test_an_index_without_photos_is_an_empty_table(tmp_path: Path) -> None:
    with ImageIndex.create(tmp_path / "x") as empty:
        assert empty.to_arrow().num_rows == 0
        assert "embedding" in empty.to_arrow().column_names


def test_evaluations_are_one_row_and_copies_one_per_edit(index: ImageIndex, photos: Path) -> None:
    labels = {path: path.split("/")[0] for path in index.paths()}
    report = evaluate(index, labels, rerank=False)
    (row,) = report.to_arrow().to_pylist()
    assert row["map"] == report.figures.map
    assert row["recall_at_5"] == report.figures.recall_at[5]
    assert (row["pair_ap_low"], row["pair_ap_high"]) == (
        report.figures.pair_ap_interval.low,
        report.figures.pair_ap_interval.high,
    )
    assert report.curve.to_arrow().column_names == ["threshold", "precision", "recall"]
    copies = evaluate_copies(index, edits=["half", "mirror"], sample=3, rerank=False)
    assert copies.to_arrow().column("edit").to_pylist() == ["half", "mirror", None]


def test_without_pandas_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InstallationError, match=r"pip install pandas"):
        SkippedFiles().to_pandas()


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        arrow_table({"a": "string"}, [("x", "y")])
