"""When and by which camera a photo was taken, as EXIF records it."""

from datetime import datetime, timedelta
from typing import Literal, NamedTuple, TypeAlias

TimeKind: TypeAlias = Literal["fraction", "second", "saved"]

FRACTION: TimeKind = "fraction"  # DateTimeOriginal with SubSecTimeOriginal
SECOND: TimeKind = "second"  # DateTimeOriginal alone
SAVED: TimeKind = "saved"  # DateTime alone: when a program wrote the file
LONGEST_TEXT = 64  # characters of a name or number of a camera


class Capture(NamedTuple):
    """When and by which camera a photo was taken.

    `taken` is the local time of the camera, None if not recorded, to the millisecond if `kind` is FRACTION and to
    the second otherwise; `kind` is None without a time. `camera` is maker and model, `serial` the serial number of
    the camera's body, each None if not recorded.
    """

    taken: datetime | None = None
    kind: TimeKind | None = None
    camera: str | None = None
    serial: str | None = None


def capture(
    original: datetime | None,
    fraction: object,
    saved: datetime | None,
    make: object,
    model: object,
    serial: object,
) -> Capture:
    """Return what the values of EXIF tags say: the times, and whatever the other tags hold, None if absent.

    `fraction` is SubSecTimeOriginal: the decimals of the second of `original`.
    """
    camera = camera_name(_text(make), _text(model))
    if original is None:
        return Capture(saved, None if saved is None else SAVED, camera, _text(serial))
    decimals = _text(fraction) or ""
    if not (decimals.isascii() and decimals.isdigit()):
        return Capture(original, SECOND, camera, _text(serial))
    taken = original + timedelta(milliseconds=int(decimals[:3].ljust(3, "0")))
    return Capture(taken, FRACTION, camera, _text(serial))


def parsed_time(text: object) -> datetime | None:
    """Return the time of a text such as 2019:05:04 03:02:01, None if there is no such time."""
    try:
        return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S") if text else None
    except ValueError:
        return None


def camera_name(make: str | None, model: str | None) -> str | None:
    """Return maker and model, the maker once: most models of Canon and Nikon begin with it."""
    if make is None or model is None:
        return model  # many programs and cameras share a maker
    maker = make.split()[0]
    return model if model.casefold().startswith(maker.casefold()) else f"{make} {model}"


def _text(value: object) -> str | None:
    """Return a text up to its first zero byte, without control characters or repeated spaces; None if empty."""
    if not isinstance(value, str):
        return None
    words = "".join(each if each.isprintable() else " " for each in value.partition("\0")[0]).split()
    return " ".join(words)[:LONGEST_TEXT].strip() or None
