"""`vggsearch serve` as a process: the link that it prints, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from tests.fakes import picture
from tests.helpers.serving import client_of
from vggsearch.cli import cli
from vggsearch.image_index import ImageIndex

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
