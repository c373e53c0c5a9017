"""Values between Arrow, NumPy and Python, by their buffers.

Arrow's own conversions import pandas where that is installed, which takes a fifth of the time of a query.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LARGEST_TEXT = 2**31 - 1  # bytes of all values of a string array together


def numbers(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    """Return a column of numbers or booleans, none of them null, as an array (n,)."""
    if pa.types.is_boolean(column.type):
        return numbers(column.cast(pa.uint8())).view(bool)
    kind = np.dtype(column.type.to_pandas_dtype())
    if not len(column):
        return np.empty(0, kind)
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.frombuffer(whole.buffers()[1], kind, len(whole), whole.offset * kind.itemsize)


def positions(rows: NDArray[np.int64]) -> pa.Int64Array:
    """Return positions to take from a table, int64 (n,), as an Arrow array."""
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows, np.int64))])


def texts(values: Sequence[str]) -> pa.Array:
    """Return strings, which have to be valid UTF-8, as an Arrow array."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    if ends[-1] > LARGEST_TEXT:
        return pa.array(values, pa.string())
    return pa.StringArray.from_buffers(
        len(encoded), pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(encoded))
    )
