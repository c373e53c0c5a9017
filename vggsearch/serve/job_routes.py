"""Jobs over HTTP: updates, progress as server-sent events, and how to stop one."""

from http import HTTPStatus
from itertools import islice
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from vggsearch.defaults import SERVE
from vggsearch.indexing.update import UpdateReport
from vggsearch.render.update import update_line
from vggsearch.serve.answers import Json
from vggsearch.serve.bodies import json_body, optional_text
from vggsearch.serve.described import TEXT, in_json
from vggsearch.serve.jobs import Values
from vggsearch.serve.service import ServedIndexes

router = APIRouter()


@router.post("/api/update", openapi_extra=in_json(index=TEXT))
async def update(request: Request, served: ServedIndexes) -> Response:
    """Update an index, as `vggsearch index` does; return the job."""
    position = served.library.position(optional_text(await json_body(request), "index"))
    index = served.library.indexes[position]
    job = served.jobs.start(
        "update",
        lambda progress, stop: index.update(progress=progress, stop=stop),
        lambda report: _described(report, index.directory),
    )
    return Json(job.values(), HTTPStatus.ACCEPTED)


def _described(report: UpdateReport, directory: Path) -> Values:
    skipped = [
        {"path": each.path, "reason": each.reason} for each in islice(report.newly_skipped, SERVE.most_listed)
    ]
    return {
        "line": update_line(report, directory),
        "photos": report.photos,
        "indexed": report.indexed,
        "skipped": skipped,
    }


@router.get("/api/jobs/{name}")
def follow(name: str, request: Request, served: ServedIndexes) -> Response:
    """Return the progress of a job as server-sent events, or its present state to a client that wants JSON."""
    job = served.jobs.find(name)
    if "text/event-stream" not in request.headers.get("accept", ""):
        return Json(job.values())
    return StreamingResponse(served.jobs.events(job), media_type="text/event-stream")


@router.delete("/api/jobs/{name}")
def stop(name: str, served: ServedIndexes) -> Response:
    """Ask a job to stop; what it has finished is kept."""
    job = served.jobs.find(name)
    job.stop()
    return Json(job.values(), HTTPStatus.ACCEPTED)
