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


def boxed(video: bytes, *, is_large: bool = False) -> bytes:
    """Return a box of a motion photo, with a size of 64 bits if `is_large`."""
    if is_large:
        return b"\0\0\0\1mpvd" + (16 + len(video)).to_bytes(8, "big") + video
    return (8 + len(video)).to_bytes(4, "big") + b"mpvd" + video


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (jpeg(XMP) + VIDEO, True),
        (jpeg() + VIDEO + b"SEFT", True),
        (jpeg(XMP), False),
        (jpeg(), False),
        (jpeg() + b"SEFT", False),
        (heic() + boxed(VIDEO), True),
        (heic() + boxed(b"")[:7], False),
        (heic() + b"\0\0\0\0free" + boxed(VIDEO), False),
        (heic(), False),
        (b"", False),
    ],
    ids=[
        "XMP",
        "Samsung",
        "video dropped",
        "JPEG",
        "Samsung without",
        "HEIC with",
        "HEIC cut short",
        "box to the end",
        "HEIC",
        "empty",
    ],
)
def test_a_video_is_found_behind_the_picture(content: bytes, expected: bool) -> None:
    assert holds_video(io.BytesIO(content)) is expected


@pytest.mark.parametrize("moved", range(14))
def test_a_video_is_found_across_blocks(moved: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion_photo, "BLOCK_BYTES", 4096)
    start = jpeg(XMP)
    padding = bytes(-(len(start) + moved) % 4096)
    assert holds_video(io.BytesIO(start + padding + VIDEO))


def test_a_heic_file_of_large_or_hostile_boxes_is_read_to_its_end_at_most() -> None:
    large = boxed(bytes(100), is_large=True).replace(b"mpvd", b"free")
    assert holds_video(io.BytesIO(heic() + large + boxed(VIDEO)))
    assert not holds_video(io.BytesIO(heic() + b"\0\0\0\10free" * 1000 + boxed(VIDEO)))
    assert not holds_video(io.BytesIO(heic() + b"\xff\xff\xff\xfffree"))
