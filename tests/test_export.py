"""`vggsearch export`: one flat Parquet file, which other programs read as it is."""

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from vggsearch.cli import cli
from vggsearch.errors import IndexNotWritable, OptionError, Stopped
from vggsearch.image_index import ImageIndex, searcher_of
from vggsearch.published import export as module


def read(file: Path) -> tuple[list[int], list[str], NDArray[np.float32]]:
    table = pq.read_table(file)
    assert table.schema.field("embedding").type == pa.list_(pa.field("element", pa.float32(), nullable=False))
    vectors = np.stack(table.column("embedding").to_numpy())
    return table.column("id").to_pylist(), table.column("path").to_pylist(), vectors


def test_the_vectors_are_those_that_queries_compare_and_raw_ones_are_the_embeddings(
    index: ImageIndex, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "summer" / "1.jpg").unlink()  # a dead row
    (photos / "summer" / "2.jpg").rename(photos / 'it\'s; DROP "2" é.jpg')  # and a second part
    index.update()
    monkeypatch.setattr(module, "GROUP_ROWS", 2)
    searcher = searcher_of(index)
    for raw, expected in ((False, searcher.index.unit_vectors(slice(None))), (True, index.embeddings())):
        assert index.export(tmp_path / "vectors.parquet", raw=raw) == expected.shape[1]
        ids, paths, vectors = read(tmp_path / "vectors.parquet")
        assert (ids, paths) == (list(range(5)), index.paths())
        assert np.array_equal(vectors, expected)
    assert pq.ParquetFile(tmp_path / "vectors.parquet").num_row_groups > 2
    assert [path.name for path in tmp_path.glob("vectors*")] == ["vectors.parquet"]


def test_an_index_without_photos_is_exported_too(tmp_path: Path) -> None:
    with ImageIndex.create(tmp_path / "empty") as empty:
        assert empty.export(tmp_path / "empty.parquet") == empty.spec.dim
    assert pq.read_table(tmp_path / "empty.parquet").num_rows == 0


def test_duckdb_polars_and_pandas_read_it(index: ImageIndex, tmp_path: Path) -> None:
    file = tmp_path / "vectors.parquet"
    index.export(file)
    _, paths, vectors = read(file)
    with duckdb.connect() as database:
        database.from_parquet(str(file)).create("photos")
        rows = database.execute(
            "SELECT b.path, list_dot_product(a.embedding, b.embedding) FROM photos a, photos b "
            "WHERE a.id = 0 ORDER BY b.id"
        ).fetchall()
    assert [path for path, _ in rows] == paths
    assert np.allclose([similarity for _, similarity in rows], vectors @ vectors[0], atol=1e-6)
    frame = pl.read_parquet(file)
    assert frame.schema["embedding"] == pl.List(pl.Float32)
    assert np.array_equal(np.stack(frame["embedding"].to_list()).astype(np.float32), vectors)
    assert pq.read_table(file).to_pandas()["path"].tolist() == paths


def test_only_an_export_is_replaced_and_a_failed_one_leaves_the_earlier_file(
    index: ImageIndex, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"mine": [1]}), tmp_path / "mine.parquet")
    (tmp_path / "notes.txt").write_text("mine")
    for name in ("mine.parquet", "notes.txt", "photos"):
        with pytest.raises(OptionError, match="Choose another file name"):
            index.export(tmp_path / name)
    with pytest.raises(IndexNotWritable, match="cannot be written"):
        index.export(tmp_path / "missing" / "vectors.parquet")
    file = tmp_path / "vectors.parquet"
    index.export(file)
    before = file.read_bytes()
    with pytest.raises(Stopped):
        index.export(file, raw=True, stop=lambda: True)
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_it_is_written_into_a_folder_behind_a_link(index: ImageIndex, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    index.export(tmp_path / "link" / "vectors.parquet")
    assert read(tmp_path / "photos" / "vectors.parquet")[1] == index.paths()


def test_the_command_says_what_it_wrote(index: ImageIndex, tmp_path: Path) -> None:
    arguments = ["export", "--index", str(index.directory), "-o", str(tmp_path / "vectors.parquet")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "vectors.parquet: 6 photos, vectors of 1,024 dimensions" in done.output
    assert read(tmp_path / "vectors.parquet")[1] == index.paths()
