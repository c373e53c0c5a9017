"""Comparisons over HTTP: why a photo is similar to a picture."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from vggsearch.serve.answers import Json, bad_request
from vggsearch.serve.compare import Picture, aligned, compare, values
from vggsearch.serve.described import in_address
from vggsearch.serve.library import Located
from vggsearch.serve.parameters import Texts, in_pixels, region
from vggsearch.serve.service import IndexService, ServedIndexes, in_pool
from vggsearch.serve.thumbnails import as_webp

router = APIRouter()


@router.get("/api/compare", openapi_extra=in_address("photo", "query", "other"))
async def compare_with(request: Request, served: ServedIndexes) -> Response:
    """Compare a photo (`photo`), or the picture of a query (`query`), with the photo `other`."""
    picture, other = await in_pool(None, lambda: _pair(served, request.query_params))
    compared = await in_pool(served.comparing, lambda: compare(served.library, picture, other))
    return Json(await in_pool(served.comparing, lambda: values(compared, other.path)))


@router.get("/api/compare/aligned", openapi_extra=in_address("photo", "query", "other"))
async def align_with(request: Request, served: ServedIndexes) -> Response:
    """Return the picture moved onto the photo `other`, in its size, as WebP; transparent outside."""
    picture, other = await in_pool(None, lambda: _pair(served, request.query_params))
    image = await in_pool(served.comparing, lambda: as_webp(aligned(served.library, picture, other)))
    return Response(image, media_type="image/webp")


def _pair(served: IndexService, given: Texts) -> tuple[Picture, Located]:
    """Return the picture and the photo that a request names. Raises Problem."""
    if ("photo" in given) == ("query" in given) or "other" not in given:
        raise bad_request("Name the photo other, and either photo or query to compare it with.")
    other = served.library.find(given["other"])
    if "photo" in given:
        return Picture(served.queries.source(given["photo"])), other
    query = served.queries.remembered.find(given["query"])
    first, crop = query.images[0], region(query.values)
    box = in_pixels(crop, served.queries.size(first)) if crop is not None else None
    return Picture(served.queries.source(first), box), other
