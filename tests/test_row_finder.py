import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vggsearch.store import row_finder
from vggsearch.store.row_finder import RowFinder

paths = st.lists(st.text("ab/é", max_size=4), unique=True, max_size=12)


def few_hashes(texts: list[str]) -> NDArray[np.int64]:
    return np.array([len(text) % 2 for text in texts], np.int64)


def chunked(texts: list[str]) -> pa.ChunkedArray:
    """Return texts as the paths of several parts."""
    return pa.chunked_array([texts[:2], texts[2:3], texts[3:]], pa.string())


@pytest.mark.parametrize("has_collisions", [False, True])
@given(known=paths, asked=st.lists(paths, max_size=3))
def test_every_path_is_found_in_its_own_row(known: list[str], asked: list[list[str]], has_collisions: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if has_collisions:
            patch.setattr(row_finder, "hashes_of", few_hashes)
        finder = RowFinder(chunked(known))
        for some in [known[:3], known[3:], *asked, known]:
            expected = [known.index(path) if path in known else -1 for path in some]
            assert finder.find(pa.array(some, pa.string())).tolist() == expected


def test_paths_in_row_order_are_found_without_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_finder, "hashes_of", lambda _: pytest.fail("hashed"))
    finder = RowFinder(chunked(["a", "b", "c", "d"]))
    for _ in range(2):
        assert finder.find(pa.array(["a", "b", "c"])).tolist() == [0, 1, 2]
        assert finder.find(pa.array(["d"])).tolist() == [3]
