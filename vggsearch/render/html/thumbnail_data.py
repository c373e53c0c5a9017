"""The thumbnails of a group, as they are embedded in the page."""

from pathlib import Path

from vggsearch.duplicates.results import Group
from vggsearch.errors import ImageError
from vggsearch.photos.decoder_pool import Decoders, Source
from vggsearch.photos.thumbnails import thumbnail, webp_base64
from vggsearch.photos.walk import one_line

Shown = str | int | dict[str, str]


def thumbnail_values(group: Group, root: Path, decoders: Decoders) -> list[Shown]:
    """Return what to show for the keeper and for each member: a WebP in base64, or why there is none.

    A thumbnail identical to an earlier one of the group is the position of that one: exact copies cost nothing.
    """
    shown: list[Shown] = []
    known: dict[str, int] = {}
    for photo in (group.keeper, *(member.photo for member in group.members)):
        try:
            picture = webp_base64(thumbnail(decoders, Source(photo.path, root)))
        except ImageError as error:
            shown.append({"reason": one_line(error.reason)})
            continue
        if picture in known:
            shown.append(known[picture])
        else:
            known[picture] = len(shown)
            shown.append(picture)
    return shown
