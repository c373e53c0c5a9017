"""Alignment by feature maps: synthetic cells with known positions, and the sample photos with the real network."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.helpers.examples import examples
from vggsearch.errors import OptionError
from vggsearch.matching import feature_maps
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.feature_maps import (
    ORIENTATIONS,
    STRENGTH_OF_HALF_SCORE,
    Cells,
    LocalFeatures,
    align_many,
    apply_orientation,
    decode,
    encode,
)
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.loading import load_engine
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.resize import square

SIDE = 12
CELL = 1 / SIDE
DIMENSIONS = 64
WIDTH = 0.1  # distance over which a synthetic photo changes, where its area is 1: a little more than a cell
Box = tuple[float, float, float, float]
WHOLE: Box = (0, 0, 1, 1)


def photo_at(seed: int, points: NDArray[np.complex128]) -> NDArray[np.float32]:
    """Return the cells of a synthetic photo at these points: smoothly changing unit vectors; one photo per seed."""
    random = np.random.default_rng(seed)
    waves = random.normal(0, 1 / WIDTH, (2, DIMENSIONS))
    phases = random.uniform(0, 2 * np.pi, DIMENSIONS)
    values = np.cos(points.real[..., None] * waves[0] + points.imag[..., None] * waves[1] + phases)
    unit: NDArray[np.float32] = (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)
    return unit


def cells_in(seed: int, aspect: float, box: Box = WHOLE, turn: float = 0, side: int = SIDE) -> Cells:
    """Return the cells of a box of the photo, in fractions of its sides, rotated clockwise by `turn` degrees."""
    left, top, right, bottom = box
    steps = (np.arange(side) + 0.5) / side - 0.5
    x, y = steps * (right - left) * np.sqrt(aspect), steps[:, None] * (bottom - top) / np.sqrt(aspect)
    middle = ((left + right) / 2 - 0.5) * np.sqrt(aspect) + 1j * ((top + bottom) / 2 - 0.5) / np.sqrt(aspect)
    return photo_at(seed, (x + 1j * y) * np.exp(1j * np.deg2rad(turn)) + middle)


def whole(seed: int, aspect: float = 1.0) -> LocalFeatures:
    return LocalFeatures((cells_in(seed, aspect), cells_in(seed, aspect, side=SIDE // 2)), aspect)


def part(seed: int, aspect: float, box: Box, turn: float = 0.0) -> LocalFeatures:
    shape = aspect * (box[2] - box[0]) / (box[3] - box[1])
    return LocalFeatures((cells_in(seed, aspect, box, turn), cells_in(seed, aspect, box, turn, SIDE // 2)), shape)


def found(query: list[LocalFeatures], candidate: LocalFeatures) -> Alignment:
    [alignment] = align_many(query, [candidate])
    assert alignment is not None
    return alignment


def corners_of(box: Box) -> list[tuple[float, float]]:
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def strength(alignment: Alignment) -> float:
    return STRENGTH_OF_HALF_SCORE * alignment.score / (1 - alignment.score)


def test_a_photo_is_found_in_itself_as_a_whole() -> None:
    same = found([whole(1, 1.5)], whole(1, 1.5))
    assert same.score > 0.94
    assert same.inliers >= SIDE**2
    assert same.turned == pytest.approx(0, abs=0.5)
    assert same.scale == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(same.corners, corners_of(WHOLE), atol=0.01)
    assert not same.mirrored


@pytest.mark.parametrize(
    "box",
    [
        (0.1, 0.05, 0.9, 0.85),  # 64 % of the area
        (0.3, 0.4, 1.0, 0.9),
        (0.0, 0.0, 0.55, 0.55),  # 30 %
        (0.4, 0.5, 0.85, 0.95),  # 20 %
        (-0.3, -0.2, 1.2, 1.3),  # with a border around it
        (-0.1, -1.0, 1.1, 2.0),  # a screenshot
    ],
)
@pytest.mark.parametrize("aspect", [0.66, 1.0, 1.5])
def test_a_crop_and_a_bordered_copy_are_located(box: Box, aspect: float) -> None:
    alignment = found([part(2, aspect, box)], whole(2, aspect))
    np.testing.assert_allclose(alignment.corners, corners_of(box), atol=CELL * max(1, box[2] - box[0]))
    area = (box[2] - box[0]) * (box[3] - box[1])
    assert alignment.scale == pytest.approx(np.sqrt(area), rel=0.1)
    assert alignment.turned == pytest.approx(0, abs=5)


@pytest.mark.parametrize("turn", [-12, -5, 5, 12])
def test_a_small_rotation_is_measured(turn: float) -> None:
    alignment = found([part(3, 1.4, (0.1, 0.1, 0.9, 0.9), turn)], whole(3, 1.4))
    assert alignment.turned == pytest.approx(turn, abs=3)
    assert alignment.scale == pytest.approx(0.8, rel=0.06)


@pytest.mark.parametrize("number", range(len(ORIENTATIONS)))
def test_the_matching_orientation_is_found_with_its_corners_in_order(number: int) -> None:
    box = (0.2, 0.1, 0.9, 0.8)
    region = part(4, 1.6, box)
    turns, is_mirrored = ORIENTATIONS[number]
    shape = 1 / region.aspect if turns % 2 else region.aspect
    query = [whole(100 + other, shape) for other in range(len(ORIENTATIONS))]
    query[number] = LocalFeatures(region.levels, shape)
    alignment = found(query, whole(4, 1.6))
    assert alignment.mirrored is is_mirrored
    # The view is the query rotated counter-clockwise, so the query itself is the photo rotated clockwise.
    undone = turns * 90 if is_mirrored else -turns * 90
    assert abs((alignment.turned - undone + 180) % 360 - 180) < 5
    labels = apply_orientation(np.array([[0, 1], [3, 2]]), ORIENTATIONS[number])  # the query's corners in the view
    left, top, right, bottom = box
    points = {labels[0, 0]: (left, top), labels[0, 1]: (right, top)}
    points |= {labels[1, 1]: (right, bottom), labels[1, 0]: (left, bottom)}
    np.testing.assert_allclose(alignment.corners, [points[corner] for corner in range(4)], atol=CELL)


@pytest.mark.parametrize("number", range(len(ORIENTATIONS)))
def test_turned_is_the_rotation_that_makes_the_query_from_the_photo(number: int) -> None:
    """Mirror and rotate an image, then bring it into the orientation of its view: that restores the image."""
    picture = np.arange(12).reshape(3, 4)
    turns, is_mirrored = ORIENTATIONS[number]
    made = np.rot90(picture[:, ::-1] if is_mirrored else picture, -turns if not is_mirrored else turns)
    np.testing.assert_array_equal(apply_orientation(made, ORIENTATIONS[number]), picture)


def test_unrelated_photos_do_not_align() -> None:
    for seed in range(20):
        query = [LocalFeatures((noise(seed * 8 + number),), 1.0) for number in range(8)]
        assert align_many(query, [LocalFeatures((noise(1000 + seed),), 1.2)]) == [None]


def noise(seed: int) -> NDArray[np.float32]:
    return photo_at(seed, np.random.default_rng(seed).normal(0, 100, (SIDE, SIDE)).astype(np.complex128))


def test_a_copy_scores_far_higher_than_a_photo_that_shares_one_corner() -> None:
    photo = whole(5)
    mixed = photo.levels[0].copy()
    other = cells_in(6, 1.0)
    mixed[:, 4:] = other[:, 4:]
    mixed[4:] = other[4:]
    alike = found([LocalFeatures((mixed,), 1.0)], photo)
    copy = found([part(5, 1.0, (0.1, 0.1, 0.8, 0.8))], photo)
    assert 0.1 < alike.score < 0.74 < copy.score


def best_by_trying_all_pairs(query: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """Return the largest strength of any transform through two matches, by brute force; aspect ratio 1."""
    one, other = query.reshape(-1, DIMENSIONS), candidate.reshape(-1, DIMENSIONS)
    similarities = one @ other.T
    steps = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    points = (steps + 1j * steps[:, None]).ravel()
    matches = [
        (points[row], points[column], float(similarities[row, column]) ** 2)
        for row, column in enumerate(similarities.argmax(axis=1).tolist())
        if similarities[:, column].argmax() == row and similarities[row, column] > 0
    ]
    source, target, weights = (np.array(values) for values in zip(*matches, strict=True))
    best = 0.0
    for first in range(len(matches)):
        for second in range(first):
            scale_turn = (target[first] - target[second]) / (source[first] - source[second])
            if 0.3 < abs(scale_turn) < 3.2 and abs(np.angle(scale_turn)) < np.deg2rad(15):
                shift = target[first] - scale_turn * source[first]
                missed = np.abs(scale_turn * source + shift - target)
                reach = feature_maps.INLIER_RADIUS * CELL * max(1, abs(scale_turn))
                best = max(best, float((weights * np.maximum(1 - (missed / reach) ** 2, 0)).sum()))
    return best


@pytest.mark.parametrize("box", [WHOLE, (0.2, 0.1, 0.9, 0.8), (0.3, 0.3, 0.9, 0.9), (-0.2, -0.3, 1.3, 1.2)])
def test_voting_finds_what_trying_all_pairs_finds(box: Box) -> None:
    query, candidate = cells_in(7, 1.0, box), cells_in(7, 1.0)
    noisy = query + np.random.default_rng(0).normal(0, 0.1, query.shape).astype(np.float32)
    noisy /= np.linalg.norm(noisy, axis=-1, keepdims=True)
    alignment = found([LocalFeatures((noisy,), 1.0)], LocalFeatures((candidate,), 1.0))
    assert strength(alignment) >= 0.95 * best_by_trying_all_pairs(noisy, candidate)


@settings(max_examples=examples(40))
@given(
    side=st.floats(0.5, 1.0),
    left=st.floats(0, 1),
    top=st.floats(0, 1),
    aspect=st.floats(0.5, 2.0),
    turn=st.floats(-10, 10),
    seed=st.integers(0, 1000),
)
def test_any_crop_is_found_and_swapping_the_two_images_inverts_the_alignment(
    side: float, left: float, top: float, aspect: float, turn: float, seed: int
) -> None:
    box = (left * (1 - side), top * (1 - side), left * (1 - side) + side, top * (1 - side) + side)
    query, photo = part(seed, aspect, box, turn), whole(seed, aspect)
    there, back = found([query], photo), found([photo], query)
    assert there.scale == pytest.approx(side, rel=0.1)
    assert there.turned == pytest.approx(turn, abs=5)
    middle = np.mean(there.corners, axis=0)
    np.testing.assert_allclose(middle, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], atol=CELL)
    assert there.scale * back.scale == pytest.approx(1, rel=0.1)
    assert there.turned == pytest.approx(-back.turned, abs=5)
    assert there.score == pytest.approx(back.score, abs=0.1)
    assert 0 < there.score < 1


def test_each_candidate_gets_its_alignment_in_order() -> None:
    query = [part(8, 1.0, (0.1, 0.1, 0.9, 0.9))]
    candidates = [whole(9), whole(8), whole(8)]
    together = align_many(query, candidates)
    assert together == [align_many(query, [candidate])[0] for candidate in candidates]
    assert together[1] == together[2]
    assert align_many(query, []) == []


def test_padding_is_no_evidence() -> None:
    padded = np.broadcast_to(photo_at(1, np.zeros(1, complex)), (SIDE, SIDE, DIMENSIONS)).copy()
    inside = slice(SIDE // 4, -SIDE // 4)
    window = (0.0, -0.5, 1.0, 1.5)  # a padded panorama: its rows are the middle half
    tall, other = padded.copy(), padded.copy()
    tall[inside], other[inside] = noise(1)[inside], noise(2)[inside]
    assert align_many([LocalFeatures((tall,), 2.0, window)], [LocalFeatures((other,), 2.0, window)]) == [None]
    same = found([LocalFeatures((tall,), 2.0, window)], LocalFeatures((tall,), 2.0, window))
    assert same.inliers == SIDE * SIDE // 2
    np.testing.assert_allclose(same.corners, corners_of(WHOLE), atol=0.01)


def test_cells_of_other_dimensions_are_refused_with_both() -> None:
    with pytest.raises(OptionError, match=r"Cells of 64 dimensions cannot be matched with cells of 12\."):
        align_many([whole(1)], [LocalFeatures((whole(1).levels[0][..., :12],), 1.0)])


def test_stored_cells_take_a_byte_per_dimension_and_are_nearly_the_same() -> None:
    cells = np.random.default_rng(0).normal(0, 1, (SIDE, SIDE, DIMENSIONS)).astype(np.float32)
    cells /= np.linalg.norm(cells, axis=-1, keepdims=True)
    cells[0, 0] = 0
    stored = encode(cells)
    assert stored.dtype == np.int8
    assert stored.nbytes == SIDE * SIDE * DIMENSIONS
    cosines = (decode(stored) * cells).sum(axis=-1).ravel()
    assert cosines[0] == 0
    assert cosines[1:].min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(decode(stored), axis=-1).ravel()[1:], 1, atol=1e-6)


@pytest.fixture(scope="module")
def network() -> Engine:
    spec, weights = EmbeddingOptions().resolve()
    return load_engine(spec, weights, EngineOptions("openvino", "cpu"))


def views(engine: Engine, picture: Image.Image, count: int) -> list[LocalFeatures]:
    aspect = picture.width / picture.height
    upright = square(picture.convert("RGB"), 192, "squash")
    levels = engine.describe(np.stack([apply_orientation(upright, which) for which in ORIENTATIONS[:count]])).levels
    return [LocalFeatures((fine, coarse), aspect) for fine, coarse in zip(*levels, strict=True)]


@pytest.mark.network
def test_edited_photos_are_located_and_others_are_not(sample_photos: Path, network: Engine) -> None:
    originals = sorted((sample_photos / "originals").glob("*.jpg"))
    [name] = [number for number, path in enumerate(originals) if path.stem == "coffee"]
    stored = [views(network, Image.open(path), 1)[0] for path in originals]
    photo = Image.open(originals[name])
    width, height = photo.size
    quarter = photo.crop((width // 4, height // 4, width // 4 + width * 6 // 10, height // 4 + height * 6 // 10))
    edits = {
        "cropped": (quarter, False, 0, 0.6),
        "mirrored": (photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), True, 0, 1),
        "turned left": (photo.transpose(Image.Transpose.ROTATE_90), False, 90, 1),
        "upside down": (photo.transpose(Image.Transpose.ROTATE_180), False, 180, 1),
    }
    for says, (edit, is_mirrored, turned, scale) in edits.items():
        alignments = align_many(views(network, edit, 8), stored)
        scores = [alignment.score if alignment else 0.0 for alignment in alignments]
        best = alignments[name]
        assert best is not None, says
        assert max(scores) == scores[name] > 0.65, says
        assert sorted(scores)[-2] < 0.6, says
        assert best.mirrored is is_mirrored, says
        assert abs((best.turned - turned + 180) % 360 - 180) < 10, says
        assert best.scale == pytest.approx(scale, rel=0.1), says
    cropped = align_many(views(network, quarter, 1), [stored[name]])[0]
    assert cropped is not None
    np.testing.assert_allclose(cropped.corners, corners_of((0.25, 0.25, 0.85, 0.85)), atol=CELL)
