"""What every request has to pass before anything looks at it: who asks, from where, how much and how long."""

import asyncio
import hashlib
import ipaddress
import secrets
import time
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vggsearch.defaults import SERVE
from vggsearch.serve.answers import Problem, busy
from vggsearch.serve.metrics import Metrics

SAFE_METHODS = ("GET", "HEAD")
PAGES = ("/", "/login")  # which a link may lead to from anywhere
ASKING = ("/api/query", "/api/query/batch")  # posted, since a picture is sent, but nothing is changed
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
STRANGER = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>vggsearch</title>
<h1>This page needs a token</h1>
<p>Open the link that <code>vggsearch serve</code> printed in its terminal.</p></html>
"""


@dataclass(frozen=True)
class Access:
    """Who may do what: the secret `token`, the `host` that is bound, its `port`, whether changes are allowed.

    `why_not` is why they are not.
    """

    token: str
    host: str
    port: int
    can_change: bool
    why_not: str = "This server is read-only, since other machines can reach it. Start it with --allow-changes."

    @cached_property
    def cookie(self) -> str:
        """The name of the cookie, by the token: browsers send one to all ports of a host.

        Servers with one token, behind one address, have one cookie.
        """
        return f"vggsearch_{hashlib.sha256(self.token.encode()).hexdigest()[:8]}"

    def is_token(self, given: str) -> bool:
        """Return whether a text is the token, in a time that does not depend on the text."""
        return secrets.compare_digest(given.encode(), self.token.encode())

    def is_host(self, named: str) -> bool:
        """Return whether the Host header names this server: no domain of a stranger that leads here does.

        On loopback it is localhost or a loopback address, else also the name or any address: an address cannot be
        rebound.
        """
        host, port = _split(named)
        if port not in (None, self.port) and is_loopback(self.host):
            return False
        address = _address(host)
        if is_loopback(self.host):
            return host == "localhost" or (address is not None and address.is_loopback)
        return host in ("localhost", self.host.lower()) or address is not None


def is_loopback(host: str) -> bool:
    """Return whether a name or an address is of this machine alone."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _split(named: str) -> tuple[str, int | None]:
    """Return the host, in lower case and without brackets, and the port of a Host header."""
    host, colon, port = named.lower().rpartition(":")
    if not colon or named.endswith("]"):
        host, port = named.lower(), ""
    number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else None
    return host.removeprefix("[").removesuffix("]"), number


class Guard:
    """ASGI middleware that answers strangers itself, limits bodies, and adds SECURITY_HEADERS to every response."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics) -> None:
        self._app, self._access, self._metrics = app, access, metrics
        self._held = Held()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no websockets here
        guarded = _with_headers(send)
        try:
            answer = self._answer(scope)
        except Problem as problem:
            answer = problem.response()
        if answer is not None:
            await answer(scope, receive, guarded)
            return
        body, answered, began = (
            _Body(receive, Headers(scope=scope), self._held),
            _Answered(guarded),
            time.monotonic(),
        )
        try:
            await self._app(scope, body.receive, answered.send)
        finally:
            self._held.bytes -= body.bytes
            self._metrics.count(_route(scope), answered.status, time.monotonic() - began)

    def _answer(self, scope: Scope) -> Response | None:
        """Return the response to a request that is not passed on. Raises Problem."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._access.is_host(hosts[0]):
            raise Problem(HTTPStatus.MISDIRECTED_REQUEST, "The Host header does not name this server.")
        self._check_site(scope, headers)
        if scope["path"] == "/login":
            return self._login(scope)
        by_cookie = self._has_cookie(headers)
        if not (by_cookie or self._has_bearer(headers)):
            return _stranger(scope)
        if scope["method"] not in SAFE_METHODS:
            self._check_change(scope, headers, by_cookie=by_cookie)
        return None

    def _check_site(self, scope: Scope, headers: Headers) -> None:
        """Refuse what a page of another site, or of another port, asks for; a link to a page is fine."""
        site = headers.get("sec-fetch-site", "none")
        is_link = scope["path"] in PAGES and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("none", "same-origin") and not (is_link and scope["method"] == "GET"):
            raise Problem(HTTPStatus.FORBIDDEN, "Another site asked for this.")

    def _check_change(self, scope: Scope, headers: Headers, *, by_cookie: bool) -> None:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        is_own = site == "same-origin" or (origin is not None and _host_of(origin) == headers["host"].lower())
        if (origin is not None or by_cookie) and not is_own:
            raise Problem(HTTPStatus.FORBIDDEN, "Another site asked for this change.")
        if not self._access.can_change and scope["path"] not in ASKING:
            raise Problem(
                HTTPStatus.FORBIDDEN,
                self._access.why_not,
            )

    def _login(self, scope: Scope) -> Response:
        [given, *_] = parse_qs(scope["query_string"].decode("ascii", "replace")).get("token", [""])
        if not self._access.is_token(given):
            return _stranger(scope)
        response = RedirectResponse("/", HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"})
        response.set_cookie(self._access.cookie, self._access.token, httponly=True, samesite="strict", path="/")
        return response

    def _has_cookie(self, headers: Headers) -> bool:
        return self._access.is_token(cookie_parser(headers.get("cookie", "")).get(self._access.cookie, ""))

    def _has_bearer(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._access.is_token(given.strip())


def _host_of(origin: str) -> str:
    scheme, _, host = origin.lower().partition("://")
    return host if scheme in ("http", "https") else ""


def _stranger(scope: Scope) -> Response:
    if scope["path"] in PAGES and scope["method"] in SAFE_METHODS:
        return HTMLResponse(STRANGER, HTTPStatus.UNAUTHORIZED)
    detail = "This needs the token that vggsearch serve printed: Authorization: Bearer TOKEN."
    problem = Problem(HTTPStatus.UNAUTHORIZED, detail)
    problem.headers["WWW-Authenticate"] = "Bearer"
    return problem.response()


@dataclass
class Held:
    """How many bytes the bodies of all requests have that are not answered yet."""

    bytes: int = 0


class _Body:
    """The body of a request, of a limited size, that must arrive within a limited time."""

    def __init__(self, receive: Receive, headers: Headers, held: Held) -> None:
        self._receive, self._held = receive, held
        self.bytes = 0
        self._end = asyncio.get_running_loop().time() + SERVE.body_seconds
        self._is_complete = False
        length = headers.get("content-length", "0")
        self._is_too_large = not length.isdecimal() or int(length) > SERVE.body_bytes

    async def receive(self) -> Message:
        """Return the next message. Raises Problem for a body that is too large or too slow."""
        if self._is_complete:
            return await self._receive()
        if self._is_too_large:
            raise self._too_large()
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, "The request did not arrive in time.") from None
        if message["type"] == "http.request":
            self._count(len(message.get("body", b"")))
            self._is_complete = not message.get("more_body", False)
        return message

    def _count(self, more: int) -> None:
        self.bytes += more
        self._held.bytes += more
        if self.bytes > SERVE.body_bytes:
            raise self._too_large()
        if self._held.bytes > SERVE.held_bytes:
            raise busy("Too much is being sent at once. Try again in a moment.")

    def _too_large(self) -> Problem:
        limit = f"{SERVE.body_bytes >> 20} MB"
        return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The request is larger than {limit}.")


class _Answered:
    """Passes a response on, and notes its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0  # none: the client has gone

    async def send(self, message: Message) -> None:
        """Send a message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _route(scope: Scope) -> str | None:
    """Return the pattern of the path that answered a request, None if there is none."""
    route = scope.get("route")
    return getattr(route, "path", None)


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return guarded
