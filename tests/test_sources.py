import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes import FakeEngine, picture
from vggsearch.errors import ImageError, OptionError, PhotosError
from vggsearch.image_index import ImageIndex
from vggsearch.photos.addresses import address_of, escaped_name, is_address, name_problem, settled
from vggsearch.photos.sources import open_original, read_photo, source_of, walk_photos
from vggsearch.photos.tar_files import MOST_HEADER, Member, tar_members
from vggsearch.photos.walk import PhotoFile, Skipped, walk
from vggsearch.removal.plan import make_plan
from vggsearch.removal.request import Action, Removal


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed, (40, 30)).save(file, "JPEG")
    return file.getvalue()


def member(name: str, data: bytes = b"", **facts: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info, data


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(autouse=True)
def forget_sources() -> Iterator[None]:
    yield
    source_of.cache_clear()


@pytest.fixture
def tars(tmp_path: Path, photos: Path) -> Path:
    """The photos of the fixture `photos`, each of their folders in a tar file."""
    folder = tmp_path / "tars"
    for inside in ("summer", "winter"):
        files = sorted((photos / inside).iterdir())
        write_tar(folder / f"{inside}.tar", *(member(file.name, file.read_bytes()) for file in files))
    return folder


def update(tars: Path, directory: Path, *, allow_empty: bool = False) -> tuple[ImageIndex, FakeEngine]:
    engine, address = FakeEngine(), f"tar:{tars}"
    with ImageIndex.for_photos(address, directory, engine=engine) as index:
        index.update(address, allow_empty=allow_empty)
    return index, engine


def test_photos_in_tar_files_have_the_rows_and_embeddings_of_those_in_a_folder(
    tars: Path, photos: Path, index: ImageIndex, tmp_path: Path
) -> None:
    made, _ = update(tars, tmp_path / "packed")
    assert made.paths() == [path.replace("/", ".tar/") for path in index.paths()]
    assert np.array_equal(made.embeddings(), index.embeddings())
    for column in ("sha256", "width", "height", "format", "perceptual_hash", "bytes"):
        assert made.to_arrow().column(column) == index.to_arrow().column(column)


def test_a_member_of_a_tar_file_is_a_query(tars: Path, index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tars.parent)
    for address in (f"tar:{tars}/summer.tar/1.jpg", f"tar:{tars.name}/summer.tar/1.jpg"):
        match = index.query(address, count=1).matches[0]
        assert (match.path, match.similarity) == ("summer/1.jpg", 1.0)
    for gone, why in (
        ("summer.tar/none.jpg", "is no longer in summer.tar"),
        ("none.tar/1.jpg", "tar file is gone"),
    ):
        with pytest.raises(ImageError, match=f"{gone}: .*{why}"):
            index.query(f"tar:{tars}/{gone}")
    made, _ = update(tars, tars.parent / "made")
    with ImageIndex.open(made.directory, engine=FakeEngine()) as opened:
        apart = opened.query(f"tar:{tars.name}/summer.tar/1.jpg", exclude_same_folder=True).matches
        assert {match.path.partition("/")[0] for match in apart} == {"winter.tar"}


@pytest.mark.parametrize("inside", ["none", "empty"])
def test_an_address_without_files_leaves_no_index(tmp_path: Path, inside: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PhotosError, match=r"not a folder|holds no files"):
        update(tmp_path / inside, tmp_path / "indexes" / "made")
    assert not (tmp_path / "indexes").exists()


def test_the_index_knows_its_address_and_an_update_reads_nothing_again(tars: Path, tmp_path: Path) -> None:
    update(tars, tmp_path / "packed")
    with ImageIndex.open(tmp_path / "packed", engine=FakeEngine()) as index:
        report = index.update()
        assert (report.indexed, report.reused, report.unchanged) == (0, 0, 6)
        assert address_of(index.root or Path()) == f"tar:{tars.as_posix()}"


def test_an_unchanged_tar_file_is_listed_once(tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update(tars, tmp_path / "packed")
    source_of.cache_clear()
    listed: list[int] = []

    def members(file: BinaryIO, size: int) -> Iterator[Member]:
        listed.append(size)
        return tar_members(file, size)

    monkeypatch.setattr("vggsearch.photos.tar_files.tar_members", members)
    write_tar(tars / "winter.tar", member("5.jpg", jpeg(5)), member("new.jpg", jpeg(9)))
    found = [file.path for file in walk_photos(Path(f"tar:{tars}"))]
    assert found[4:] == ["winter.tar/5.jpg", "winter.tar/new.jpg"]
    assert listed == [(tars / "winter.tar").stat().st_size]


def test_a_changed_tar_file_is_read_again_and_equal_photos_keep_their_embedding(tars: Path, tmp_path: Path) -> None:
    update(tars, tmp_path / "packed")
    write_tar(tars / "winter.tar", member("x.jpg", jpeg(9)), member("5.jpg", (jpeg(8))))
    os.utime(tars / "summer.tar", ns=(10**18, 10**18))
    made, engine = update(tars, tmp_path / "packed")
    assert made.paths()[-2:] == ["winter.tar/x.jpg", "winter.tar/5.jpg"]
    assert (len(made), engine.pictures) == (6, 2)


def test_queries_and_duplicates_read_the_photos_in_tar_files(tars: Path, photos: Path, tmp_path: Path) -> None:
    write_tar(tars / "copies.tar", member("copy.jpg", (photos / "summer/1.jpg").read_bytes()))
    update(tars, tmp_path / "packed")
    with ImageIndex.open(tmp_path / "packed", engine=FakeEngine()) as index:
        matches = index.query(photos / "winter/5.jpg", count=3).matches
        assert matches[0].path == "winter.tar/5.jpg"
        assert any(match.alignment for match in matches)
        (group,) = index.duplicates().groups
        assert {photo.path for photo in (group.keeper, *(each.photo for each in group.members))} == {
            "copies.tar/copy.jpg",
            "summer.tar/1.jpg",
        }


@pytest.mark.parametrize("action", ["trash", "delete", "hardlink", "symlink"])
@pytest.mark.parametrize("root", ["s3://bucket/a", "tar:/data/tars"])
def test_what_is_not_a_file_is_neither_removed_nor_linked(root: str, action: str) -> None:
    with pytest.raises(PhotosError, match=rf"The photos are in {root}: .* Remove them there"):
        make_plan(Path(root), [Removal("a.jpg", "1" * 64, 10, "b.jpg", "1" * 64)], Action.parse(action))


def test_a_list_that_lost_most_photos_is_refused_unless_they_are_said_to_be_gone(
    tars: Path, tmp_path: Path
) -> None:
    update(tars, tmp_path / "packed")
    (tars / "summer.tar").unlink()  # four of six photos
    with pytest.raises(PhotosError, match="lists 4 of the 6 photos"):
        update(tars, tmp_path / "packed")
    with ImageIndex.open(tmp_path / "packed") as index:
        assert len(index) == 6
    made, _ = update(tars, tmp_path / "packed", allow_empty=True)
    assert made.paths() == ["winter.tar/4.jpg", "winter.tar/5.jpg"]


def test_a_renamed_tar_file_is_not_lost(tars: Path, tmp_path: Path) -> None:
    update(tars, tmp_path / "packed")
    (tars / "summer.tar").rename(tars / "season.tar")
    made, engine = update(tars, tmp_path / "packed")
    assert engine.pictures == 0
    assert len(made) == 6


def hostile(folder: Path) -> Path:
    return write_tar(
        folder / "hostile.tar",
        member("../../escaped.jpg", jpeg(1)),
        member("/absolute.jpg", jpeg(2)),
        member("a//b.jpg", jpeg(3)),
        member("link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard.jpg", type=tarfile.LNKTYPE, linkname="good.jpg"),
        member("device.jpg", type=tarfile.CHRTYPE),
        member("pipe.jpg", type=tarfile.FIFOTYPE),
        member("folder", type=tarfile.DIRTYPE),
        member("new\nline.jpg", jpeg(4)),
        member("._hidden.jpg", b"clutter"),
        member("good.json", b"{}"),
        member("./good.jpg", jpeg(5)),
        member("not a picture.jpg", b"text"),
    )


def test_hostile_members_cost_only_themselves_and_nothing_is_written(tmp_path: Path) -> None:
    hostile(tmp_path / "tars")
    before = sorted(tmp_path.rglob("*"))
    made, _ = update(tmp_path / "tars", tmp_path / "index")
    assert made.paths() == ["hostile.tar/new\nline.jpg", "hostile.tar/good.jpg"]
    assert {(skipped.path.removeprefix("hostile.tar/"), skipped.kind) for skipped in made.skipped()} == {
        ("..%2F..%2Fescaped.jpg", "bad name"),
        ("%2Fabsolute.jpg", "bad name"),
        ("a%2F%2Fb.jpg", "bad name"),
        ("link.jpg", "link"),
        ("hard.jpg", "link"),
        ("device.jpg", "special file"),
        ("pipe.jpg", "special file"),
        ("not a picture.jpg", "broken"),
    }
    inside = tmp_path / "index"
    assert [path for path in sorted(tmp_path.rglob("*")) if path != inside and inside not in path.parents] == before


def test_the_last_member_of_a_name_counts(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/1.tar", member("a.jpg", jpeg(1)), member("a.jpg", jpeg(2)))
    assert read_photo(Path(f"tar:{tmp_path / 'tars'}"), "1.tar/a.jpg") == jpeg(2)


def test_a_damaged_tar_file_is_reported_and_its_photos_are_kept(tars: Path, tmp_path: Path) -> None:
    update(tars, tmp_path / "packed")
    whole = (tars / "winter.tar").read_bytes()
    (tars / "winter.tar").write_bytes(whole[:700])
    (tars / "none.tar").write_bytes(b"no tar file at all" * 100)
    made, _ = update(tars, tmp_path / "packed")
    assert len(made) == 6
    assert [(skipped.path, skipped.kind) for skipped in made.skipped()] == [
        ("none.tar", "unreadable"),
        ("winter.tar", "unreadable"),
    ]


def test_other_files_beside_tar_files_are_skipped(tars: Path, tmp_path: Path) -> None:
    (tars / "photos.tar.gz").write_bytes(b"compressed")
    made, _ = update(tars, tmp_path / "packed")
    assert [(skipped.path, skipped.reason) for skipped in made.skipped()] == [("photos.tar.gz", "not a .tar file")]


def test_a_header_that_claims_to_be_huge_is_not_read() -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, MOST_HEADER + 1
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(2 * MOST_HEADER)
    with pytest.raises(OSError, match="too large"):
        list(tar_members(io.BytesIO(data), len(data)))


def test_a_member_that_ends_after_its_file_is_skipped() -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = 1 << 40
    data = info.tobuf() + bytes(1024)
    with pytest.raises(OSError, match="damaged"):
        list(tar_members(io.BytesIO(data), len(data)))


def test_a_tar_file_in_a_folder_with_the_suffix_of_one_is_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "old.tar/1.tar", member("in.tar/a.jpg", jpeg(1)))
    root = Path(f"tar:{tmp_path}")
    (file,) = walk_photos(root)
    assert file.path == "old.tar/1.tar/in.tar/a.jpg"
    assert read_photo(root, file.path) == jpeg(1)


def test_a_photo_of_a_tar_file_that_changed_is_not_mixed_up(tars: Path) -> None:
    root = Path(f"tar:{tars}")
    first = next(file for file in walk_photos(root) if isinstance(file, PhotoFile))
    write_tar(tars / "summer.tar", member("other.jpg", jpeg(7)), member("1.jpg", jpeg(8)))
    with pytest.raises(ImageError, match="no longer in"):
        read_photo(root, first.path)
    assert read_photo(root, "summer.tar/1.jpg") == jpeg(8)


def test_the_server_opens_a_photo_in_a_tar_file_as_a_file(tars: Path, photos: Path) -> None:
    with (
        open_original(Path(f"tar:{tars}"), "winter.tar/4.jpg") as packed,
        open_original(photos, "winter/4.jpg") as file,
    ):
        assert os.fstat(packed.fileno()).st_size == os.fstat(file.fileno()).st_size
        assert packed.read() == file.read()


def test_a_missing_folder_of_tar_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PhotosError, match="not a folder"):
        list(walk_photos(Path(f"tar:{tmp_path / 'none'}")))


def test_a_folder_is_walked_as_before(photos: Path) -> None:
    assert list(walk_photos(photos)) == list(walk(photos))
    assert not any(isinstance(found, Skipped) for found in walk_photos(photos))


@pytest.mark.parametrize("text", ["s3://bucket/a/b", "gs://bucket", "tar:s3://bucket/a", "tar:/data/tars"])
def test_an_address_is_shown_as_it_was_written(text: str) -> None:
    assert is_address(Path(text))
    assert address_of(Path(text)) == text
    assert address_of(Path(text) / "x/y.jpg") == f"{text}/x/y.jpg"


@pytest.mark.parametrize("text", ["photos", "/data/s3:/x", "a/tar:b", "C:/photos"])
def test_a_folder_is_no_address(text: str) -> None:
    assert not is_address(Path(text))
    assert address_of(Path(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3://key:secret@bucket/a", "no key or password"),
        ("tar:s3://key@bucket/a", "no key or password"),
        ("s3://", "names no bucket"),
        ("tar:gs:///", "names no bucket"),
    ],
)
def test_an_address_without_a_bucket_or_with_a_password_is_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        settled(Path(text))


@pytest.mark.parametrize(
    "path", ["../a", "/a", "a/../b", "a//b", "./a", "a/.", "a/", "", ".", "..", "a\0b", "caf\udce9.jpg"]
)
def test_names_that_lead_elsewhere_are_refused(path: str) -> None:
    assert name_problem(path) is not None
    assert name_problem(escaped_name(path)) is None


@pytest.mark.parametrize("path", ["a.jpg", "a/b c.jpg", "ü/..a.jpg", "a\nb.jpg"])
def test_other_names_are_not(path: str) -> None:
    assert name_problem(path) is None


def write_inventory(path: Path, /, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def inventory_of(folder: Path, path: Path) -> Path:
    files = [file for file in walk(folder) if isinstance(file, PhotoFile)]
    times = pa.array([file.mtime_ns for file in files], pa.timestamp("ns"))
    return write_inventory(
        path, path=[file.path for file in files], bytes=[file.bytes for file in files], mtime=times
    )


def known_of(found: Iterable[PhotoFile | Skipped]) -> list[tuple[str, int, int]]:
    return [(file.path, file.bytes, file.mtime_ns) for file in found]


def test_an_inventory_takes_the_place_of_the_walk(photos: Path, tars: Path, tmp_path: Path) -> None:
    for root, folder in ((photos, photos), (Path(f"tar:{tars}"), tars)):
        inventory = inventory_of(folder, tmp_path / "files.parquet")
        assert known_of(walk_photos(root, inventory=inventory)) == known_of(walk_photos(root))


def test_what_an_inventory_does_not_list_is_gone_but_not_most_of_a_bucket(tars: Path, tmp_path: Path) -> None:
    update(tars, tmp_path / "packed")
    inventory = inventory_of(tars, tmp_path / "files.parquet")
    some = pq.read_table(inventory)
    with ImageIndex.open(tmp_path / "packed", engine=FakeEngine()) as index:
        assert index.update(files=inventory).unchanged == 6
        pq.write_table(some.slice(0, 1), inventory)
        report = index.update(files=inventory)
        assert (report.gone, report.unchanged) == (2, 4)
        pq.write_table(some.slice(0, 0), inventory)
        with pytest.raises(PhotosError, match="lists 4 of the 4 photos"):
            index.update(files=inventory)


def test_an_inventory_names_nothing_outside_the_folder(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.jpg").write_bytes(jpeg(1))
    paths = ["../outside.jpg", str(tmp_path / "outside.jpg"), "summer/0.jpg", "none.jpg", "summer"]
    now = pa.array([0] * len(paths), pa.timestamp("s"))
    inventory = write_inventory(tmp_path / "files.parquet", path=paths, bytes=[1] * len(paths), mtime=now)
    with ImageIndex.for_photos(photos, tmp_path / "index", engine=FakeEngine()) as index:
        report = index.update(photos, files=inventory)
        assert index.paths() == ["summer/0.jpg"]
        assert [skipped.kind for skipped in report.skipped].count("bad name") == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a"], "bytes": [1]}, "not a list of files"),
        ({"path": ["a"], "bytes": ["many"], "mtime": pa.array([0], pa.timestamp("s"))}, "not a list of files"),
        ({"path": ["a", None], "bytes": [1, 1], "mtime": pa.array([0, 0], pa.timestamp("s"))}, "without a value"),
        ({"path": ["a", "a"], "bytes": [1, 1], "mtime": pa.array([0, 0], pa.timestamp("s"))}, "a path twice"),
        ({"path": ["a"], "bytes": [-1], "mtime": pa.array([0], pa.timestamp("s"))}, "negative"),
    ],
)
def test_a_file_that_is_no_inventory_is_refused(
    photos: Path, tmp_path: Path, columns: dict[str, list[Any]], message: str
) -> None:
    inventory = write_inventory(tmp_path / "files.parquet", **columns)
    with pytest.raises(OptionError, match=message):
        list(walk_photos(photos, inventory=inventory))


def test_text_is_no_inventory(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "files.parquet").write_text("path,bytes,mtime")
    with pytest.raises(OptionError, match="not a list of files"):
        list(walk_photos(photos, inventory=tmp_path / "files.parquet"))


def test_an_inventory_that_does_not_exist_is_said_to_be_missing(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"files\.parquet.* does not exist"):
        list(walk_photos(photos, inventory=tmp_path / "files.parquet"))
