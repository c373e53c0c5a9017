"""Alignment by keypoints, on real photos that scikit-image ships."""

import io
import math

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from skimage import data
from threadpoolctl import threadpool_info, threadpool_limits

from vggsearch.matching.alignment import inverted
from vggsearch.matching.keypoints import (
    Keypoints,
    align,
    detect_keypoints,
    mirrored_keypoints,
)
from vggsearch.matching.threads import single_threaded
from vggsearch.system.threads import single_threaded_blas


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return sample("chelsea")


@pytest.fixture(scope="module")
def cat(photo: Image.Image) -> Keypoints:
    return detect_keypoints(photo)


def sample(name: str) -> Image.Image:
    return Image.fromarray(getattr(data, name)())


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def test_blas_has_one_thread_until_the_last_that_needs_it_is_done() -> None:
    def threads() -> int:
        return max(int(each["num_threads"]) for each in threadpool_info() if each["user_api"] == "blas")

    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        first, second = single_threaded_blas(), single_threaded_blas()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == 1
        second.__exit__(None, None, None)
        assert threads() == before


def test_opencv_and_blas_have_one_thread_while_photos_are_compared() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        with single_threaded():
            assert cv2.getNumThreads() == 1
            with pytest.raises(ValueError, match="stop"), single_threaded():
                raise ValueError("stop")
            assert cv2.getNumThreads() == 1
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_a_photo_is_found_in_itself_as_a_whole(cat: Keypoints) -> None:
    found = align(cat, cat)
    assert found is not None
    assert not found.mirrored
    assert found.inliers >= 40  # of 64 fields
    assert found.scale == pytest.approx(1, abs=0.01)
    assert found.turned == pytest.approx(0, abs=0.1)
    assert [(round(x, 2), round(y, 2)) for x, y in found.corners] == [(0, 0), (1, 0), (1, 1), (0, 1)]


@pytest.mark.parametrize(
    ("edit", "mirrored_", "turned"),
    [
        (lambda photo: photo.resize((photo.width // 3, photo.height // 3)), False, 0),
        (lambda photo: photo.transpose(Image.Transpose.ROTATE_90), False, 90),
        (lambda photo: photo.transpose(Image.Transpose.ROTATE_180), False, 180),
        (lambda photo: ImageOps.mirror(photo), True, 0),
        (lambda photo: ImageOps.mirror(photo).rotate(90, expand=True), True, 90),
        (lambda photo: jpeg(photo, 10), False, 0),
        (lambda photo: ImageEnhance.Brightness(photo).enhance(0.5), False, 0),
        (lambda photo: photo.rotate(7), False, 7),
    ],
)
def test_an_edited_copy_is_found_with_the_edit_reported(
    photo: Image.Image, cat: Keypoints, edit: object, mirrored_: bool, turned: int
) -> None:
    assert callable(edit)
    found = align(cat, detect_keypoints(edit(photo)))
    assert found is not None
    assert found.inliers >= 20
    assert found.mirrored is mirrored_
    assert math.cos(math.radians(found.turned - turned)) > math.cos(math.radians(2))


def test_a_crop_is_located_and_the_alignment_inverts(photo: Image.Image, cat: Keypoints) -> None:
    left, top, right, bottom = 120, 60, 330, 220
    crop = photo.crop((left, top, right, bottom))
    found = align(detect_keypoints(crop), cat)
    assert found is not None
    width, height = photo.size
    expected = [(left, top), (right, top), (right, bottom), (left, bottom)]
    for (x, y), (real_x, real_y) in zip(found.corners, expected, strict=True):
        assert (x * width, y * height) == pytest.approx((real_x, real_y), abs=4)
    assert found.scale**2 == pytest.approx(210 * 160 / (width * height), rel=0.1)
    back = inverted(found)
    assert back.scale == pytest.approx(1 / found.scale)
    for (x, y), (real_x, real_y) in zip(
        back.corners, [(0, 0), (width, 0), (width, height), (0, height)], strict=True
    ):
        assert (left + x * 210, top + y * 160) == pytest.approx((real_x, real_y), abs=12)


def test_inverting_a_mirrored_alignment_gives_the_alignment_of_the_swapped_images(
    photo: Image.Image, cat: Keypoints
) -> None:
    other = detect_keypoints(ImageOps.mirror(photo).rotate(90, expand=True))
    there, back = align(cat, other), align(other, cat)
    assert there is not None
    assert back is not None
    turned = inverted(there)
    assert turned.mirrored
    assert back.mirrored
    assert math.cos(math.radians(turned.turned - back.turned)) > 0.999
    for one, two in zip(turned.corners, back.corners, strict=True):
        assert one == pytest.approx(two, abs=0.02)


def test_mirrored_keypoints_are_those_of_the_mirror_image(photo: Image.Image, cat: Keypoints) -> None:
    found = align(mirrored_keypoints(cat), detect_keypoints(ImageOps.mirror(photo)))
    assert found is not None
    assert not found.mirrored
    assert found.inliers >= 40


@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket"])
def test_other_photos_do_not_align(cat: Keypoints, name: str) -> None:
    found = align(cat, detect_keypoints(sample(name)))
    assert found is None or found.inliers < 10


def test_photos_that_only_share_a_strip_do_not_align(photo: Image.Image) -> None:
    other = sample("coffee").resize(photo.size)
    strip = sample("rocket").resize((photo.width, photo.height // 6))
    with_strip = []
    for picture in (photo, other):
        captioned = picture.copy()
        captioned.paste(strip, (0, round(photo.height * 0.8)))
        with_strip.append(detect_keypoints(captioned))
    assert align(*with_strip) is None


def test_a_transform_to_a_single_point_is_rejected() -> None:
    points = np.array([(x, y) for x in range(20, 380, 40) for y in range(20, 280, 40)], np.float32)
    descriptors = np.random.default_rng(0).integers(0, 256, (len(points), 128), dtype=np.uint8)
    spread = Keypoints(points, np.ones_like(points), descriptors, 384, 288, np.zeros((288, 384), np.uint8))
    point = Keypoints(
        np.float32(200) + points / np.float32(100), np.ones_like(points), descriptors, 384, 288, spread.picture
    )
    assert align(spread, spread) is not None
    assert align(spread, point) is None
    assert align(point, spread) is None


def test_a_blank_image_has_no_keypoints_and_does_not_align(cat: Keypoints) -> None:
    blank = detect_keypoints(Image.new("RGB", (400, 300), "grey"))
    assert blank.points.shape == (0, 2)
    assert align(blank, cat) is None
    assert align(cat, blank) is None
