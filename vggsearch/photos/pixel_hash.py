"""Hash what a photo shows, to tell whether two files show the same picture."""

import hashlib
from typing import BinaryIO

from vggsearch.photos.decode import load_image, upright_strips


def pixel_hash(file: BinaryIO, name: str = "", memory: int | None = None) -> str:
    """Return the sha256 of the size and all pixels of the upright picture in an open file.

    To be called in a decoder process. Raises what decode.load_image raises.
    """
    loaded = load_image(file, name, memory=memory)
    digest = hashlib.sha256(str(loaded.upright_size).encode())
    for _, strip in upright_strips(loaded.image, loaded.orientation):
        digest.update(strip.tobytes())
    return digest.hexdigest()
