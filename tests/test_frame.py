"""The picture inside a frame."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.helpers.textures import scene
from vggsearch.photos.edits import screenshot
from vggsearch.photos.frame import inside_frame


def box_of(image: Image.Image) -> tuple[float, ...] | None:
    found = inside_frame(np.asarray(image.convert("L")))
    return found if found is None else tuple(edge * side for edge, side in zip(found, image.size * 2, strict=True))


@pytest.mark.parametrize("colour", ["white", "black", "grey"])
def test_a_border_is_left_out(colour: str) -> None:
    assert box_of(ImageOps.expand(scene(1, (300, 200)), 30, colour)) == pytest.approx((30, 30, 330, 230), abs=2)


def test_a_photo_is_found_on_the_screen_of_a_phone() -> None:
    screen = screenshot(scene(1, (300, 200)))
    top = (screen.height - 200) // 2
    assert box_of(screen) == pytest.approx((0, top, 300, top + 200), abs=2)


def test_a_photo_without_a_frame_and_a_plain_picture_have_none() -> None:
    assert box_of(scene(1, (300, 200))) is None
    assert box_of(Image.new("RGB", (300, 200), "white")) is None
    assert box_of(Image.new("RGB", (1, 1))) is None
