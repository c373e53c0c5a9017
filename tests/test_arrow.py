"""Conversions between Arrow, NumPy and Python by their buffers: they give what Arrow's own give."""

import numpy as np
import pyarrow as pa
import pytest

from vggsearch.store import arrow

COLUMNS = {
    "whole numbers": pa.chunked_array([pa.array([1, 2, 3]), pa.array([4, 5])]),
    "sizes": pa.chunked_array([pa.array([7, 8, 9], pa.int32())]),
    "fractions": pa.chunked_array([pa.array([0.5, 1.5, 2.5])]),
    "booleans": pa.chunked_array([pa.array([True, False, True] * 5), pa.array([False, True])]),
    "nothing": pa.chunked_array([], pa.int64()),
    "an empty chunk": pa.chunked_array([pa.array([], pa.bool_())]),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("start", [0, 1, 3])
def test_numbers_are_those_of_arrow(name: str, start: int) -> None:
    column = COLUMNS[name].slice(start)
    found = arrow.numbers(column)
    assert found.tolist() == column.to_pylist()
    assert found.dtype == column.type.to_pandas_dtype()


def test_positions_take_rows() -> None:
    table = pa.table({"a": [10, 11, 12, 13]})
    assert table.take(arrow.positions(np.array([3, 1]))).to_pydict() == {"a": [13, 11]}
    assert not len(table.take(arrow.positions(np.empty(0, np.int64))))
    assert table.take(arrow.positions(np.arange(4)[::-2])).to_pydict() == {"a": [13, 11]}


@pytest.mark.parametrize("values", [[], ["a.jpg"], ["", "ä/ö.jpg", "b", ""]])
@pytest.mark.parametrize("largest", [arrow.LARGEST_TEXT, 0])
def test_texts_are_those_of_arrow(values: list[str], largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "LARGEST_TEXT", largest)
    assert arrow.texts(values).equals(pa.array(values, pa.string()))
