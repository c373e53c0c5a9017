"""Hash what a photo shows, to tell whether two files show the same picture."""

import hashlib
from typing import BinaryIO

import numpy as np
from PIL import Image

from vggsearch.defaults import IMAGE
from vggsearch.photos.decode import later_frames, load_image
from vggsearch.photos.raw_formats import RAW_FORMAT
from vggsearch.photos.upright import stored_strips, to_rgb


def pixel_hash(file: BinaryIO, name: str = "", memory: int | None = None) -> str:
    """Return the sha256 of all that an open file shows: sizes, pixels and durations of all frames, once upright.

    Transparency counts, but not the colour of what is fully transparent. Deep greyscale is hashed as it is. What
    cannot be compared in full has the hash of its bytes: RAW files, colours of more than 8 bits, of which Pillow
    drops some, and animations of more than IMAGE.most_frames frames. To be called in a decoder process. Raises what
    decode.load_image raises.
    """
    loaded = load_image(file, name, memory=memory)
    digest = hashlib.sha256()
    if loaded.is_reduced or loaded.format == RAW_FORMAT:
        return _hash_of_bytes(file)
    _add(digest, loaded.image, loaded.orientation)
    for number, frame in enumerate(later_frames(loaded, memory), start=2):
        if number > IMAGE.most_frames:
            return _hash_of_bytes(file)
        _add(digest, frame, loaded.orientation)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", frame: Image.Image, orientation: int) -> None:
    duration = round(float(frame.info.get("duration", 0)))  # milliseconds
    size = frame.size[::-1] if orientation >= 5 else frame.size
    digest.update(f"{size} {duration}".encode())
    for _, strip in stored_strips(frame, orientation):
        digest.update(_shown(strip))


def _shown(strip: Image.Image) -> bytes:
    """Return the pixels that are shown, preceded by their kind."""
    if strip.mode.startswith("I;16") or strip.mode in ("I", "F"):
        return b"deep" + np.asarray(strip).astype(np.float64).tobytes()
    if strip.has_transparency_data:
        pixels = np.array(strip.convert("RGBA"))
        alpha = pixels[..., 3]
        if (alpha < 255).any():
            pixels[alpha == 0] = 0
            return b"transparent" + pixels.tobytes()
    return b"opaque" + to_rgb(strip).tobytes()


def _hash_of_bytes(file: BinaryIO) -> str:
    file.seek(0)
    return "bytes " + hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
