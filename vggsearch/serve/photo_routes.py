"""Photos over HTTP: what the index knows of them, thumbnails, and the files themselves."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from http import HTTPStatus
from itertools import groupby
from typing import TypeVar

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from PIL import Image
from starlette.responses import FileResponse, Response

from vggsearch import __version__
from vggsearch.defaults import SERVE
from vggsearch.errors import ImageError
from vggsearch.photos.decoder_pool import Decoders, Source
from vggsearch.photos.walk import printable
from vggsearch.query.options import rules
from vggsearch.query.snapshot import folder_of
from vggsearch.render.info import info_values
from vggsearch.serve.answers import Json, Problem, bad_request
from vggsearch.serve.described import FILTERS, PAGE, in_address
from vggsearch.serve.jobs import Job
from vggsearch.serve.library import Located, Photos
from vggsearch.serve.parameters import Texts, filter_texts, paging
from vggsearch.serve.service import Served, Service
from vggsearch.serve.thumbnails import as_webp

Made = TypeVar("Made")
router = APIRouter()
ORDERS = ("path", "taken")
# Of the formats that browsers show. Anything else is a download; none of them can hold a script.
MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "HEIF": "image/heic",
}
DOWNLOAD = "application/octet-stream"


@router.get("/api/state")
def state(served: Served) -> Response:
    """Return what is served: the indexes, the number of photos, skipped files, and what a client may do."""
    library = served.library
    skipped = [file for index in library.indexes for file in index.skipped()]
    return Json(
        {
            "version": __version__,
            "indexes": list(library.names),
            "photos": len(library.photos()[0]),
            "info": [info_values(index.info()) for index in library.indexes],
            "skipped": [
                {"path": file.path, "reason": file.reason, "kind": file.kind}
                for file in skipped[: SERVE.most_listed]
            ],
            "skipped_count": len(skipped),
            "can_change": served.access.can_change,
            "actions": served.removals.actions,
        }
    )


@router.get("/api/photos", openapi_extra=in_address(*PAGE, *FILTERS, order=ORDERS))
def photos(request: Request, served: Served) -> Response:
    """Return a page of the photos that pass the filters, and the folders that they are in."""
    values = request.query_params
    found, rows, mask = _listed(served, values, request.query_params.getlist("filter"))
    offset, count = paging(values, 100)
    return Json(
        {
            "total": len(rows),
            "folders": found.folder_counts(mask),
            "photos": [found.facts(row) for row in rows[offset : offset + count].tolist()],
        }
    )


@router.get("/api/browse", openapi_extra=in_address(*FILTERS, order=ORDERS))
def browse(request: Request, served: Served) -> Response:
    """Return all photos that pass the filters as columns, for a grid; width by height, and where months start."""
    values = request.query_params
    found, rows, _ = _listed(served, values, request.query_params.getlist("filter"))
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
def map_of_photos(served: Served) -> Response:
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
def original(photo: str, request: Request, served: Served) -> Response:
    """Return the file of a photo, or a range of it: only if it is a picture still."""
    if "," in request.headers.get("range", ""):
        raise Problem(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "Ask for one range at a time.")
    found = served.library.find(photo)
    media_type = MEDIA_TYPES.get(str(found.column("format")), DOWNLOAD)
    try:
        file = found.file()
        served.check_picture(found, file)
    except ImageError as error:
        raise Problem(HTTPStatus.NOT_FOUND, str(error)) from error
    return FileResponse(
        file,
        media_type=media_type,
        filename=printable(found.path.rpartition("/")[2]),
        content_disposition_type="attachment" if media_type == DOWNLOAD else "inline",
        headers={"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private, no-cache"},
    )


def _listed(
    served: Service, values: Texts, given: list[str]
) -> tuple[Photos, NDArray[np.int64], NDArray[np.bool_] | None]:
    """Return the photos, the rows that are listed in order, and the mask of those that pass the filters."""
    found, mask = served.library.photos(rules(filter_texts(values, given)))
    return found, found.ordered(_order(values), mask), mask


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


def small(decoders: Decoders, source: Source, side: int) -> Image.Image:
    """Return a picture as upright RGB with at most `side` pixels on the longer side. Raises ImageError."""
    image = decoders.picture(source, side, of_longer=True)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


async def in_pool(pool: Executor | None, work: Callable[[], Made]) -> Made:
    """Return what a function returns that blocks, run in a pool of threads; None is that of the event loop."""
    return await asyncio.get_running_loop().run_in_executor(pool, work)
