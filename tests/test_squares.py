"""Photos to squares on a device: the kernels in Triton's interpreter against Pillow, and what needs no kernels."""

import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.fakes import picture
from tests.helpers.interpreted_squares import interpreted
from tests.helpers.jpegs import encoded, grainy, reduced
from vggsearch.defaults import RESIZES
from vggsearch.model.torch_engine import square_plan
from vggsearch.model.torch_engine.squares import TorchSquares, are_blank, square_maker
from vggsearch.photos.resize import PAD_COLOUR, is_blank, square
from vggsearch.photos.upright import UPRIGHT

Planes: TypeAlias = NDArray[np.float64]

TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
SMALL = 32  # pixels a side of squares that the interpreter makes
SIZES = [(70, 50), (50, 71), (32, 32), (33, 100), (140, 131), (64, 260), (330, 65), (33, 400)]
PHOTOS = [(size, 1) for size in SIZES] + [((50, 71), turn) for turn in range(2, 9)] + [((301, 260), 7)]


@pytest.mark.slow
@pytest.mark.parametrize("resize", RESIZES)
def test_the_kernels_make_pillows_squares(resize: str, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="there is no Triton for this system")
    images = [grainy(picture(number, size)) for number, (size, _) in enumerate(PHOTOS)]
    photos = [torch.from_numpy(np.array(image)) for image in images]
    planes = [photo.permute(2, 0, 1).contiguous().permute(1, 2, 0) for photo in photos]
    either = [pair[number % 2] for number, pair in enumerate(zip(photos, planes, strict=True))]
    turns, samplings = [turn for _, turn in PHOTOS], [0x11] * len(PHOTOS)
    found = interpreted(either, turns, samplings, SMALL, resize, tmp_path).numpy()
    for ours, image, (size, turn) in zip(found, images, PHOTOS, strict=True):
        stored = reduced(image, SMALL)
        upright = stored.transpose(UPRIGHT[turn]) if turn in UPRIGHT else stored
        difference = np.abs(ours.astype(int) - square(upright, SMALL, resize))
        assert difference.max() <= 1, (size, turn)
        assert difference.mean() < 0.002, (size, turn)


def ycbcr(red_green_blue: NDArray[np.uint8]) -> Planes:
    planes: Planes = np.rint(red_green_blue @ TO_YCBCR.T + [0, 128, 128])
    return planes


def rgb(planes: Planes) -> NDArray[np.uint8]:
    return np.rint((planes - [0, 128, 128]) @ np.linalg.inv(TO_YCBCR).T).clip(0, 255).astype(np.uint8)


def halved(planes: Planes, rows: int) -> Planes:
    """The chroma of a picture whose sides are even, of which `rows` x 2 pixels have the same."""
    height, width, _ = planes.shape
    chroma: Planes = planes[..., 1:].reshape(height // rows, rows, width // 2, 2, 2).mean(axis=(1, 3)).round()
    return chroma


def repeated(chroma: Planes, rows: int) -> Planes:
    return chroma.repeat(rows, axis=0).repeat(2, axis=1)


def interpolated(chroma: Planes, rows: int) -> Planes:
    """The chroma as libjpeg interpolates it: three quarters of the nearest, one of the next, across and down."""
    padded = np.pad(chroma, ((1, 1), (1, 1), (0, 0)), "edge")
    if rows == 2:
        down = np.stack([3 * padded[1:-1] + padded[:-2], 3 * padded[1:-1] + padded[2:]], axis=1)
        padded = down.reshape(-1, *padded.shape[1:])
    else:
        padded = padded[1:-1]
    across = np.stack([3 * padded[:, 1:-1] + padded[:, :-2], 3 * padded[:, 1:-1] + padded[:, 2:]], axis=2)
    sums = across.reshape(len(padded), -1, 2)
    halves = np.resize([8, 7] if rows == 2 else [1, 2], sums.shape[1])[:, None]
    result: Planes = np.floor((sums + halves) / (16 if rows == 2 else 4))
    return result


def of_two_colours(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture with chroma that changes in places, as at the edges of things, with some of it clipped."""
    noise = np.random.default_rng(1).integers(0, 2, (size[1] // 4 + 1, size[0] // 4 + 1, 1), np.uint8)
    colours = np.where(noise, np.array([250, 90, 40], np.uint8), np.array([20, 140, 220], np.uint8))
    return colours.repeat(4, axis=0).repeat(4, axis=1)[: size[1], : size[0]]


@pytest.mark.parametrize(("rows", "subsampling"), [(1, 1), (2, 2)])
def test_libjpeg_interpolates_so(rows: int, subsampling: int) -> None:
    pixels = of_two_colours((64, 48))
    planes = ycbcr(pixels)
    file = encoded(Image.fromarray(pixels), quality=100, subsampling=subsampling)
    decoded = np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int)

    def difference(chroma: Planes) -> float:
        return float(np.abs(rgb(np.concatenate([planes[..., :1], chroma], axis=2)) - decoded).mean())

    chroma = halved(planes, rows)
    assert difference(interpolated(chroma, rows)) < 1.2
    assert difference(repeated(chroma, rows)) > 3


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "sampling"), [(1, 0x21), (2, 0x22)])
def test_the_kernels_interpolate_repeated_chroma(rows: int, sampling: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="there is no Triton for this system")
    planes = ycbcr(of_two_colours((48, 48)))
    chroma = halved(planes, rows)
    pixels, wanted = (
        rgb(np.concatenate([planes[..., :1], made(chroma, rows)], axis=2)) for made in (repeated, interpolated)
    )
    photos = [torch.from_numpy(photo.copy()) for photo in (pixels, pixels[:47, :47], pixels)]
    found = interpreted(photos, [1, 1, 1], [sampling, sampling, 0x11], 40, "squash", tmp_path).numpy().astype(int)
    whole, cut, plain = (square(Image.fromarray(each), 40, "squash") for each in (wanted, wanted[:47, :47], pixels))
    assert np.abs(plain.astype(int) - whole).mean() > 2, "interpolation must make a difference for this to tell"
    assert np.abs(found[0] - whole).mean() < 0.3
    assert np.abs(found[1] - cut)[:-1, :-1].mean() < 0.3
    assert np.abs(found[2] - plain).max() <= 1


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
