import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vggsearch.errors import PhotosError
from vggsearch.photos.walk import PhotoFile, Skipped, SkippedFiles, Stamp, walk

CLUTTER_FILES = (
    ".hidden.jpg",
    "._photo.jpg",
    ".DS_Store",
    "Thumbs.db",
    "THUMBS.DB",
    "ehthumbs.db",
    "desktop.ini",
    "Icon\r",
)
CLUTTER_FOLDERS = (
    "@eaDir",
    "#recycle",
    "#snapshot",
    "@Recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "__MACOSX",
    ".thumbnails",
    "Catalog Previews.lrdata",
    "Catalog Previews.LRDATA",
    "lost+found",
)


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def put_or_skip(root: Path, name: bytes) -> Path:
    path = root / os.fsdecode(name)
    try:
        path.write_bytes(b"x")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only UTF-8 names")
    return path


def found(root: Path, exclude: Path | None = None) -> list[str]:
    return [item.path for item in walk(root, exclude)]


def only_skipped(root: Path) -> Skipped:
    (item,) = (item for item in walk(root) if isinstance(item, Skipped))
    return item


def failing_scandir(folder: Path) -> Callable[[Path], "os._ScandirIterator[str]"]:
    real = os.scandir

    def scandir(path: Path) -> "os._ScandirIterator[str]":
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    return scandir


def test_walk_enters_every_folder_and_yields_paths_relative_to_the_root(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "2024/b.jpg", "2024/01 January/c d.jpg")
    assert sorted(found(tmp_path)) == ["2024/01 January/c d.jpg", "2024/b.jpg", "a.jpg"]


def test_files_of_a_folder_and_folders_come_in_name_order(tmp_path: Path) -> None:
    put(tmp_path, "z/1.jpg", "m/9.jpg", "m/10.jpg", "m/1.jpg", "a/b/1.jpg", "a/2.jpg", "a b/1.jpg")
    paths = found(tmp_path)
    assert [path for path in paths if path.startswith("m/")] == ["m/1.jpg", "m/10.jpg", "m/9.jpg"]
    assert list(dict.fromkeys(path.split("/")[0] for path in paths)) == ["a", "a b", "m", "z"]


def test_two_walks_of_one_folder_yield_the_same(tmp_path: Path) -> None:
    put(tmp_path, *(f"{number * 7 % 10}/{number * 3 % 10}.jpg" for number in range(10)))
    assert list(walk(tmp_path)) == list(walk(tmp_path))


