from pathlib import Path

import pytest

from vggsearch.errors import TruthError
from vggsearch.measures.ground_truth import read_truth


def truth(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "truth.tsv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_labels_come_by_path_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "path\tlabel\nb/2.jpg\tdög\nä 1.jpg\tdög\nc.jpg\t7\n"
    found = read_truth(truth(tmp_path, text))
    assert list(found.items()) == [("b/2.jpg", "dög"), ("ä 1.jpg", "dög"), ("c.jpg", "7")]


def test_what_spreadsheets_make_of_it_is_read_too(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfpath\tlabel\r\na.jpg\t1\r\n\r\n./b.jpg\t1\r\n"
    assert read_truth(truth(tmp_path, text)) == {"a.jpg": "1", "b.jpg": "1"}


def test_a_name_may_hold_what_python_takes_for_the_end_of_a_line(tmp_path: Path) -> None:
    found = read_truth(truth(tmp_path, "path\tlabel\na\u2028\x0b.jpg\t1\nb.jpg\t1\n"))
    assert list(found) == ["a\u2028\x0b.jpg", "b.jpg"]


def test_a_line_may_come_twice_with_the_same_label(tmp_path: Path) -> None:
    assert len(read_truth(truth(tmp_path, "path\tlabel\na\t1\nb\t1\na\t1\n"))) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"truth.tsv, line 1: expected the header `path<TAB>label`, found ''"),
        ("a.jpg\t1\nb.jpg\t1\n", r"line 1: expected the header .* found 'a.jpg\\t1'"),
        (
            "path\tlabel\na.jpg\t1\nb.jpg 1\n",
            r"truth.tsv, line 3: expected a path, one tab and a label, found 'b.jpg 1'",
        ),
        ("path\tlabel\na.jpg\t1\tx\n", r"line 2: expected a path, one tab and a label"),
        ("path\tlabel\n\t1\n", r"line 2: expected a path, one tab and a label"),
        ("path\tlabel\na.jpg\t\n", r"line 2: expected a path, one tab and a label"),
        ("path\tlabel\n/a/b.jpg\t1\n", r"line 2: /a/b.jpg is not relative to the photo folder"),
        ("path\tlabel\n../b.jpg\t1\n", r"line 2: ../b.jpg is not relative to the photo folder"),
        ("path\tlabel\na\t1\nb\t1\n\na\t2\n", r"line 5: a is labelled 2, but 1 in line 2. Delete one"),
        ("path\tlabel\na\t1\nb\t2\n", r"truth.tsv lists 2 photos, but no two with the same label"),
        ("path\tlabel\n", r"truth.tsv lists 0 photos, but no two"),
        (b"path\tlabel\na\t1\n" + b"\xff\t1\n", r"truth.tsv, line 3: not UTF-8"),
    ],
)
def test_anything_else_is_one_line_with_the_place_and_a_way_out(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(TruthError, match=message) as error:
        read_truth(truth(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TruthError, match=r"none.tsv cannot be read: No such file"):
        read_truth(tmp_path / "none.tsv")


@pytest.mark.parametrize(("folder", "labels"), [("ukbench", 125), ("caltech", 20)])
def test_the_labels_of_the_measuring_photos_are_read(shared_data: Path, folder: str, labels: int) -> None:
    found = read_truth(shared_data / folder / "truth.tsv")
    assert len(found) == 500
    assert len(set(found.values())) == labels
    assert all((shared_data / folder / path).is_file() for path in found)
