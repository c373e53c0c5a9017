"""Jobs over HTTP: updates, progress as server-sent events, and how to stop one."""

from http import HTTPStatus

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from vggsearch.progress import OnProgress, Stop
from vggsearch.render.update import update_line
from vggsearch.serve.answers import Json
from vggsearch.serve.duplicate_routes import json_body, optional_text
from vggsearch.serve.jobs import Values, events
from vggsearch.serve.service import Served

router = APIRouter()


@router.post("/api/update")
async def update(request: Request, served: Served) -> Response:
    """Update an index, as `vggsearch index` does; return the job."""
    position = served.library.position(optional_text(await json_body(request), "index"))
    index = served.library.indexes[position]

    def work(progress: OnProgress, stop: Stop) -> Values:
        report = index.update(progress=progress, stop=stop)
        return {
            "line": update_line(report, index.directory),
            "photos": report.photos,
            "indexed": report.indexed,
            "skipped": [{"path": each.path, "reason": each.reason} for each in report.newly_skipped[:100]],
        }

    return Json(served.jobs.start("update", work).values(), HTTPStatus.ACCEPTED)


@router.get("/api/jobs/{name}")
def follow(name: str, request: Request, served: Served) -> Response:
    """Return the progress of a job as server-sent events, or its present state to a client that wants JSON."""
    job = served.jobs.find(name)
    if "text/event-stream" not in request.headers.get("accept", ""):
        return Json(job.values())
    return StreamingResponse(events(job), media_type="text/event-stream")


@router.delete("/api/jobs/{name}")
def stop(name: str, served: Served) -> Response:
    """Ask a job to stop; what it has finished is kept."""
    job = served.jobs.find(name)
    job.stop()
    return Json(job.values(), HTTPStatus.ACCEPTED)