@pytest.mark.parametrize("name", ["a.JPG", "a.Jpeg", "a.HEIC", "a", "no extension", "a.txt", "a.jpg.bak"])
def test_every_file_is_listed_whatever_its_extension(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    assert found(tmp_path) == [name]


@pytest.mark.parametrize("name", CLUTTER_FILES)
def test_clutter_files_are_not_listed(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, "photo.jpg")
    assert found(tmp_path) == ["photo.jpg"]


@pytest.mark.parametrize("name", CLUTTER_FOLDERS)
def test_clutter_folders_are_not_entered(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"{name}/small copy.jpg", f"sub/{name}/small copy.jpg", "photo.jpg")
    assert found(tmp_path) == ["photo.jpg"]


@pytest.mark.parametrize("name", ["#1 beach.jpg", "@home.jpg", "Thumbs.jpg", "$5.jpg", "lost and found.jpg"])
def test_a_name_that_only_resembles_clutter_is_listed(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    assert found(tmp_path) == [name]


def test_the_root_itself_may_be_named_like_clutter(tmp_path: Path) -> None:
    put(tmp_path, ".private/a.jpg")
    assert found(tmp_path / ".private") == ["a.jpg"]


def test_the_excluded_folder_is_left_out_but_not_its_namesake_elsewhere(tmp_path: Path) -> None:
    put(tmp_path, "index/part.parquet", "2024/index/photo.jpg")
    assert found(tmp_path, exclude=tmp_path / "index") == ["2024/index/photo.jpg"]


def test_the_excluded_folder_is_known_under_any_spelling(tmp_path: Path) -> None:
    put(tmp_path, "photos/index/part.parquet", "photos/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert found(tmp_path / "photos", exclude=tmp_path / "link" / "index") == ["a.jpg"]


def test_excluding_a_folder_elsewhere_changes_nothing(tmp_path: Path) -> None:
    put(tmp_path, "photos/a.jpg", "index/part.parquet")
    assert found(tmp_path / "photos", exclude=tmp_path / "index") == ["a.jpg"]


def test_size_and_modification_time_are_those_of_the_file(tmp_path: Path) -> None:
    photo = tmp_path / "sub" / "a.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"12345")
    os.utime(photo, ns=(0, 1_600_000_000_123_456_700))
    assert list(walk(tmp_path)) == [PhotoFile("sub/a.jpg", 5, photo.stat().st_mtime_ns, Stamp.of(photo.stat()))]
    assert photo.stat().st_mtime_ns // 1_000_000_000 == 1_600_000_000


def test_a_link_to_a_file_is_reported_and_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    photo, link = walk(tmp_path)
    assert photo.path == "a.jpg"
    assert isinstance(link, Skipped)
    assert (link.path, link.kind) == ("b.jpg", "link")


def test_a_dangling_link_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    assert only_skipped(tmp_path).kind == "link"


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    put(tmp_path, "sub/a.jpg")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert found(tmp_path) == ["sub/a.jpg", "sub/up"]
    assert only_skipped(tmp_path).kind == "link"


def test_a_root_that_is_a_link_is_followed(tmp_path: Path) -> None:
    put(tmp_path, "photos/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert found(tmp_path / "link") == ["a.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on this system")
def test_a_pipe_is_a_special_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    skipped = only_skipped(tmp_path)
    assert (skipped.path, skipped.kind) == ("pipe.jpg", "special file")


def test_a_name_that_is_not_utf8_is_skipped_and_kept_exactly(tmp_path: Path) -> None:
    put_or_skip(tmp_path, b"caf\xe9.jpg")
    skipped = only_skipped(tmp_path)
    assert (os.fsencode(skipped.path), skipped.kind) == (b"caf\xe9.jpg", "bad name")
    assert SkippedFiles([skipped]).to_arrow()["path"].to_pylist() == [r"caf\xe9.jpg"]


def test_a_folder_whose_name_is_not_utf8_skips_the_files_inside(tmp_path: Path) -> None:
    put_or_skip(tmp_path, b"probe \xe9").unlink()
    folder = tmp_path / os.fsdecode(b"\xe9t\xe9")
    folder.mkdir()
    put(folder, "a.jpg")
    skipped = only_skipped(tmp_path)
    assert (os.fsencode(skipped.path), skipped.kind) == (b"\xe9t\xe9/a.jpg", "bad name")


@pytest.mark.parametrize("name", ["two\nlines.jpg", "tab\there.jpg", " spaces .jpg", "été 写真 📷.jpg"])
def test_unusual_names_are_preserved(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, f"{name} folder/{name}")
    assert [item.path for item in walk(tmp_path) if isinstance(item, PhotoFile)] == [name, f"{name} folder/{name}"]


def test_a_folder_that_cannot_be_read_affects_no_other_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a/1.jpg", "locked/2.jpg", "z/3.jpg")
    monkeypatch.setattr(os, "scandir", failing_scandir(tmp_path / "locked"))
    assert found(tmp_path) == ["a/1.jpg", "locked", "z/3.jpg"]
    assert only_skipped(tmp_path) == Skipped("locked", "Permission denied", "unreadable")


def test_a_root_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "scandir", failing_scandir(tmp_path))
    with pytest.raises(PhotosError, match="Permission denied") as raised:
        list(walk(tmp_path))
    assert str(tmp_path) in str(raised.value)


def after_first(items: Iterator[PhotoFile | Skipped], do: Callable[[], object]) -> list[PhotoFile | Skipped]:
    next(items)
    do()
    return list(items)


def test_a_file_that_vanishes_during_the_walk_is_unreadable(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    gone, last = after_first(walk(tmp_path), (tmp_path / "b.jpg").unlink)
    assert isinstance(gone, Skipped)
    assert (gone.path, gone.kind) == ("b.jpg", "unreadable")
    assert last.path == "c.jpg"


def test_a_folder_that_vanishes_during_the_walk_is_unreadable(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    (tmp_path / "sub").mkdir()
    (gone,) = after_first(walk(tmp_path), (tmp_path / "sub").rmdir)
    assert isinstance(gone, Skipped)
    assert (gone.path, gone.kind) == ("sub", "unreadable")


def test_a_missing_root_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(PhotosError) as raised:
        list(walk(tmp_path / "photos"))
    assert str(tmp_path / "photos") in str(raised.value)


def test_a_root_that_is_a_file_is_named_in_the_error(tmp_path: Path) -> None:
    put(tmp_path, "photos")
    with pytest.raises(PhotosError) as raised:
        list(walk(tmp_path / "photos"))
    assert str(tmp_path / "photos") in str(raised.value)


def test_an_empty_folder_has_no_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert found(tmp_path) == []
