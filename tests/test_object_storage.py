"""Photos in object storage, with a real S3 server."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import FakeEngine
from tests.helpers.object_storage import S3Server, s3_in_environment
from vggsearch.errors import ImageError, PhotosError
from vggsearch.image_index import ImageIndex
from vggsearch.photos.sources import read_photo, walk_photos
from vggsearch.photos.walk import PhotoFile, walk

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
        update("s3://bucket/empty", tmp_path / "made")


@pytest.mark.parametrize("address", ["s3://no-such-bucket/a", "s3://bucket/no-such-folder"])
def test_what_is_not_there_is_an_error_and_makes_no_index_of_nothing(
    s3: S3Server, bucket: str, address: str, tmp_path: Path
) -> None:
    with pytest.raises(PhotosError, match="cannot be listed"):
        update(address, tmp_path / "made")


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
