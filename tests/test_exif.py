"""The reader of EXIF against Pillow, on well-formed and on damaged blocks."""

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from tests.helpers.examples import examples
from vggsearch.photos import exif
from vggsearch.photos.capture import FRACTION, LONGEST_TEXT, SAVED, SECOND, Capture
from vggsearch.photos.decode import capture_of, orientation_of

Base, IFD = ExifTags.Base, ExifTags.IFD
TAKEN, CHANGED = "2019:05:04 03:02:01", "2020:12:31 23:59:59"


def block(order: str = "<", camera: dict[int, object] | None = None, **values: object) -> bytes:
    """A block with these values by the names of their tags, and `camera` in the directory of the camera."""
    made = Image.Exif()
    made.endian = order
    for name, value in values.items():
        made[Base[name]] = value
    if camera is not None:
        made.get_ifd(IFD.Exif).update(camera)
    return made.tobytes()


def as_by_a_camera(order: str) -> bytes:
    camera: dict[int, object] = {
        Base.ExposureTime: 0.004,
        Base.ISOSpeedRatings: 100,
        Base.DateTimeOriginal: TAKEN,
        Base.SubsecTimeOriginal: "07",
        Base.BodySerialNumber: "2083014",
        Base.MakerNote: b"note" * 100,
        Base.UserComment: b"comment" * 20,
        Base.FocalLength: 50.0,
    }
    return block(
        order, camera, Make="Canon\0", Model="Canon EOS 80D", Orientation=6, XResolution=72.0, DateTime=CHANGED
    )


USUAL = {
    "a camera's": as_by_a_camera("<"),
    "a camera's, big-endian": as_by_a_camera(">"),
    "saved by a program": block(DateTime=CHANGED, Software="a program"),
    "no such orientation": block(Orientation=9),
    "no such time": block(">", {Base.DateTimeOriginal: "2019:02:30 00:00:00"}, Orientation=3),
    "zeros for a time": block(DateTime="0000:00:00 00:00:00"),
    "nothing of interest": block(ImageDescription="Canon"),
    "only a maker": block(Make="Canon"),
    "odd texts": block(
        camera={Base.SubsecTimeOriginal: "\xb2", Base.DateTimeOriginal: TAKEN}, Make=" \x85", Model="\0b"
    ),
    "a long fraction": block(camera={Base.SubsecTimeOriginal: "123456 ", Base.DateTimeOriginal: TAKEN}),
    "long names": block(Make="maker " * 20, Model="model\n" * 20),
}
UNUSUAL = {
    "no header": b"Exif\0\0",
    "not TIFF": b"Exif\0\0" + b"noise" * 9,
    "cut short": USUAL["a camera's"][:-4],
    "twice the name": b"Exif\0\0" + USUAL["a camera's"],
    "a time without seconds": block(DateTime="2019:05:04 03:02"),
    "a short time": block(DateTime="no"),
    "a time of spaces": block(DateTime=" " * 19),
    "an orientation that is a text": block(Orientation=6).replace(b"\x12\1\3\0", b"\x12\1\2\0"),
    "a model that is no text": block(Model="longer").replace(b"\x10\1\2\0", b"\x10\1\7\0"),
    "two orientations": block(Orientation=6, ImageWidth=1).replace(b"\0\1\4\0", b"\x12\1\3\0"),
}


def by_pillow(data: bytes) -> tuple[int, Capture]:
    image = Image.Image()
    image.info = {"exif": data}
    found = capture_of(image)
    return orientation_of(image), found


def ours(data: bytes) -> tuple[int, Capture]:
    orientation, found = exif.orientation_and_capture(data)
    return exif.valid(orientation), found


@pytest.mark.parametrize("data", USUAL.values(), ids=USUAL)
def test_usual_blocks_say_what_pillow_says(data: bytes) -> None:
    assert ours(data) == by_pillow(data)


def test_the_time_of_the_camera_comes_first() -> None:
    for name in ("a camera's", "a camera's, big-endian"):
        taken = datetime(2019, 5, 4, 3, 2, 1, 70_000)
        assert ours(USUAL[name]) == (6, Capture(taken, FRACTION, "Canon EOS 80D", "2083014"))
    assert ours(USUAL["saved by a program"]) == (1, Capture(datetime(2020, 12, 31, 23, 59, 59), SAVED))


def test_texts_of_cameras_are_made_plain() -> None:
    assert ours(USUAL["only a maker"])[1] == Capture()
    assert ours(USUAL["odd texts"])[1] == Capture(datetime(2019, 5, 4, 3, 2, 1), SECOND)
    assert ours(USUAL["a long fraction"])[1] == Capture(datetime(2019, 5, 4, 3, 2, 1, 123_000), FRACTION)
    camera = ours(USUAL["long names"])[1].camera
    assert camera is not None
    assert camera.split() == camera.split(" ")
    assert len(camera) <= 2 * LONGEST_TEXT + 1


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_blocks_are_left_to_pillow(data: bytes) -> None:
    with pytest.raises(exif.NotUsualError):
        exif.orientation_and_capture(data)


@settings(max_examples=examples(2000))
@given(
    st.sampled_from([*USUAL.values(), *UNUSUAL.values()]),
    st.lists(st.tuples(st.integers(6, 900), st.integers(0, 255)), max_size=4),
    st.integers(0, 900),
)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of malformed blocks
def test_a_damaged_block_says_what_pillow_says_or_is_left_to_it(
    data: bytes, damage: list[tuple[int, int]], kept: int
) -> None:
    damaged = bytearray(data)
    for place, byte in damage if len(data) > 6 else []:
        damaged[6 + place % (len(data) - 6)] = byte
    cut = bytes(damaged if kept > 450 else damaged[: max(6, kept * 2)])
    try:
        found = ours(cut)
    except exif.NotUsualError:
        return
    assert found == by_pillow(cut)
