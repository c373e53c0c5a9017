"""What two aligned pictures show: a copy and its original, or two shots, or two pages of one form."""

import io
import random
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps
from skimage import data

from vggsearch.matching.alignment import EVIDENCE_OF_PIXELS, Alignment
from vggsearch.matching.difference import Difference, looks
from vggsearch.matching.keypoints import align, detect_keypoints
from vggsearch.matching.pixels import (
    BLURRED,
    EXCHANGED,
    LARGEST_SHIFT,
    SURELY_DISPLACED,
    agrees,
    align_copy,
    shows_other_content,
)
from vggsearch.photos.edits import COLLAGE, EDITS, captioned, edited

WORDS = ("lorem ipsum dolor", "sit amet", "consectetur elit", "sed eiusmod", "tempor magna", "aliqua enim minim")


def sample(name: str) -> Image.Image:
    return Image.fromarray(getattr(data, name)())


def form(page: int) -> Image.Image:
    """One page of a form: the printed part is the same on every page, the entries are not."""
    image = Image.new("RGB", (620, 860), "white")
    draw = ImageDraw.Draw(image)
    draw.text((40, 20), "MUNICIPAL WATER BOARD - FORM 27b", "black", ImageFont.load_default(28))
    for row in range(10):
        top = 80 + 76 * row
        draw.rectangle((30, top, 590, top + 60), outline="black", width=2)
        draw.text((40, top + 4), f"{row + 1}. {WORDS[row % 6]}", "black", ImageFont.load_default(18))
        entry = f"{WORDS[(row * 5 + page * 7) % 6]} {(row + 3) * 7919 * (page + 2) % 9973}"
        draw.text((230, top + 26), entry, (20, 20, 120), ImageFont.load_default(22))
    return image


def plot(page: int) -> Image.Image:
    """One of several plots with the same axes and title: only the curve is another."""
    image = Image.new("RGB", (700, 500), "white")
    draw = ImageDraw.Draw(image)
    draw.text((180, 8), "Training run, validation accuracy", "black", ImageFont.load_default(22))
    draw.rectangle((60, 45, 680, 450), outline="black", width=2)
    for tick in range(11):
        draw.text((52 + 62 * tick, 458), str(tick * 10), "black", ImageFont.load_default(20))
        draw.text((24, 440 - 40 * tick), str(tick), "black", ImageFont.load_default(20))
    heights = 440 - (150 + 90 * page) * (1 - np.exp(-np.arange(120) / (8 + 6 * page)))
    draw.line([(62 + 5.1 * x, float(y)) for x, y in enumerate(heights)], (30, 90, 200), 4)
    return image


def shot(photo: Image.Image, seed: int, shift: float = 0.0) -> Image.Image:
    """One shot of a scene: with its own noise, and with parts displaced by up to `shift` pixels."""
    values = np.random.default_rng(seed)
    pixels = np.asarray(photo)
    height, width = pixels.shape[:2]
    depth = cv2.GaussianBlur(np.random.default_rng(9).normal(size=(height, width)).astype(np.float32), (0, 0), 18)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    moved = cv2.remap(pixels, x + depth / np.abs(depth).max() * shift, y, cv2.INTER_CUBIC)
    return Image.fromarray(np.clip(moved + values.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8))


def saved(image: Image.Image, quality: int = 88) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def matches(first: Image.Image, second: Image.Image) -> bool:
    return align_copy(detect_keypoints(first), detect_keypoints(second)) is not None


@pytest.mark.parametrize("name", [name for name in EDITS if name != COLLAGE])
def test_edited_copies_of_a_photo_match_it(name: str) -> None:
    photo = sample("chelsea")
    assert matches(photo, Image.open(io.BytesIO(edited(photo, EDITS[name], name))))


@pytest.mark.parametrize("name", ["half", "jpeg30", "crop50", "grey", "border", "turn90"])
def test_edited_copies_of_a_form_match_it(name: str) -> None:
    page = form(1)
    assert matches(page, Image.open(io.BytesIO(edited(page, EDITS[name], name))))


