"""Paths of an index: looked up, and compared with folders, without a Python string for each."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from vggsearch.store.paths import Paths

names = st.text("ab_%.é ", min_size=1, max_size=3)
some_paths = st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), unique=True, max_size=12)


def in_parts(paths: list[str]) -> Paths:
    return Paths([pa.chunked_array([paths[:3]], pa.string()), pa.chunked_array([paths[3:]], pa.string())])


@given(paths=some_paths, wanted=some_paths)
def test_the_rows_of_many_paths_are_found(paths: list[str], wanted: list[str]) -> None:
    rows = {path: row for row, path in enumerate(paths) if path in wanted}
    assert in_parts(paths).rows_among([*wanted, "caf\udce9.jpg"]) == rows


@given(paths=some_paths, folder=st.one_of(st.just(""), names, st.tuples(names, names).map("/".join)))
def test_a_path_is_directly_in_one_folder(paths: list[str], folder: str) -> None:
    expected = [path.rpartition("/")[0] == folder for path in paths]
    assert in_parts(paths).are_directly_in(folder).tolist() == expected


@given(paths=some_paths)
def test_paths_are_one_text(paths: list[str]) -> None:
    assert in_parts(paths).joined_by("\0") == "\0".join(paths)
