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
@pytest.mark.parametrize("most_jumps", [0, 1, 16])
@given(known=paths, asked=st.lists(paths, max_size=3))
def test_every_path_is_found_in_its_own_row(
    known: list[str], asked: list[list[str]], has_collisions: bool, most_jumps: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_finder, "MOST_JUMPS", most_jumps)
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


def test_in_folders_in_another_order_only_the_first_path_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [f"{folder}/{number:02}" for folder in range(5) for number in range(50)]
    finder = RowFinder(chunked(known))
    finder.find(pa.array(["4/00"]))  # makes the hashes
    asked = [path for folder in (3, 0, 4, 2) for path in known[50 * folder :][:50]]
    hashed: list[str] = []

    def recorded(texts: list[str]) -> NDArray[np.int64]:
        hashed.extend(texts)
        return hashes_of(texts)

    hashes_of = row_finder.hashes_of
    monkeypatch.setattr(row_finder, "hashes_of", recorded)
    assert finder.find(pa.array(asked)).tolist() == [known.index(path) for path in asked]
    assert hashed == ["3/00", "0/00", "4/00", "2/00"]
