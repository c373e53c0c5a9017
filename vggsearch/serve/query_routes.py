"""Searches over HTTP."""

import asyncio

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from vggsearch.defaults import SERVE
from vggsearch.image_index import decoders_of
from vggsearch.serve.answers import Json, bad_request, not_found
from vggsearch.serve.described import PAGE, SEARCH, in_address, in_form
from vggsearch.serve.parameters import Texts, filter_texts, flag, number, whole
from vggsearch.serve.photo_routes import in_pool, small
from vggsearch.serve.queries import Picture, Query, Upload, Values
from vggsearch.serve.search import Wish
from vggsearch.serve.service import Served, Service
from vggsearch.serve.thumbnails import as_webp

router = APIRouter()
MOST_FIELDS = 200
SHOWN_SIDE = 1024  # pixels of the longer side of a query's picture


@router.post("/api/query", openapi_extra=in_form(*SEARCH, "minus", "minus_photo", "crop", *PAGE))
async def query(request: Request, served: Served) -> Response:
    """Find the photos most similar to pictures (`image`, `photo`), minus others (`minus`, `minus_photo`)."""
    async with request.form(max_files=SERVE.upload_files, max_fields=MOST_FIELDS) as form:
        asked = Query(
            (*await _uploads(form, "image"), *_texts(form, "photo")),
            (*await _uploads(form, "minus"), *_texts(form, "minus_photo")),
            _values(form),
            filter_texts(_values(form), _texts(form, "filter")),
        )
    return Json(await _answer(served, asked, asked.values))


@router.get("/api/query/{name}", openapi_extra=in_address(*PAGE))
async def query_again(name: str, request: Request, served: Served) -> Response:
    """Repeat a query, for a link to it or for another part of its result."""
    return Json(await _answer(served, served.queries.remembered.find(name), request.query_params, name))


@router.get("/api/query/{name}/image", openapi_extra=in_address("number"))
async def query_image(name: str, request: Request, served: Served) -> Response:
    """Return one of the pictures of a query as WebP: by its position, from 0."""
    known = served.queries.remembered.find(name)
    images = (*known.images, *known.minus)
    place = whole(request.query_params, "number", 0)
    if place >= len(images):
        raise not_found("The query has no such picture.")

    def make() -> bytes:
        source = served.queries.source(images[place])
        return as_webp(small(decoders_of(served.library.indexes[0]), source, SHOWN_SIDE))

    picture = await in_pool(served.decoding, lambda: served.pictures.get(f"query {name} {place}", make))
    return Response(picture, headers={"Cache-Control": "private, max-age=3600"}, media_type="image/webp")


@router.post("/api/query/batch", openapi_extra=in_form(*SEARCH, "count"))
async def query_batch(request: Request, served: Served) -> Response:
    """Search for each picture by itself (`image`, `photo`), with the same options."""
    async with request.form(max_files=SERVE.batch_files, max_fields=MOST_FIELDS) as form:
        pictures: list[Picture] = [*await _uploads(form, "image"), *_texts(form, "photo")]
        values, filters = _values(form), filter_texts(_values(form), _texts(form, "filter"))
    wish = Wish(
        whole(values, "count", 10, 1, SERVE.most_listed),
        number(values, "min_similarity", None),
        flag(values, "rerank", default=True),
        containing=flag(values, "containing", default=False),
        filters=filters,
        exclude_same_folder=flag(values, "exclude_same_folder", default=False),
    )
    if not 0 < len(pictures) <= SERVE.batch_files:
        raise bad_request(f"A batch has 1 to {SERVE.batch_files} pictures.")
    images = await in_pool(None, lambda: [served.queries.image(each) for each in pictures])
    futures = [served.searches.submit([image], wish) for image in images]
    found = await asyncio.gather(*map(asyncio.wrap_future, futures))
    return Json(await in_pool(None, lambda: served.queries.batch_answer(found)))


async def _answer(served: Service, query: Query, values: Texts, name: str | None = None) -> Values:
    """Search, and remember the query under an id unless it has one."""
    asked = await in_pool(None, lambda: served.queries.asked(query, values))
    found = await asyncio.wrap_future(served.searches.submit(asked.images, asked.wish))
    known = served.queries.remembered.add(query) if name is None else name
    return await in_pool(None, lambda: served.queries.answer(known, query, asked, found))


def _values(form: FormData) -> dict[str, str]:
    return {name: value for name, value in form.items() if isinstance(value, str)}


def _texts(form: FormData, name: str) -> list[str]:
    return [value for value in form.getlist(name) if isinstance(value, str) and value]


async def _uploads(form: FormData, name: str) -> list[Upload]:
    """Return the files that were sent under a name. Raises Problem for one that is empty or too large."""
    return [await _upload(value) for value in form.getlist(name) if isinstance(value, UploadFile)]


async def _upload(file: UploadFile) -> Upload:
    data = await file.read(SERVE.upload_bytes + 1)
    if not data:
        raise bad_request("A picture that was sent is empty.")
    if len(data) > SERVE.upload_bytes:
        raise bad_request(f"A picture that was sent has more than {SERVE.upload_bytes >> 20} MB.")
    return Upload(data)
