"""The thumbnails of a group, as they are embedded in the page."""

import io
from base64 import b64encode
from pathlib import Path

from PIL import Image

from vggsearch.defaults import THUMBNAILS
from vggsearch.duplicates.results import Group
from vggsearch.errors import ImageError
from vggsearch.photos.thumbnails import thumbnail
from vggsearch.render.text import one_line

Shown = str | int | dict[str, str]


def thumbnail_values(group: Group, root: Path) -> list[Shown]:
    """Return what to show for the keeper and for each member: a WebP in base64, or why there is none.

    A thumbnail identical to an earlier one of the group is the position of that one: exact copies cost nothing.
    """
    shown: list[Shown] = []
    known: dict[str, int] = {}
    for photo in (group.keeper, *(member.photo for member in group.members)):
        try:
            picture = _encoded(thumbnail(root, photo.path))
        except ImageError as error:
            shown.append({"reason": one_line(error.reason)})
            continue
        if picture in known:
            shown.append(known[picture])
        else:
            known[picture] = len(shown)
            shown.append(picture)
    return shown


def _encoded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=THUMBNAILS.quality, method=THUMBNAILS.effort)
    return b64encode(file.getvalue()).decode()
