"""Photos over HTTP: what the index knows of them, thumbnails, and the files themselves."""

from http import HTTPStatus
from itertools import groupby
from typing import TypeVar

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from starlette.responses import Response

from vggsearch import __version__
from vggsearch.defaults import SERVE
from vggsearch.photos.decoder_pool import Source
from vggsearch.query.options import rules
from vggsearch.query.snapshot import folder_of
from vggsearch.serve.answers import Json, Problem, bad_request
from vggsearch.serve.counts import counts
from vggsearch.serve.described import FILTERS, PAGE, in_address
from vggsearch.serve.jobs import Job
from vggsearch.serve.library import Located, Photos
from vggsearch.serve.originals import sent
from vggsearch.serve.parameters import Texts, filter_texts, named_filters, own_filters, paging
from vggsearch.serve.service import Served, ServedIndexes, Service, in_pool
from vggsearch.serve.thumbnails import as_webp, small

Made = TypeVar("Made")
router = APIRouter()
ORDERS = ("path", "taken")
NO_FILE_MANAGER = "A file manager opens only on a desktop, and only if no other machine can connect."


@router.get("/api/state")
def state(served: Served) -> Response:
    """Return what is served: the indexes, the number of photos, skipped files, and what a client may do."""
    library = served.library
    return Json(
        {
            "version": __version__,
            "indexes": list(library.names),
            **library.state(),
            "missing": list(library.missing),
            "can_change": served.access.can_change,
            "can_reveal": served.file_manager is not None,
            "actions": served.actions,
        }
    )


@router.get("/api/photos", openapi_extra=in_address(*PAGE, *FILTERS, order=ORDERS))
def photos(request: Request, served: Served) -> Response:
    """Return a page of the photos that pass the filters."""
    values = request.query_params
    found, rows = _listed(served, values, values.getlist("filter"))
    offset, count = paging(values, 100)
    return Json(
        {
            "total": len(rows),
            "photos": [found.facts(row) for row in rows[offset : offset + count].tolist()],
        }
    )


@router.get("/api/browse", openapi_extra=in_address(*FILTERS, order=ORDERS))
def browse(request: Request, served: Served) -> Response:
    """Return all photos that pass the filters as columns, for a grid; width by height, and where months start."""
    values = request.query_params
    found, rows = _listed(served, values, values.getlist("filter"))
    aspect = found.columns["width"][rows] / np.maximum(found.columns["height"][rows], 1)
    return Json(
        {
            "total": len(rows),
            "ids": [found.ids[row] for row in rows.tolist()],
            "aspect": np.round(aspect, 3).tolist(),
            "months": _sections(found, rows, _order(values)),
        }
    )


@router.get("/api/map")
def map_of_photos(served: ServedIndexes) -> Response:
    """Return where each photo lies on the map, as columns; 202 with a job if the map has to be made first."""
    found = served.maps.get()
    if isinstance(found, Job):
        return Json(found.values(), HTTPStatus.ACCEPTED)
    return Json(found)


@router.get("/api/photos/{photo}")
def facts(photo: str, served: Served) -> Response:
    """Return what the index knows of a photo."""
    found = served.library.find(photo)
    more = {"format": str(found.column("format")), "sha256": str(found.column("sha256"))}
    name = found.path.rpartition("/")[2]
    return Json({**found.photos.facts(found.row), **more, "name": name, "folder": folder_of(found.path)})


@router.get("/api/photos/{photo}/thumbnail", openapi_extra=in_address("size"))
async def thumbnail(photo: str, request: Request, served: Served) -> Response:
    """Return a photo as WebP, with 160, 320 or 640 pixels on the longer side."""
    side = _side(request.query_params)
    found = await in_pool(served.decoding, lambda: served.library.find(photo))
    tag = f'"{found.column("sha256")[:32]}-{side}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=300"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    key = f"{photo}{tag}"
    picture = await in_pool(served.decoding, lambda: served.pictures.get(key, lambda: _made(served, found, side)))
    return Response(picture, headers=headers, media_type="image/webp")


@router.get("/api/photos/{photo}/original")
async def original(photo: str, request: Request, served: Served) -> Response:
    """Return the file of a photo, or a range of it: only if it is a picture still."""
    found = await in_pool(served.decoding, lambda: served.library.find(photo))
    file = await in_pool(served.decoding, lambda: served.originals.open(found))
    return sent(file, found, request.headers)


@router.post("/api/photos/{photo}/reveal")
def reveal(photo: str, served: Served) -> Response:
    """Show a photo in the file manager of the machine that serves it, if nobody else can connect."""
    if served.file_manager is None:
        raise Problem(HTTPStatus.FORBIDDEN, NO_FILE_MANAGER)
    served.file_manager.reveal(served.library.find(photo))
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get("/api/counts", openapi_extra=in_address(*FILTERS))
def count(request: Request, served: Served) -> Response:
    """Return how many photos pass the filters, and would with another folder, year, size or orientation."""
    values = request.query_params
    return Json(counts(served.library, own_filters(values.getlist("filter")), named_filters(values)))


def _listed(served: Service, values: Texts, given: list[str]) -> tuple[Photos, NDArray[np.int64]]:
    """Return the photos, and the rows of those that pass the filters, in order."""
    found, mask = served.library.photos(rules(filter_texts(values, given)))
    return found, found.ordered(_order(values), mask)


def _order(values: Texts) -> str:
    order = values.get("order") or "path"
    if order not in ORDERS:
        raise bad_request(f"order={order!r} is not one of {', '.join(ORDERS)}.")
    return order


def _sections(found: Photos, rows: NDArray[np.int64], order: str) -> list[dict[str, object]]:
    """Return where each month, or each folder, begins among the rows."""
    if order == "taken":
        labels = found.columns["taken"][rows].astype("datetime64[M]").astype(str).tolist()
    else:
        labels = [found.folder_names[place] for place in found.folders[rows].tolist()]
    starts = [(label, next(places)[0]) for label, places in groupby(enumerate(labels), key=lambda each: each[1])]
    return [{"label": "" if label == "NaT" else label, "start": start} for label, start in starts]


def _side(values: Texts) -> int:
    text = values.get("size", "320")
    if text not in map(str, SERVE.thumbnail_sides):
        raise bad_request(f"size={text!r} is not one of {', '.join(map(str, SERVE.thumbnail_sides))}.")
    return int(text)


def _made(served: Service, found: Located, side: int) -> bytes:
    return as_webp(small(served.library.decoders(), Source(found.path, found.root), side))