def test_a_small_copy_of_a_thing_on_white_matches_it_though_it_differs_in_places() -> None:
    thing = Image.new("RGB", (104, 100), "white")
    thing.paste(sample("chelsea").crop((130, 60, 330, 260)).resize((76, 76)), (14, 12))
    copy = saved(thing.resize((52, 50)), 60)
    found = differing(thing, copy)
    assert found.one_tone > 0.35
    assert found.places
    assert matches(thing, copy)


@pytest.mark.parametrize("quality", [95, 75])
def test_two_pages_of_one_form_do_not_match(quality: int) -> None:
    first, second = form(1), saved(form(2), quality)
    assert align(detect_keypoints(first), detect_keypoints(second)) is not None
    assert not matches(first, second)
    assert not matches(second.resize((310, 430)), first)


def test_two_plots_with_the_same_axes_do_not_match() -> None:
    first, second = plot(1), saved(plot(2))
    assert align(detect_keypoints(first), detect_keypoints(second)) is not None
    assert not matches(first, second)
    assert matches(first, saved(plot(1).resize((350, 250)), 50))


def test_a_stamp_on_a_clean_page_is_other_content_and_on_a_photo_is_not() -> None:
    page, photo = form(1), sample("chelsea")
    for picture in (page, photo):
        stamped = picture.copy()
        draw = ImageDraw.Draw(stamped)
        draw.ellipse((250, 90, 400, 240), outline=(180, 20, 20), width=12)
        draw.text((285, 145), "PAID", (180, 20, 20), ImageFont.load_default(32))
        assert matches(picture, saved(stamped)) == (picture is photo)


@pytest.mark.parametrize("size", [(160, 120), (240, 400), (451, 200)])
def test_a_stretched_copy_matches_its_photo_and_a_stretched_frame_of_a_burst_does_not(
    size: tuple[int, int],
) -> None:
    photo = detect_keypoints(sample("chelsea"))
    found = align_copy(photo, detect_keypoints(saved(sample("chelsea").resize(size))))
    assert found is not None
    assert found.agreement
    frame, next_frame = (with_subject(left, left, is_shaken=False) for left in (60, 240))
    assert not matches(frame, saved(next_frame.resize(size)))


def test_a_photo_without_keypoints_matches_its_copy_and_no_other() -> None:
    fog, other = (
        saved(shot(sample(name).filter(ImageFilter.GaussianBlur(9)), 1)) for name in ("chelsea", "coffee")
    )
    found_in_fog = detect_keypoints(fog)
    without = replace(
        found_in_fog,
        points=found_in_fog.points[:0],
        shapes=found_in_fog.shapes[:0],
        descriptors=found_in_fog.descriptors[:0],
    )
    copy = detect_keypoints(saved(fog.resize((225, 150)), 70))
    found = align_copy(without, copy)
    assert found is not None
    assert found.agreement
    assert align_copy(without, detect_keypoints(other)) is None


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_a_blurred_photo_of_little_contrast_matches_its_mirrored_turned_and_cropped_copy(name: str) -> None:
    blurred = sample(name).filter(ImageFilter.GaussianBlur(5))
    photo = saved(ImageEnhance.Contrast(blurred).enhance(0.3), 93)
    left, top = photo.width // 8, photo.height // 8
    cropped = photo.crop((left, top, photo.width - left, photo.height - top))
    for copy in (ImageOps.mirror(photo), photo.transpose(Image.Transpose.ROTATE_90), cropped):
        found = align_copy(detect_keypoints(photo), detect_keypoints(saved(copy)))
        assert found is not None
        assert found.evidence > 12


def test_pixels_that_agree_are_evidence() -> None:
    photo, other = (detect_keypoints(sample(name)) for name in ("chelsea", "astronaut"))
    crop = detect_keypoints(sample("chelsea").crop((150, 60, 290, 160)))
    found, plain = align_copy(crop, photo), align(crop, photo)
    assert found is not None
    assert plain is not None
    assert found.inliers == plain.inliers
    assert 0.7 < found.agreement <= 1
    assert found.evidence == found.inliers + EVIDENCE_OF_PIXELS
    assert found.score > plain.score
    assert found.corners == plain.corners
    apart = align_copy(crop, other)
    assert apart is None or not apart.agreement


