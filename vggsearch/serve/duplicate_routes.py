"""Duplicates over HTTP: the groups, and decisions about them."""

from http import HTTPStatus

from fastapi import APIRouter, Request
from starlette.responses import Response

from vggsearch.serve.answers import Json, bad_request
from vggsearch.serve.bodies import json_body, texts
from vggsearch.serve.described import FILTERS, PAGE, TEXT, TEXTS, WHOLE, in_address, in_json
from vggsearch.serve.jobs import Job
from vggsearch.serve.parameters import filter_texts
from vggsearch.serve.reports import ORDERS
from vggsearch.serve.service import IndexService, ServedIndexes, in_pool
from vggsearch.store.decisions import JUDGEMENTS, MOST_PHOTOS, Judgement, add_decisions, decide

router = APIRouter()
OPTIONS = (
    "index",
    "min_precision",
    "threshold",
    "keep",
    "min_size",
    "within_folder",
    "across_folders",
    "siblings",
    "similar",
    "confirm",
    "kind",
    "photo",
)
NUMBERS = {"type": "array", "items": WHOLE, "description": "The numbers of the groups; all without it."}


@router.get("/api/duplicates", openapi_extra=in_address(*OPTIONS, *FILTERS, *PAGE, order=tuple(ORDERS)))
def duplicates(request: Request, served: ServedIndexes) -> Response:
    """Return a page of the groups of duplicates; 202 with a job if they have to be found first."""
    values = request.query_params
    filters = filter_texts(values, values.getlist("filter"))
    found = served.reports.get(values, values.getlist("kind"), filters)
    if isinstance(found, Job):
        return Json(found.values(), HTTPStatus.ACCEPTED)
    return Json(served.reports.values(found, values))


@router.post("/api/decisions", openapi_extra=in_json(decision={"enum": list(JUDGEMENTS)}, photos=TEXTS))
async def decide_about(request: Request, served: ServedIndexes) -> Response:
    """Record a decision about photos of one index, as `vggsearch dups decide` does."""
    body = await json_body(request)
    judgement, ids = body.get("decision"), texts(body, "photos")
    if judgement not in JUDGEMENTS:
        raise bad_request(f"decision is one of {', '.join(JUDGEMENTS)}.")
    return Json({"decision": judgement, "photos": await in_pool(None, lambda: _decide(served, judgement, ids))})


def _decide(served: IndexService, judgement: Judgement, ids: list[str]) -> int:
    """Record a decision; return about how many photos it is. Raises Problem."""
    found = [served.library.find(each) for each in dict.fromkeys(ids)]
    least = 1 if judgement in ("keep", "undecided") else 2
    if not least <= len(found) <= MOST_PHOTOS:
        raise bad_request(f"This decision is about {least:,} to {MOST_PHOTOS:,} photos.")
    index, *others = {served.library.index_of(each).directory: None for each in found}
    if others:
        raise bad_request("A decision is about photos of one index.")
    made = decide(judgement, [(str(each.column("sha256")), each.path) for each in found])
    add_decisions(index, [made])
    return len(found)


@router.post("/api/removals", openapi_extra=in_json(report=TEXT, action=TEXT, groups=NUMBERS))
async def plan(request: Request, served: ServedIndexes) -> Response:
    """Plan what to do with the duplicates of a report, or of some of its groups. Changes nothing."""
    body = await json_body(request)
    report, action, numbers = body.get("report"), body.get("action"), body.get("groups")
    if not isinstance(report, str) or not isinstance(action, str):
        raise bad_request("report and action are texts.")
    if numbers is not None and not (isinstance(numbers, list) and all(type(each) is int for each in numbers)):
        raise bad_request("groups is a list of numbers.")
    return Json(await in_pool(None, lambda: served.removals.plan(report, action, numbers)), HTTPStatus.CREATED)


@router.post("/api/removals/{name}/apply")
def apply(name: str, served: ServedIndexes) -> Response:
    """Carry out a plan, as `vggsearch dups remove --yes` does; return the job."""
    return Json(served.removals.apply(name).values(), HTTPStatus.ACCEPTED)


@router.get("/api/journals")
def journals(served: ServedIndexes) -> Response:
    """Return the journals of earlier removals, the latest first."""
    return Json({"journals": served.removals.journals()})


@router.post("/api/journals/{name}/undo", openapi_extra=in_address("index"))
def undo(name: str, request: Request, served: ServedIndexes) -> Response:
    """Undo a removal, as `vggsearch dups undo` does; return the job."""
    return Json(served.removals.undo(name, request.query_params.get("index")).values(), HTTPStatus.ACCEPTED)
