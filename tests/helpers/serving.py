"""A server in a thread of this process, and clients of it."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx

from vggsearch.image_index import ImageIndex
from vggsearch.published.index import PublishedIndex
from vggsearch.serve.guard import Access
from vggsearch.serve.published import PublishedLibrary
from vggsearch.serve.reveal import FileManager
from vggsearch.serve.run import Server, listening_on
from vggsearch.serve.service import ONLY_PUBLISHED, IndexService, Service

TOKEN = "a-token-for-tests"  # noqa: S105 - and for nothing else
SECONDS = 60.0


@contextmanager
def serving(
    indexes: Sequence[ImageIndex],
    *,
    host: str = "127.0.0.1",
    can_change: bool = True,
    move_to: Path | None = None,
    file_manager: FileManager | None = None,
    token: str = TOKEN,
) -> Iterator[httpx.Client]:
    """Serve indexes on a free port, to a client that has the token."""
    with listening_on("127.0.0.1", 0) as listening:
        access = Access(TOKEN, host, listening.getsockname()[1], can_change)
        service = IndexService(indexes, access, move_to, file_manager)
        with _running(service, listening), client_of(access.port, token) as client:
            yield client


@contextmanager
def serving_published(index: PublishedIndex) -> Iterator[httpx.Client]:
    """Serve a published index on a free port, to a client that has the token."""
    with listening_on("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        access = Access(TOKEN, "127.0.0.1", port, can_change=False, why_not=ONLY_PUBLISHED)
        with _running(Service(PublishedLibrary(index), access), listening), client_of(port, TOKEN) as client:
            yield client


@contextmanager
def _running(service: Service, listening: socket.socket) -> Iterator[None]:
    has_started = Event()
    server = Server(service, listening, started=lambda _: has_started.set())
    thread = Thread(target=server.serve_until_stopped)
    thread.start()
    try:
        assert has_started.wait(SECONDS)
        yield
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


def client_of(port: int, token: str | None = None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=SECONDS)


def last_event(client: httpx.Client, job: str) -> str:
    """Follow a job to its end."""
    with client.stream("GET", f"/api/jobs/{job}", headers={"Accept": "text/event-stream"}) as events:
        return "".join(events.iter_text()).strip().split("\n\n")[-1]


def wait_for(client: httpx.Client, response: httpx.Response) -> Any:
    """Return the result of the job that a response names."""
    assert response.status_code == 202, response.text
    name = response.json()["job"]
    last = last_event(client, name)
    assert last.startswith("event: result"), last
    return client.get(f"/api/jobs/{name}").json()["result"]


def duplicates(client: httpx.Client, **values: Any) -> Any:
    """Return the duplicates, once they are found."""
    response = client.get("/api/duplicates", params=values)
    if response.status_code == 202:
        wait_for(client, response)
        response = client.get("/api/duplicates", params=values)
    assert response.status_code == 200, response.text
    return response.json()
