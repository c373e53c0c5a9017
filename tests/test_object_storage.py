"""Photos in object storage, with a real S3 server."""

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.fakes import FakeEngine
from tests.helpers.object_storage import S3Server, s3_in_environment
from vggsearch.cli import cli
from vggsearch.defaults import IMAGE
from vggsearch.errors import ImageError, OptionError, PhotosError
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.update import UpdateReport
from vggsearch.photos.sources import read_photo, walk_photos
from vggsearch.photos.walk import PhotoFile, Skipped, walk

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_in_environment(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, photos: Path, tmp_path: Path) -> str:
    """A folder of the photos of the fixture `photos` in a bucket; return its address."""
    folder = f"bucket/{tmp_path.name}"
    upload(s3, photos, folder)
    return f"s3://{folder}"


def upload(s3: S3Server, folder: Path, to: str) -> None:
    files = s3.file_system()
    files.create_dir(to)
    for found in walk(folder):
        put(s3, f"{to}/{found.path}", (folder / found.path).read_bytes())


def put(s3: S3Server, path: str, data: bytes) -> None:
    with s3.file_system().open_output_stream(path) as file:
        file.write(data)


def update(address: str, directory: Path, *, allow_empty: bool = False) -> tuple[ImageIndex, FakeEngine]:
    engine = FakeEngine()
    with ImageIndex.for_photos(address, directory, engine=engine) as index:
        index.update(address, allow_empty=allow_empty)
    return index, engine


def test_a_bucket_has_the_rows_and_embeddings_of_a_folder(bucket: str, index: ImageIndex, tmp_path: Path) -> None:
    made, _ = update(bucket, tmp_path / "made")
    assert made.paths() == index.paths()
    assert np.array_equal(made.embeddings(), index.embeddings())
    for column in ("sha256", "width", "height", "format", "perceptual_hash", "bytes"):
        assert made.to_arrow().column(column) == index.to_arrow().column(column)
    _, engine = update(bucket, tmp_path / "made")
    assert engine.pictures == 0


def test_queries_and_duplicates_fetch_photos(bucket: str, s3: S3Server, photos: Path, tmp_path: Path) -> None:
    put(s3, f"{bucket.removeprefix('s3://')}/copy.jpg", (photos / "summer/1.jpg").read_bytes())
    update(bucket, tmp_path / "made")
    with ImageIndex.open(tmp_path / "made", engine=FakeEngine()) as index:
        matches = index.query(photos / "winter/5.jpg", count=3).matches
        assert any(match.alignment for match in matches)
        report = index.duplicates()
        assert len(report.groups) == 1
        with pytest.raises(PhotosError, match=f"The photos are in {bucket}:"):
            index.plan_removal(report, "delete")


def test_an_object_is_a_query(bucket: str, s3: S3Server, index: ImageIndex, tmp_path: Path) -> None:
    put(
        s3,
        f"{bucket.removeprefix('s3://')}/a copy.jpg",
        (index.root or Path()).joinpath("summer/1.jpg").read_bytes(),
    )
    for image in (f"{bucket}/summer/1.jpg", Path(f"{bucket}/summer/1.jpg")):
        result = index.query(image, count=1)
        assert (result.query, result.matches[0].path) == (f"{bucket}/summer/1.jpg", "summer/1.jpg")
        assert result.matches[0].similarity == 1.0
    update(bucket, tmp_path / "made")
    with ImageIndex.open(tmp_path / "made", engine=FakeEngine()) as made:
        paths = [match.path for match in made.query(f"{bucket}/summer/1.jpg", count=2).matches]
        assert paths == ["summer/1.jpg", "a copy.jpg"]  # it is known as the photo that it is
        beside = made.query(f"{bucket}/summer/1.jpg", exclude_same_folder=True).matches
        assert all(not match.path.startswith("summer/") for match in beside)