def test_two_views_of_one_scene_do_not_match() -> None:
    scene = sample("chelsea")
    first, second = shot(scene, 1), shot(scene, 2, shift=14)
    assert align(detect_keypoints(first), detect_keypoints(second)) is not None
    assert not matches(first, second)
    assert not matches(second, first)


def test_pixels_of_displaced_parts_are_no_evidence() -> None:
    scene = sample("chelsea")
    found = align_copy(*(detect_keypoints(shot(scene, seed, shift)) for seed, shift in ((1, 0.0), (2, 7.0))))
    assert found is None or not found.agreement


def test_two_shots_between_which_something_moved_do_not_match() -> None:
    scene, subject = sample("chelsea"), sample("astronaut").crop((150, 0, 300, 150)).resize((90, 90))
    shots = []
    for left in (40, 130):
        moved = scene.copy()
        moved.paste(subject, (left, 120))
        shots.append(shot(moved, seed=left))
    first, second = shots
    assert align(detect_keypoints(first), detect_keypoints(second)) is not None
    assert not matches(first, second)
    assert matches(first, saved(first, 60))


def with_subject(left: int, seed: int, *, is_shaken: bool) -> Image.Image:
    """One frame of a burst: a small astronaut crosses the scene, and a hand may shake the camera."""
    frame = sample("chelsea")
    frame.paste(sample("astronaut").crop((150, 0, 300, 150)).resize((70, 70)), (left, 90))
    if is_shaken:
        across, down = np.random.default_rng(seed).uniform(-4, 4, (2, 4))
        corners = np.array([(0, 0), (0, frame.height), (frame.width, frame.height), (frame.width, 0)])
        moved = (corners + np.stack([across, down], axis=1)).ravel().tolist()
        frame = frame.transform(frame.size, Image.Transform.QUAD, moved, Image.Resampling.BICUBIC)
    return shot(frame, seed)


@pytest.mark.parametrize("is_shaken", [False, True])
@pytest.mark.parametrize("step", [25, 60, 180])
def test_frames_of_a_burst_in_which_something_moves_do_not_match(step: int, *, is_shaken: bool) -> None:
    first, second = (with_subject(60 + left, 5 + left, is_shaken=is_shaken) for left in (0, step))
    assert align(detect_keypoints(first), detect_keypoints(second)) is not None
    assert not matches(first, saved(second))


def differing(first: Image.Image, second: Image.Image) -> Difference:
    """How two pictures differ that match."""
    one, other = detect_keypoints(first), detect_keypoints(second)
    found = align(one, other)
    assert found is not None
    result = next(looks(one.picture, other.picture, found), None)
    assert result is not None
    return result


@pytest.mark.parametrize("name", ["text", "sticker"])
def test_what_is_put_on_a_photo_is_on_one_side_and_what_moves_is_on_both(name: str) -> None:
    photo = sample("chelsea")
    marked = Image.open(io.BytesIO(edited(photo, EDITS[name], name)))
    moved = differing(with_subject(60, 1, is_shaken=False), with_subject(240, 2, is_shaken=False))
    for put in (differing(photo, marked), differing(marked, photo)):
        assert put.places
        assert put.exchanged < 0.15 < 0.3 < moved.exchanged
        assert agrees(put)
    assert not agrees(moved)


def test_a_sticker_on_clear_outlines_is_no_moved_thing() -> None:
    sign = sample("chelsea")
    draw = ImageDraw.Draw(sign)
    draw.rectangle((10, 10, sign.width - 10, 130), "black")
    for top, words in ((25, "BOOKS & MORE"), (75, "OLD AND NEW PRINTS")):
        draw.text((20, top), words, "white", ImageFont.load_default(36))
    marked = sign.copy()
    ImageDraw.Draw(marked).ellipse((130, 20, 230, 120), "orange")
    put = differing(sign, saved(marked))
    assert put.exchanged > EXCHANGED
    assert put.plain > 0.6
    assert matches(sign, saved(marked))
    moved = differing(with_subject(60, 1, is_shaken=False), with_subject(240, 2, is_shaken=False))
    assert moved.plain < 0.25


