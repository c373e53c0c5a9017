"""Run the server until it is told to stop."""

import asyncio
import logging
import secrets
import signal
import socket
import sys
from asyncio import TimerHandle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from vggsearch.defaults import SERVE
from vggsearch.errors import VggsearchError, option
from vggsearch.image_index import ImageIndex
from vggsearch.published.index import PublishedIndex
from vggsearch.serve.app import create_app
from vggsearch.serve.guard import Access, is_loopback
from vggsearch.serve.published import PublishedLibrary
from vggsearch.serve.reveal import file_manager
from vggsearch.serve.service import ONLY_PUBLISHED, IndexService, Service

GRACE_SECONDS = 5  # for open connections, once it is told to stop


class PromptProtocol(H11Protocol):
    """HTTP that closes a connection whose next request does not begin, with all its headers, in time."""

    _waiting: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Stop the clock once a request has begun; start it for the next one."""
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self._forget()
        elif self._waiting is None:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._forget()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._waiting = asyncio.get_running_loop().call_later(SERVE.header_seconds, self.transport.close)

    def _forget(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class Server(uvicorn.Server):
    """A server on a bound socket; `started` is called with the link to the page once it can be opened."""

    def __init__(
        self,
        service: Service,
        listening: socket.socket,
        *,
        started: Callable[[str], None],
    ) -> None:
        self._service, access = service, service.access
        super().__init__(
            uvicorn.Config(
                create_app(self._service),
                http=PromptProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=SERVE.idle_seconds,
                limit_concurrency=SERVE.connections,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._listening, self._tell = listening, started
        self._link = f"http://{_shown(access.host)}:{access.port}/login?token={access.token}"

    def serve_until_stopped(self) -> None:
        """Serve until SIGINT or SIGTERM, or until `should_exit` is set; then finish or stop all work."""
        try:
            self.run(sockets=[self._listening])
        finally:
            self._service.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: jobs first, since clients that follow them stay connected."""
        self._service.stop_jobs()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals end the server, and not the process once the server has ended, as uvicorn would."""
        if current_thread() is not main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell."""
        await super().startup(sockets)
        if self.started:
            self._tell(self._link)


def serve(
    indexes: Sequence[ImageIndex],
    *,
    host: str = SERVE.host,
    port: int = SERVE.port,
    allow_changes: bool = False,
    move_to: Path | None = None,
    has_desktop: bool = False,
    token: str | None = None,
    started: Callable[[str], None],
) -> None:
    """Serve indexes until SIGINT or SIGTERM. `started` is called with the link to the page once it can be opened.

    Port 0 takes any free one; without `token`, a new one is made. With `has_desktop`, clients may have photos shown
    in the file manager, unless other machines can connect. Raises VggsearchError for an unusable address.
    """
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # not a line for each request that is no HTTP
    with listening_on(host, port) as listening:
        number = listening.getsockname()[1]
        access = Access(token or secrets.token_urlsafe(32), host, number, allow_changes or is_loopback(host))
        manager = file_manager(sys.platform) if has_desktop and is_loopback(host) else None
        Server(IndexService(indexes, access, move_to, manager), listening, started=started).serve_until_stopped()


def serve_published(
    index: PublishedIndex,
    *,
    host: str = SERVE.host,
    port: int = SERVE.port,
    token: str | None = None,
    started: Callable[[str], None],
) -> None:
    """Serve a published index until SIGINT or SIGTERM: searches, and photos if their folder is here. See serve."""
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    with listening_on(host, port) as listening:
        number = listening.getsockname()[1]
        access = Access(token or secrets.token_urlsafe(32), host, number, can_change=False, why_not=ONLY_PUBLISHED)
        Server(Service(PublishedLibrary(index), access), listening, started=started).serve_until_stopped()


def listening_on(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address. Raises VggsearchError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _bound(socket.socket(family, kind, protocol), address)
    except OSError as error:
        why = error.strerror or str(error)
        raise VggsearchError(
            f"{host}, port {port}, cannot be used: {why}. Choose another port: ", option("port", port + 1)
        ) from error


def _bound(made: socket.socket, address: Any) -> socket.socket:
    """Bind a new socket; close it if that fails."""
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # right after another server has ended
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
