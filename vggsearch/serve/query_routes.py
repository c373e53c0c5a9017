"""Searches over HTTP."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from vggsearch.defaults import SERVE
from vggsearch.serve.answers import Json, bad_request, not_found
from vggsearch.serve.bodies import form_texts, form_values, pictures
from vggsearch.serve.described import PAGE, SEARCH, in_address, in_form
from vggsearch.serve.jobs import Values
from vggsearch.serve.parameters import Texts, filter_texts, whole
from vggsearch.serve.queries import Query
from vggsearch.serve.service import Served, Service, in_pool
from vggsearch.serve.thumbnails import as_webp, small

router = APIRouter()
MOST_FIELDS = 200
SHOWN_SIDE = 1024  # pixels of the longer side of a query's picture


@router.post("/api/query", openapi_extra=in_form(*SEARCH, "minus", "minus_photo", "crop", *PAGE))
async def query(request: Request, served: Served) -> Response:
    """Find the photos most similar to pictures (`image`, `photo`), minus others (`minus`, `minus_photo`)."""
    async with request.form(max_files=SERVE.upload_files, max_fields=MOST_FIELDS) as form:
        values = form_values(form)
        asked = Query(
            await pictures(form, "image", "photo"),
            await pictures(form, "minus", "minus_photo"),
            values,
            filter_texts(values, form_texts(form, "filter")),
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
        return as_webp(small(served.library.query_decoders(), source, SHOWN_SIDE))

    picture = await in_pool(served.decoding, lambda: served.pictures.get(f"query {name} {place}", make))
    return Response(picture, headers={"Cache-Control": "private, max-age=3600"}, media_type="image/webp")


@router.post("/api/query/batch", openapi_extra=in_form(*SEARCH, "count"))
async def query_batch(request: Request, served: Served) -> Response:
    """Search for each picture by itself (`image`, `photo`), with the same options."""
    async with request.form(max_files=SERVE.batch_files, max_fields=MOST_FIELDS) as form:
        sent, values = await pictures(form, "image", "photo"), form_values(form)
        filters = filter_texts(values, form_texts(form, "filter"))
    options = served.queries.options(values, filters, whole(values, "count", 10, 1, SERVE.most_listed))
    if not 0 < len(sent) <= SERVE.batch_files:
        raise bad_request(f"A batch has 1 to {SERVE.batch_files} pictures.")
    images = await in_pool(None, lambda: [served.queries.image(each) for each in sent])
    futures = [served.searches.submit([image], options) for image in images]
    found = await asyncio.gather(*map(asyncio.wrap_future, futures))
    return Json(await in_pool(None, lambda: served.queries.batch_answer(found)))


async def _answer(served: Service, query: Query, values: Texts, name: str | None = None) -> Values:
    """Search, and remember the query under an id unless it has one."""
    asked = await in_pool(None, lambda: served.queries.asked(query, values))
    found = await asyncio.wrap_future(served.searches.submit(asked.images, asked.options))
    known = served.queries.remembered.add(query) if name is None else name
    return await in_pool(None, lambda: served.queries.answer(known, query, asked, found))
