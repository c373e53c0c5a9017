"""Photos with a video in the same file."""

import io

import pillow_heif
import pytest

from tests.fakes import picture
from vggsearch.photos import motion_photo
from vggsearch.photos.motion_photo import holds_video

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description Camera:MotionPhoto="1"/></x:xmpmeta>'
VIDEO = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00isommp42" + bytes(5000)


def jpeg(xmp: bytes = b"") -> bytes:
    file = io.BytesIO()
    picture(0, (320, 240)).save(file, "JPEG", xmp=xmp)
    return file.getvalue()


def heic() -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(picture(0, (320, 240))).save(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (jpeg(XMP) + VIDEO, True),
        (jpeg() + VIDEO + b"SEFT", True),
        (jpeg(XMP), False),
        (jpeg(), False),
        (jpeg() + b"SEFT", False),
        (heic() + VIDEO, True),
        (heic(), False),
        (b"", False),
    ],
    ids=["XMP", "Samsung", "video dropped", "JPEG", "Samsung without", "HEIC with", "HEIC", "empty"],
)
def test_a_video_is_found_behind_the_picture(content: bytes, expected: bool) -> None:
    assert holds_video(io.BytesIO(content)) is expected


@pytest.mark.parametrize("moved", range(14))
def test_a_video_is_found_across_blocks(moved: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion_photo, "BLOCK_BYTES", 4096)
    start = jpeg(XMP)
    padding = bytes(-(len(start) - motion_photo.LONGEST_START + moved) % 4096)
    assert holds_video(io.BytesIO(start + padding + VIDEO))
