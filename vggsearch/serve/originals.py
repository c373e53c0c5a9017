"""The files of photos as they are: opened once, checked, and sent from the same descriptor, whole or in part."""

import os
import re
from collections.abc import Iterator
from email.utils import formatdate
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse

from vggsearch.defaults import SERVE
from vggsearch.errors import ImageError
from vggsearch.matching.recent import Recent
from vggsearch.photos.decoder_pool import Source
from vggsearch.photos.sources import open_original
from vggsearch.photos.walk import printable
from vggsearch.serve.answers import Problem, not_found
from vggsearch.serve.library import Library, Located

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
CHUNK = 256 << 10  # bytes that are read at once


class Originals:
    """Opens the files of photos, and remembers which of them were pictures."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._checked = Recent[bool](SERVE.checked_files)

    def open(self, photo: Located) -> BinaryIO:
        """Open the file of a photo. Raises Problem unless it is a picture below its photo folder.

        Whatever an index lists, or has become of a photo, nothing else is sent.
        """
        try:
            file = open_original(photo.root, photo.path)
        except (ImageError, OSError) as error:
            raise not_found(f"{photo.path}: {error}") from error
        try:
            self._check(photo, file)
        except BaseException:
            file.close()
            raise
        return file

    def _check(self, photo: Located, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        key = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        if self._checked.get(key):
            return
        try:
            self._library.decoders().size(Source(photo.path, data=file.read()))
        except ImageError as error:
            raise not_found(f"{photo.path}: {error}") from error
        self._checked.put(key, True)


def sent(file: BinaryIO, photo: Located, asked: Headers) -> Response:
    """Return the response with an open file, or with the range of it that is asked for. Raises Problem.

    The file is closed in any case, at the end of the response.
    """
    status = os.fstat(file.fileno())
    tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    media_type = MEDIA_TYPES.get(str(photo.column("format")), DOWNLOAD)
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": _disposition("attachment" if media_type == DOWNLOAD else "inline", photo.path),
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "ETag": tag,
        "Last-Modified": formatdate(status.st_mtime, usegmt=True),
    }
    if asked.get("if-none-match") == tag:
        file.close()
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    wanted = asked.get("range") if asked.get("if-range", tag) == tag else None
    try:
        first, end = (0, status.st_size) if wanted is None else _range(wanted, status.st_size)
    except Problem:
        file.close()
        raise
    headers["Content-Length"] = str(end - first)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{status.st_size}"
    code = HTTPStatus.OK if wanted is None else HTTPStatus.PARTIAL_CONTENT
    return StreamingResponse(_chunks(file, first, end), code, headers, media_type)


def _range(text: str, size: int) -> tuple[int, int]:
    """Return the first byte of a range and the one after it. Raises Problem for any but one range in the file."""
    found = re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", text.strip(), re.ASCII)
    first, last = found.groups() if found is not None else ("", "")
    if first:
        begin, end = int(first), min(int(last) + 1, size) if last else size
    else:
        begin, end = size - min(int(last or 0), size), size
    if begin >= end:
        problem = Problem(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "Ask for one range, inside the file.")
        problem.headers["Content-Range"] = f"bytes */{size}"
        raise problem
    return begin, end


def _chunks(file: BinaryIO, first: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(first)
        left = end - first
        while left and (chunk := file.read(min(left, CHUNK))):
            left -= len(chunk)
            yield chunk


def _disposition(kind: str, path: str) -> str:
    """Return a Content-Disposition header (RFC 6266) with the name of a file, which may hold anything."""
    name = printable(path.rpartition("/")[2])
    return f"{kind}; filename*=UTF-8''{quote(name, safe='')}"
