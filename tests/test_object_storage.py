from collections.abc import Iterator

import pytest

from tests.helpers.object_storage import S3Server, s3_server

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def test_what_is_written_to_the_server_is_read_back(s3: S3Server) -> None:
    files = s3.file_system()
    files.create_dir("bucket")
    with files.open_output_stream("bucket/folder/a.txt") as file:
        file.write(b"some bytes")
    assert files.open_input_file("bucket/folder/a.txt").read() == b"some bytes"