@pytest.mark.parametrize(("name", "width", "colour"), [("chelsea", 4, "black"), ("coffee", 2, "white")])
def test_a_caption_on_clear_outlines_is_no_moved_thing(name: str, width: int, colour: str) -> None:
    photo = sample(name).crop((60, 0, 260, 300))
    for left in range(0, photo.width, 12):
        ImageDraw.Draw(photo).rectangle((left, 234, left + width - 1, 285), colour)
    copy = saved(captioned(photo), 60)
    assert differing(photo, copy).exchanged > EXCHANGED
    assert matches(photo, copy)


@pytest.mark.parametrize(("name", "seed"), [("chelsea", "0"), ("chelsea", "3"), ("chelsea", "6")])
def test_a_strongly_edited_copy_of_few_pixels_agrees_at_half_the_size(name: str, seed: str) -> None:
    photo = sample(name)
    photo = photo.resize((photo.width // 2, photo.height // 2))
    copy = Image.open(io.BytesIO(edited(photo, EDITS["strong"], seed))).convert("RGB")
    first = differing(photo, copy)
    assert first.blur >= BLURRED
    assert not agrees(first)
    found = align_copy(detect_keypoints(photo), detect_keypoints(copy))
    assert found is not None
    assert found.agreement


@pytest.mark.parametrize(("name", "edit", "seed"), [("coffee", "strongest", "0"), ("astronaut", "strong", "2")])
def test_what_noise_seems_to_displace_is_not_displaced_for_certain(name: str, edit: str, seed: str) -> None:
    photo = sample(name)
    photo = photo.resize((photo.width // 2, photo.height // 2))
    found = differing(photo, Image.open(io.BytesIO(edited(photo, EDITS[edit], seed))).convert("RGB"))
    assert found.untouched_shift > LARGEST_SHIFT
    assert found.certain_shift < SURELY_DISPLACED
    assert agrees(found)
    other_shot = differing(shot(photo, 1), shot(photo, 2, shift=4.0))
    assert other_shot.certain_shift > SURELY_DISPLACED
    assert not agrees(other_shot)


def test_where_nothing_shows_a_displacement_none_is_excluded() -> None:
    haze = Image.fromarray(np.repeat(np.arange(240, dtype=np.uint8)[:, None], 320, 1)).convert("RGB")
    whole = Alignment(0.0, 6, False, 0.0, 1.0, ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)))
    found = next(looks(detect_keypoints(haze).picture, detect_keypoints(saved(haze, 60)).picture, whole))
    assert found.untouched_agreement > 0.9
    assert not found.precise
    assert not agrees(found)


def drawing(seed: int) -> Image.Image:
    """Six white ellipses of several widths on black."""
    generator = random.Random(seed)
    page = Image.new("RGB", (300, 300), "black")
    for _ in range(6):
        left, top = generator.randrange(220), generator.randrange(220)
        ImageDraw.Draw(page).ellipse((left, top, left + 40 + generator.randrange(60), top + 60), "white")
    return page


@pytest.mark.parametrize(("one", "other"), [(1, 55), (47, 61), (71, 75), (67, 86), (25, 123)])
def test_two_drawings_of_one_like_shape_do_not_agree(one: int, other: int) -> None:
    """Four keypoints lay one on the other by that shape; elsewhere they differ, or do not overlap."""
    first, second = detect_keypoints(drawing(one)), detect_keypoints(drawing(other))
    laid = align_copy(second, first)
    assert laid is None or not laid.agreement
    copy = align_copy(first, detect_keypoints(saved(drawing(one), 40)))
    assert copy is not None
    assert copy.agreement


def test_what_was_exchanged_between_prints_that_lie_otherwise_is_other_content() -> None:
    """So are numbers of two banknotes of one kind, whose paper lies otherwise; pixels of a copy lie in place."""
    seen = Difference(
        exchanged=0.3,
        one_sided=0.9,
        contrast=3,
        untouched=0.85,
        untouched_agreement=0.9,
        one_tone=0.15,
        precise=800,
    )
    assert shows_other_content(replace(seen, certain_shift=0.5), 40)
    assert not shows_other_content(replace(seen, certain_shift=0.2), 40)
    assert not shows_other_content(replace(seen, certain_shift=0.5, exchanged=0.1), 40)
    assert not shows_other_content(replace(seen, certain_shift=0.5, precise=50), 40)


def test_a_brightened_copy_matches_another_edited_one_though_its_highlights_seem_to_move() -> None:
    photo = sample("astronaut")
    copies = {
        name: detect_keypoints(Image.open(io.BytesIO(edited(photo, EDITS[name], name))).convert("RGB"))
        for name in ("bright", "mirror", "grey", "text")
    }
    for name in ("mirror", "grey", "text"):
        found = align_copy(copies["bright"], copies[name])
        assert found is not None
        assert found.agreement


def with_plain_thing(name: str, thing: str, place: float, seed: int) -> Image.Image:
    """A shot of a scene with a ball, or of a pale scene with white paper, at `place` (0..1) from the left."""
    scene = sample(name)
    if thing == "sheet":
        scene = Image.blend(scene, Image.new("RGB", scene.size, (210, 205, 190)), 0.5)
    left, top, side = round(place * scene.width), scene.height // 2, scene.width // 5
    draw = ImageDraw.Draw(scene)
    if thing == "sheet":
        draw.rectangle((left, top, left + side, top + side), "white")
        draw.rectangle((left + side // 3, top + side // 3, left + side // 2, top + side // 2), "navy")
    else:
        draw.ellipse((left, top, left + side, top + side), (120, 60, 50))
    return saved(shot(scene, seed), 92)


@pytest.mark.parametrize(
    ("name", "thing", "places"),
    [
        ("chelsea", "sheet", (0.1, 0.25)),
        ("rocket", "sheet", (0.1, 0.5)),
        ("chelsea", "ball", (0.3, 0.6)),
        ("astronaut", "ball", (0.1, 0.25)),
    ],
)
def test_a_plain_thing_that_has_moved_is_no_sticker(name: str, thing: str, places: tuple[float, float]) -> None:
    before, after = (with_plain_thing(name, thing, place, seed) for seed, place in enumerate(places))
    assert not matches(before, after)
    assert matches(before, saved(before, 60))


@pytest.mark.parametrize("name", ["border", "sticker", "text", "strong"])
def test_pixels_count_around_what_was_put_on_a_photo(name: str) -> None:
    photo = sample("chelsea")
    copy = Image.open(io.BytesIO(edited(photo, EDITS[name], name)))
    found = align_copy(detect_keypoints(photo), detect_keypoints(copy))
    assert found is not None
    assert found.agreement


def test_the_position_is_refined_where_keypoints_are_inexact() -> None:
    picture = detect_keypoints(sample("chelsea"))
    found = align(picture, picture)
    assert found is not None
    inexact = replace(found, corners=tuple((x + 0.004, y - 0.003) for x, y in found.corners))
    result = next(looks(picture.picture, picture.picture, inexact), None)
    assert result is not None
    assert result.shift < 0.2
    assert result.places == 0


def test_pictures_that_share_too_little_are_not_compared() -> None:
    picture = detect_keypoints(sample("chelsea"))
    found = align(picture, picture)
    assert found is not None
    apart = replace(found, corners=tuple((x + 0.97, y) for x, y in found.corners))
    assert not list(looks(picture.picture, picture.picture, apart))


@pytest.mark.parametrize(("name", "seed"), [("coffee", "2"), ("coffee", "4")])
def test_a_copy_half_hidden_by_what_was_put_on_it_agrees_at_a_closer_look(name: str, seed: str) -> None:
    copy = Image.open(io.BytesIO(edited(sample(name), EDITS["strongest"], seed)))
    one, other = detect_keypoints(copy), detect_keypoints(sample(name))
    found = align(one, other)
    assert found is not None
    first, closer = looks(one.picture, other.picture, found)
    assert not agrees(first)
    assert agrees(closer)
    aligned = align_copy(one, other)
    assert aligned is not None
    assert aligned.agreement == closer.untouched_agreement
