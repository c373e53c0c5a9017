"""Groups as the page's script reads them, file names made safe to show, to link to and to paste into a shell."""

from datetime import datetime

from vggsearch.duplicates.results import Group, Member, Photo
from vggsearch.errors import shell_word
from vggsearch.photos.walk import one_line
from vggsearch.render.duplicates import freed_bytes, member_edit
from vggsearch.render.html.files import address


def group_values(group: Group, link: str) -> dict[str, object]:
    """Return a group for JSON. `link` is the URL of the photo folder, relative to the page."""
    return {
        "number": group.number,
        "frees": freed_bytes(group),
        "similarity": group.lowest_similarity,
        "confidence": min(member.confidence for member in group.members),
        "photos": [_photo_values(group.keeper, link), *(_member_values(member, link) for member in group.members)],
    }


def _photo_values(photo: Photo, link: str) -> dict[str, object]:
    return {
        "path": one_line(photo.path),
        "word": shell_word(photo.path),
        "link": f"{link}/{address(photo.path)}",
        "width": photo.width,
        "height": photo.height,
        "size": "RAW" if photo.is_raw else f"{photo.width} \u00d7 {photo.height}",
        "bytes": photo.bytes,
        "format": photo.format,
        "taken": photo.taken.isoformat(sep=" ", timespec="seconds") if photo.taken else None,
        "changed": _date(photo.mtime_ns),
    }


def _member_values(member: Member, link: str) -> dict[str, object]:
    values = _photo_values(member.photo, link) | {
        "kind": member.kind,
        "similarity": member.similarity,
        "confidence": member.confidence,
        "how": member_edit(member),
        "reason": one_line(member.reason),
        "leftAlone": one_line(member.left_alone) if member.left_alone else None,
    }
    if member.alignment is not None:
        values["corners"] = [[round(x, 4), round(y, 4)] for x, y in member.alignment.corners]
        values["alignedIn"] = member.aligned_in
    return values


def _date(mtime_ns: int) -> str:
    """Return when a file was modified, local time; "" for an impossible date."""
    try:
        return f"{datetime.fromtimestamp(mtime_ns / 1e9):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, OSError, ValueError):
        return ""
