"""The perceptual hash: near for edited copies, exact in all eight orientations, far for other photos."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from vggsearch.photos.perceptual_hash import (
    BITS,
    BYTES,
    NO_HASH,
    ORIENTATIONS,
    differing_bits,
    fewest_differing_bits,
    in_all_orientations,
    perceptual_hash,
)
from vggsearch.photos.resize import RESIZE_BY_NAME, square

SIDE = 192
TRANSPOSITIONS = [None, *Image.Transpose]


def scene(seed: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """Return a picture with shapes of all sizes, as varied as a photo."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).resize(size)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, width, height = (random.random(4) * (*size, size[0] / 3, size[1] / 3)).tolist()
        draw.ellipse((x, y, x + width, y + height), tuple(random.integers(0, 256, 3).tolist()))
    return image


def hash_of(image: Image.Image, side: int = SIDE, resize: str = "squash") -> NDArray[np.uint8]:
    return as_array(perceptual_hash(square(image, side, resize)))


def as_array(*hashes: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), BYTES)


def test_the_bits_in_which_two_hashes_differ_are_counted_in_the_nearest_orientation() -> None:
    photo, turned = scene(3), scene(3).transpose(Image.Transpose.TRANSVERSE)
    one, other = (perceptual_hash(square(image, SIDE, "squash")) for image in (photo, turned))
    assert differing_bits(one, other) == distances(as_array(one), as_array(other)).min() <= 6
    assert differing_bits(one, one) == 0


def distances(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the number of bits in which hashes differ, in each orientation of the first."""
    return np.asarray(np.bitwise_count(in_all_orientations(one)[:, 0] ^ other[0]).sum(axis=1), np.int64)


@pytest.mark.parametrize("transposition", TRANSPOSITIONS)
@pytest.mark.parametrize("resize", RESIZE_BY_NAME)
def test_a_copy_in_any_orientation_has_nearly_the_same_hash_in_one(
    transposition: Image.Transpose | None, resize: str
) -> None:
    photo = scene(3)
    turned = photo if transposition is None else photo.transpose(transposition)
    assert distances(hash_of(photo, resize=resize), hash_of(turned, resize=resize)).min() <= 6


def test_each_orientation_gives_another_hash_and_the_hash_of_a_turned_square_exactly() -> None:
    pixels = np.asarray(scene(5).resize((SIDE, SIDE)))
    found = in_all_orientations(as_array(perceptual_hash(pixels)))[:, 0]
    transposed = pixels.transpose(1, 0, 2)
    views = [view[::down, ::across] for view in (pixels, transposed) for down in (1, -1) for across in (1, -1)]
    assert found.shape == (ORIENTATIONS, BYTES)
    assert len({each.tobytes() for each in found}) == ORIENTATIONS
    # The sums of a DCT are rounded in another order, which changes the sign of a coefficient next to zero at most.
    assert np.bitwise_count(found ^ as_array(*map(perceptual_hash, views))).sum() <= 4


@pytest.mark.parametrize("side", [32, 64, 100, 192, 224])
def test_pictures_of_every_size_can_be_hashed(side: int) -> None:
    assert np.bitwise_count(hash_of(scene(4), side) ^ hash_of(scene(4), SIDE)).sum() <= (20 if side < 64 else 6)


def test_edited_copies_are_near_and_other_pictures_far() -> None:
    photo, file = scene(6), io.BytesIO()
    photo.resize((160, 120)).save(file, "JPEG", quality=30)
    small = Image.open(file)
    bright = ImageEnhance.Brightness(photo).enhance(1.3)
    for copy in (small, bright, photo.convert("L").convert("RGB")):
        assert distances(hash_of(photo), hash_of(copy))[0] <= 40
    others = [distances(hash_of(photo), hash_of(scene(seed))).min() for seed in range(7, 27)]
    assert min(others) > 64


def test_plain_pictures_have_no_hash_as_they_would_all_be_alike() -> None:
    gradient = np.tile(np.linspace(0, 255, SIDE).astype(np.uint8)[:, None, None], (1, SIDE, 3))
    plain = np.full((SIDE, SIDE, 3), 200, np.uint8)
    photo = square(scene(1), SIDE, "squash")
    assert perceptual_hash(gradient) == perceptual_hash(plain) == NO_HASH
    assert perceptual_hash(photo) != NO_HASH


def test_the_fewest_bits_to_many_hashes_are_those_of_each_pair() -> None:
    generator = np.random.default_rng(1)
    queries, hashes = (generator.integers(0, 256, (count, BYTES), np.uint8) for count in (2, 9))
    hashes[4] = 0  # none
    expected = [min(differing_bits(query.tobytes(), each.tobytes()) for query in queries) for each in hashes]
    found = fewest_differing_bits(queries, hashes).tolist()
    assert found == [BITS // 2 if row == 4 else each for row, each in enumerate(expected)]
    turned = in_all_orientations(hashes[:1])[3]
    assert fewest_differing_bits(turned, hashes)[0] == 0
