"""The bodies of requests: JSON objects, and forms with pictures."""

import json
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from vggsearch.defaults import SERVE
from vggsearch.serve.answers import bad_request
from vggsearch.serve.queries import Picture, Upload

MOST_JSON = 1 << 20  # bytes of a request in JSON: 1,000 ids and more


async def json_body(request: Request) -> dict[str, Any]:
    """Return the body of a request, a JSON object. Raises Problem."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise bad_request("Send JSON, as Content-Type: application/json.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_JSON:
            raise bad_request(f"The request has more than {MOST_JSON >> 20} MB.")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise bad_request("The request is no valid JSON.") from None
    if not isinstance(found, dict):
        raise bad_request("The request is no JSON object.")
    return found


def texts(body: dict[str, Any], name: str) -> list[str]:
    """Return a member of a body that is a list of texts. Raises Problem."""
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise bad_request(f"{name} is a list of texts.")
    return value


def optional_text(body: dict[str, Any], name: str) -> str | None:
    """Return a member of a body that is a text, None if it is not there. Raises Problem."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_request(f"{name} is a text.")
    return value


def form_values(form: FormData) -> dict[str, str]:
    """Return the fields of a form that are texts; of several with one name, the last."""
    return {name: value for name, value in form.items() if isinstance(value, str)}


def form_texts(form: FormData, name: str) -> list[str]:
    """Return the texts of a form with a name, without empty ones."""
    return [value for value in form.getlist(name) if isinstance(value, str) and value]


async def pictures(form: FormData, files: str, ids: str) -> tuple[Picture, ...]:
    """Return the files that were sent under one name, and the photos whose ids were sent under another one.

    Raises Problem for a file that is empty or too large.
    """
    uploads = [await _upload(value) for value in form.getlist(files) if isinstance(value, UploadFile)]
    return (*uploads, *form_texts(form, ids))


async def _upload(file: UploadFile) -> Upload:
    data = await file.read(SERVE.upload_bytes + 1)
    if not data:
        raise bad_request("A picture that was sent is empty.")
    if len(data) > SERVE.upload_bytes:
        raise bad_request(f"A picture that was sent has more than {SERVE.upload_bytes >> 20} MB.")
    return Upload(data)
