"""Memory-map the arrays of an index, .npy files, whatever they have become."""

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged
from vggsearch.system.reading import reading_from

HEADER_ERRORS = (  # raised by NumPy for damaged headers, which are Python literals
    ValueError,
    EOFError,
    SyntaxError,
    TokenError,
    TypeError,
    LookupError,
    OverflowError,
    RecursionError,
)


def map_array(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file, memory-mapped, read-only. Raises IndexDamaged or IndexNotReadable.

    np.load is not used, since it also opens ZIP archives and pickles.
    """
    try:
        with reading_from(path):
            array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except HEADER_ERRORS as error:
        raise IndexDamaged(path, f"cannot be opened ({error})") from error
    return array
