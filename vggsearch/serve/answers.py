"""What goes back to a client: JSON that holds any file name, and errors as problem+json (RFC 9457)."""

import json
import logging
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from vggsearch.defaults import SERVE
from vggsearch.errors import (
    ImageError,
    IndexLocked,
    IndexNotReadable,
    IndexNotWritable,
    JournalError,
    OptionError,
    PhotosError,
    PublishError,
    SpecMismatch,
    Stopped,
    VggsearchError,
)
from vggsearch.photos.walk import one_line

log = logging.getLogger(__name__)

# The first that an error is an instance of; the rest are 500.
STATUS_OF: tuple[tuple[type[VggsearchError], HTTPStatus], ...] = (
    (OptionError, HTTPStatus.BAD_REQUEST),
    (ImageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (IndexLocked, HTTPStatus.CONFLICT),
    (PhotosError, HTTPStatus.CONFLICT),
    (SpecMismatch, HTTPStatus.CONFLICT),
    (Stopped, HTTPStatus.CONFLICT),
    (JournalError, HTTPStatus.CONFLICT),
    (IndexNotWritable, HTTPStatus.INSUFFICIENT_STORAGE),
    (IndexNotReadable, HTTPStatus.SERVICE_UNAVAILABLE),
    (PublishError, HTTPStatus.SERVICE_UNAVAILABLE),
)


class Json(Response):
    """JSON in ASCII, so that a name which is not UTF-8 arrives as the command line prints it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the bytes."""
        return as_json(content).encode("ascii")


class Problem(Exception):
    """A request that cannot be answered: `status` and a line for people."""

    def __init__(self, status: HTTPStatus, detail: str, *, retry: bool = False) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.headers = {"Retry-After": str(SERVE.retry_seconds)} if retry else {}

    def values(self) -> dict[str, object]:
        """Return the members of the problem."""
        return {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": one_line(self.detail),
        }

    def response(self) -> Response:
        """Return the response."""
        return Response(as_json(self.values()), self.status, self.headers, "application/problem+json")


def as_json(content: object) -> str:
    """Return a value as JSON in ASCII, without spaces. Raises ValueError for NaN, which JSON lacks."""
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


def problem_of(error: Exception) -> Problem:
    """Return the problem that tells of an error: in the command line's words, if it can be foreseen."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, VggsearchError):
        status = next((found for kind, found in STATUS_OF if isinstance(error, kind)), None)
        return Problem(status or HTTPStatus.INTERNAL_SERVER_ERROR, error.for_shell())
    if isinstance(error, OSError):
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, error.strerror or str(error))
    log.error("A request failed, which is a bug in vggsearch.", exc_info=error)
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "An error that was not foreseen; the server's terminal shows it."
    )


def not_found(what: str) -> Problem:
    """Return the problem of something that is not there."""
    return Problem(HTTPStatus.NOT_FOUND, what)


def bad_request(what: str) -> Problem:
    """Return the problem of a request that makes no sense."""
    return Problem(HTTPStatus.BAD_REQUEST, what)


def busy(what: str) -> Problem:
    """Return the problem of a server that has too much to do at the moment."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, what, retry=True)