def test_an_object_that_cannot_be_a_query_says_why(
    bucket: str, index: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {
        f"{bucket}/none.jpg": "does not exist",
        f"{bucket}/summer": "",
        "s3://no-such-bucket/a.jpg": "no-such-bucket",
    }
    for image, why in wrong.items():
        with pytest.raises(ImageError, match=f"^{re.escape(image)}: .*{why}") as raised:
            index.query(image)
        assert "\n" not in str(raised.value)
    good = f"{bucket}/summer/1.jpg"
    for rerank in (True, False):
        answers = list(index.query_many([*wrong, good], count=1, rerank=rerank))
        assert [isinstance(each, Skipped) for each in answers] == [True, True, True, False]
    for image, why in (("s3:///", "names no bucket"), ("s3://key:secret@bucket/a.jpg", "no key or password")):
        with pytest.raises(OptionError, match=why):
            index.query(image)
    monkeypatch.setattr("vggsearch.photos.sources.IMAGE", replace(IMAGE, stream_bytes=100))
    with pytest.raises(ImageError, match=f"{good}: has more than 0 MB, the limit for what is not on a disk"):
        index.query(good)


@pytest.mark.network
def test_the_command_takes_an_object_as_the_query(bucket: str, photos: Path, tmp_path: Path) -> None:
    with ImageIndex.create(tmp_path / "index") as index:
        index.update(photos)
    words = ["query", f"{bucket}/summer/1.jpg", "--index", str(tmp_path / "index"), "-k", "1"]
    found = CliRunner().invoke(cli, words)
    assert (found.exit_code, "summer/1.jpg" in found.output) == (0, True), found.output
    page = CliRunner().invoke(cli, [*words, "--html", str(tmp_path / "page.html")])
    assert page.exit_code == 0, page.output
    assert (tmp_path / "page.html").read_text("utf-8").count("data:image/") == 2  # the query and the photo


def test_an_object_that_was_uploaded_again_is_read_but_not_embedded_again(
    bucket: str, s3: S3Server, photos: Path, tmp_path: Path
) -> None:
    update(bucket, tmp_path / "made")
    before = {file.path: file for file in walk_photos(Path(bucket)) if isinstance(file, PhotoFile)}
    while True:  # the time of an object has seconds
        put(s3, f"{bucket.removeprefix('s3://')}/summer/1.jpg", (photos / "summer/1.jpg").read_bytes())
        now = {file.path: file for file in walk_photos(Path(bucket)) if isinstance(file, PhotoFile)}
        if now != before:
            break
    with ImageIndex.open(tmp_path / "made", engine=FakeEngine()) as index:
        report = index.update()
        assert (report.indexed, report.reused, report.unchanged) == (0, 1, 5)


def test_an_object_with_the_etag_that_it_had_is_not_read(bucket: str, s3: S3Server, tmp_path: Path) -> None:
    listed = [file for file in walk_photos(Path(bucket)) if isinstance(file, PhotoFile)]
    inventory, folder = tmp_path / "files.parquet", bucket.removeprefix("s3://")

    def index(etag: str, days: int) -> UpdateReport:
        paths, sizes, times, _ = zip(*listed, strict=True)
        moved = pa.array([time + days * 86_400 * 10**9 for time in times], pa.timestamp("ns", "UTC"))
        etags = [etag, *(f"etag {path}" for path in paths[1:])]
        pq.write_table(pa.table({"path": paths, "bytes": sizes, "mtime": moved, "etag": etags}), inventory)
        with ImageIndex.for_photos(bucket, tmp_path / "made", engine=FakeEngine()) as opened:
            return opened.update(bucket, files=inventory)

    assert index("first", 0).photos == len(listed)
    original = s3.file_system().open_input_stream(f"{folder}/{listed[0].path}").read()
    s3.file_system().delete_dir_contents(folder)
    report = index("first", 1)
    assert (report.unchanged, report.indexed, len(report.skipped)) == (len(listed), 0, 0)
    report = index("another", 2)
    assert [file.path for file in report.newly_skipped] == [listed[0].path]
    put(s3, f"{folder}/{listed[0].path}", original)
    assert index("another", 3).reused == 1
    assert index("another", 4).unchanged == len(listed)
    assert index("first", 5).reused == 1


def test_neither_an_empty_folder_nor_one_that_lost_most_photos_empties_an_index(
    bucket: str, s3: S3Server, tmp_path: Path
) -> None:
    update(bucket, tmp_path / "made")
    files, folder = s3.file_system(), bucket.removeprefix("s3://")
    files.delete_dir(f"{folder}/summer")
    with pytest.raises(PhotosError, match="lists 4 of the 6 photos"):
        update(bucket, tmp_path / "made")
    files.delete_dir(folder)
    with pytest.raises(PhotosError, match=r"cannot be listed|lists 6 of the 6 photos"):
        update(bucket, tmp_path / "made")
    with ImageIndex.open(tmp_path / "made") as index:
        assert len(index) == 6


def test_an_empty_folder_makes_no_index_of_nothing(s3: S3Server, tmp_path: Path) -> None:
    s3.file_system().create_dir("bucket/empty")
    with pytest.raises(PhotosError, match="s3://bucket/empty holds no files"):
        update("s3://bucket/empty", tmp_path / "indexes" / "made")
    assert not (tmp_path / "indexes").exists()


@pytest.mark.parametrize("address", ["s3://no-such-bucket/a", "s3://bucket/no-such-folder"])
def test_what_is_not_there_is_an_error_and_makes_no_index_of_nothing(
    s3: S3Server, bucket: str, address: str, tmp_path: Path
) -> None:
    with pytest.raises(PhotosError, match="cannot be listed"):
        update(address, tmp_path / "indexes" / "made")
    assert not (tmp_path / "indexes").exists()


def test_a_photo_that_is_gone_is_unreadable(bucket: str) -> None:
    with pytest.raises(ImageError, match="Path does not exist") as raised:
        read_photo(Path(bucket), "none.jpg")
    assert raised.value.kind == "unreadable"


def test_tar_files_in_a_bucket_have_the_photos_of_those_on_a_disk(
    s3: S3Server, photos: Path, index: ImageIndex, tmp_path: Path
) -> None:
    (tmp_path / "tars").mkdir()
    for inside in ("summer", "winter"):
        with tarfile.open(tmp_path / "tars" / f"{inside}.tar", "w") as tar:
            tar.add(photos / inside, arcname=".")
    upload(s3, tmp_path / "tars", "bucket/tars")
    made, _ = update("tar:s3://bucket/tars", tmp_path / "made")
    assert sorted(made.paths()) == [path.replace("/", ".tar/") for path in index.paths()]
    assert sorted(made.to_arrow().column("sha256").to_pylist()) == sorted(
        index.to_arrow().column("sha256").to_pylist()
    )
    _, engine = update("tar:s3://bucket/tars", tmp_path / "made")
    assert engine.pictures == 0


def test_the_command_names_a_bucket_as_it_was_written(bucket: str, s3: S3Server, tmp_path: Path) -> None:
    update(bucket, tmp_path / "made")
    command = [sys.executable, "-m", "vggsearch", "info", "--index", str(tmp_path / "made")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout
    assert bucket in shown
