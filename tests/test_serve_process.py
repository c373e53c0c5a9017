"""`vggsearch serve` as a process: the link that it prints, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from tests.fakes import picture, save_photo
from tests.helpers.object_storage import s3_in_environment
from tests.helpers.postgres import postgres_server
from tests.helpers.serving import client_of
from vggsearch.cli import cli
from vggsearch.image_index import ImageIndex
from vggsearch.serve.published import id_of

TOKEN = "another-token-for-tests"  # noqa: S105 - and for nothing else


@contextmanager
def process(*words: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Start a server; yield the process and its port."""
    command = [sys.executable, "-m", "vggsearch", "serve", "--port", "0", *words]
    environment = os.environ | {"VGGSEARCH_TOKEN": TOKEN}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as started:
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            found = re.fullmatch(rf"Open http://127\.0\.0\.1:(\d+)/login\?token={TOKEN}\n", line)
            assert found is not None, line
            yield started, int(found[1])
        finally:
            started.kill()


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.decoders
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_answers_and_ends_in_good_order(tmp_path: Path, photos: Path, number: signal.Signals) -> None:
    with ImageIndex.create(tmp_path / "index") as index:
        index.update(photos)
    picture(2).save(tmp_path / "query.png")
    with process("--index", str(tmp_path / "index")) as (started, port):
        with client_of(port, TOKEN) as client:
            found = client.post("/api/query", files={"image": (tmp_path / "query.png").read_bytes()}).json()
            assert found["matches"][0]["path"] == "summer/2.jpg"
            assert client.get(f"/api/photos/{found['matches'][0]['id']}/thumbnail").status_code == 200
        started.send_signal(number)
        _, told = started.communicate(timeout=60)
        assert (started.returncode, told) == (0, "Press Ctrl-C to stop.\n")
    with pytest.raises(httpx.ConnectError):
        client_of(port).get("/healthz")


SLOW_SERVER = """
import sys, time
from tests.fakes import FakeEngine
from vggsearch.image_index import ImageIndex
from vggsearch.serve.run import serve

class SlowEngine(FakeEngine):
    def embed(self, squares):
        print("embedding", flush=True)
        time.sleep(float(sys.argv[2]))
        return super().embed(squares)

with ImageIndex.open(sys.argv[1], engine=SlowEngine()) as index:
    serve([index], port=0, token=sys.argv[3], started=lambda link: print(link, flush=True))
"""
SLOW_SECONDS = 8.0  # that an update cannot be stopped


@pytest.mark.slow
def test_who_follows_a_job_learns_at_once_that_the_server_ends(index: ImageIndex, photos: Path) -> None:
    save_photo(photos / "new.jpg", 50)
    words = [sys.executable, "-c", SLOW_SERVER, str(index.directory), str(SLOW_SECONDS), TOKEN]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            link = re.search(r":(\d+)/", started.stdout.readline())
            assert link is not None
            with client_of(int(link[1]), TOKEN) as client:
                job = client.post("/api/update", json={}).json()["job"]
                with client.stream("GET", f"/api/jobs/{job}", headers={"Accept": "text/event-stream"}) as events:
                    parts = events.iter_text()
                    assert next(parts).startswith("event: progress")
                    assert started.stdout.readline() == "embedding\n"
                    began = time.monotonic()
                    started.terminate()
                    rest = "".join(parts)
            assert time.monotonic() - began < SLOW_SECONDS / 2
            assert "The server is being stopped." in rest.strip().split("\n\n")[-1]
            assert started.wait(60) == 0
        finally:
            started.kill()


def test_a_port_that_is_taken_is_an_error_of_one_line(index: ImageIndex) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(cli, ["serve", "--index", str(index.directory), "--port", str(port)])
    assert done.exit_code == 1
    why = "cannot be used: Address already in use. Choose another port:"
    assert done.output == f"Error: 127.0.0.1, port {port}, {why} --port {port + 1}\n"


def test_a_short_token_is_refused(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VGGSEARCH_TOKEN", "short")
    done = CliRunner().invoke(cli, ["serve", "--index", str(index.directory)])
    assert (done.exit_code, "20 characters" in done.output) == (2, True)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggsearch.cli.serve.find_spec", lambda name: None if name == "fastapi" else name)
    done = CliRunner().invoke(cli, ["serve"])
    assert done.exit_code == 1
    assert re.search(r"pip install 'vggsearch(-cpu)?\[web\]'", done.output)


@pytest.fixture(params=["PostgreSQL", "LanceDB in S3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place on a real server where nothing is published yet."""
    if request.param == "PostgreSQL":
        pytest.importorskip("psycopg")
        with postgres_server() as url:
            yield url
        return
    pytest.importorskip("lancedb")
    (tmp_path / "s3").mkdir()
    with s3_in_environment(tmp_path / "s3") as s3:
        s3.file_system().create_dir("published")
        yield "lance+s3://published/photos"


@pytest.mark.cluster
@pytest.mark.network
@pytest.mark.decoders
def test_two_processes_serve_one_table(tmp_path: Path, photos: Path, place: str) -> None:
    picture(2).save(tmp_path / "query.png")
    sent = (tmp_path / "query.png").read_bytes()

    def found(port: int) -> list[tuple[str, float]]:
        with client_of(port, TOKEN) as client:
            answer = client.post("/api/query", files={"image": sent}, data={"rerank": "false"}).json()
            return [(match["path"], match["similarity"]) for match in answer["matches"]]

    with ImageIndex.create(tmp_path / "index") as index:
        index.update(photos)
        index.publish(place)
        with process("--at", place) as (one, first), process("--at", place, "--root", str(photos)) as (two, second):
            expected = [(each.path, each.similarity) for each in index.query(sent, 60, rerank=False).matches]
            assert found(first) == found(second) == expected
            save_photo(photos / "summer" / "new.jpg", 2)
            index.update()
            index.publish(place)
            expected = [(each.path, each.similarity) for each in index.query(sent, 60, rerank=False).matches]
            assert found(first) == found(second) == expected
            one.kill()
            with client_of(second, TOKEN) as client:
                assert client.get(f"/api/photos/{id_of('summer/new.jpg')}/thumbnail").status_code == 200
            two.send_signal(signal.SIGTERM)
            _, told = two.communicate(timeout=60)
            assert (two.returncode, told) == (0, "Press Ctrl-C to stop.\n")
