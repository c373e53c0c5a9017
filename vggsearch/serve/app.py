"""The application: the HTTP API, and the page that uses it, behind the guard."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from vggsearch import __version__
from vggsearch.errors import VggsearchError
from vggsearch.render import html
from vggsearch.serve import compare_routes, duplicate_routes, job_routes, photo_routes, query_routes
from vggsearch.serve.answers import Json, Problem, problem_of
from vggsearch.serve.guard import Guard
from vggsearch.serve.metrics import MEDIA_TYPE
from vggsearch.serve.service import Served, Service

WEB = Path(__file__).parent / "web"
SHARED = Path(html.__file__).parent / "assets"  # what this page has in common with that of `vggsearch dups --html`
MISSING = 'data-missing=""'  # what the page is not to offer, see Library
FRESH = {"Cache-Control": "no-cache"}  # a browser asks whether a file has changed, as it may after an update


class Assets(StaticFiles):
    """The files of the page."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file, or that it has not changed."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(FRESH)
        return response


def create_app(service: Service) -> ASGIApp:
    """Return the application that answers with a service."""
    return Guard(
        _app(service), service.access, service.metrics
    )  # outside of all else, so that its headers are on every response


def _app(service: Service) -> FastAPI:

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.warm_up()
        yield

    app = FastAPI(
        title="vggsearch",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # these two load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.service = service
    for routes in (photo_routes, query_routes, compare_routes, duplicate_routes, job_routes):
        app.include_router(routes.router)
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_api_route("/healthz", _health)
    app.add_api_route("/metrics", _metrics)
    app.mount("/web/shared", Assets(directory=SHARED))
    app.mount("/web", Assets(directory=WEB))
    for kind in (VggsearchError, Problem, OSError, Exception):
        app.add_exception_handler(kind, _failed)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misread)
    return app


def _page(served: Served) -> Response:
    if missing := " ".join(served.library.missing):
        text = (WEB / "index.html").read_text("utf-8").replace(MISSING, f'data-missing="{missing}"')
        return Response(text, media_type="text/html", headers=FRESH)
    return FileResponse(WEB / "index.html", media_type="text/html", headers=FRESH)


def _health() -> Response:
    """Return that the server answers."""
    return Json({"status": "ok"})


def _metrics(served: Served) -> Response:
    """Return what was counted, for Prometheus."""
    gauges = (
        ("searches_total", "counter", served.searches.done),
        ("search_batches_total", "counter", served.searches.batches),
        ("searches_waiting", "gauge", served.searches.waiting),
        ("jobs_unfinished", "gauge", served.unfinished_jobs),
        ("photos", "gauge", len(served.library)),
    )
    return Response(served.metrics.text(gauges), media_type=MEDIA_TYPE)


def _failed(_: Request, error: Exception) -> Response:
    return problem_of(error).response()


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - see _app
    problem = Problem(HTTPStatus(error.status_code), str(error.detail))
    problem.headers.update(error.headers or {})
    return problem.response()


def _misread(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - see _app
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return Problem(HTTPStatus.BAD_REQUEST, f"{where}: {first['msg']}").response()
