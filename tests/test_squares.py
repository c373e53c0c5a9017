"""Photos to squares on a device: the kernels in Triton's interpreter against Pillow, and what needs no kernels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.fakes import picture
from tests.helpers.interpreted_squares import interpreted
from tests.helpers.jpegs import grainy, reduced
from vggsearch.defaults import RESIZES
from vggsearch.model.torch_engine import square_plan
from vggsearch.model.torch_engine.squares import TorchSquares, are_blank, square_maker
from vggsearch.photos.decode import UPRIGHT
from vggsearch.photos.resize import PAD_COLOUR, is_blank, square

SMALL = 32  # pixels a side of squares that the interpreter makes
SIZES = [(70, 50), (50, 71), (32, 32), (33, 100), (140, 131), (64, 260), (330, 65), (33, 400)]
PHOTOS = [(size, 1) for size in SIZES] + [((50, 71), turn) for turn in range(2, 9)] + [((301, 260), 7)]


@pytest.mark.parametrize("resize", RESIZES)
def test_the_kernels_make_pillows_squares(resize: str, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="there is no Triton for this system")
    images = [grainy(picture(number, size)) for number, (size, _) in enumerate(PHOTOS)]
    photos = [torch.from_numpy(np.array(image)) for image in images]
    planes = [photo.permute(2, 0, 1).contiguous().permute(1, 2, 0) for photo in photos]
    either = [pair[number % 2] for number, pair in enumerate(zip(photos, planes, strict=True))]
    found = interpreted(either, [turn for _, turn in PHOTOS], SMALL, resize, tmp_path).numpy()
    for ours, image, (size, turn) in zip(found, images, PHOTOS, strict=True):
        stored = reduced(image, SMALL)
        upright = stored.transpose(UPRIGHT[turn]) if turn in UPRIGHT else stored
        difference = np.abs(ours.astype(int) - square(upright, SMALL, resize))
        assert difference.max() <= 1, (size, turn)
        assert difference.mean() < 0.002, (size, turn)


def test_every_resize_mode_has_the_functions_of_its_name() -> None:
    assert [f"_{name}" for name in RESIZES] == [plan.__name__ for plan in square_plan.RESIZE_BY_NAME.values()]


def test_without_a_gpu_torch_makes_the_squares() -> None:
    assert isinstance(square_maker(torch.device("cpu"), SMALL, "squash"), TorchSquares)


def noise(deviation: float, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    values = np.random.default_rng(seed).normal(100, deviation, (SMALL, SMALL, 3))
    return values.round().clip(0, 255).astype(np.uint8)


def test_the_same_squares_are_blank_as_on_the_cpu() -> None:
    squares = [noise(deviation, seed) for seed, deviation in enumerate(np.linspace(2.8, 3.2, 40))]
    squares += [np.full((SMALL, SMALL, 3), value, np.uint8) for value in (0, 255)]
    squares += [square(image, SMALL, "pad") for image in (picture(1, (90, 20)), Image.new("RGB", (20, 90), "red"))]
    squares += [square(picture(1, (3000, 20)), SMALL, "pad"), np.full((SMALL, SMALL, 3), PAD_COLOUR, np.uint8)]
    squares += [np.where(noise(9, 1) > 100, PAD_COLOUR, pixels).astype(np.uint8) for pixels in squares[:4]]
    one_channel = np.full((SMALL, SMALL, 3), 50, np.uint8)
    one_channel[::4, :, 1] = 90
    squares.append(one_channel)
    expected = [is_blank(pixels) for pixels in squares]
    assert are_blank(torch.from_numpy(np.stack(squares))).tolist() == expected
    assert {False, True} == set(expected[:40])


def test_no_squares_are_no_flags() -> None:
    assert are_blank(torch.empty(0, SMALL, SMALL, 3, dtype=torch.uint8)).shape == (0,)
