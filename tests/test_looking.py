"""What one duplicate shows around another: seen once for all copies that show the same, and stored."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image, ImageOps

from tests.helpers.duplicates import photo
from tests.helpers.textures import scene
from vggsearch.duplicates.keep_policy import RatedPhoto
from vggsearch.duplicates.looking import Looker, Pair
from vggsearch.duplicates.measured import MEASURED_BY, Measured, Seen
from vggsearch.errors import ImageError
from vggsearch.matching.alignment import Alignment, inverted
from vggsearch.matching.surroundings import Around
from vggsearch.photos.upright import Box
from vggsearch.progress import SILENT
from vggsearch.store.contents import ORIGINALS
from vggsearch.store.measurements import write_measurements

Place = tuple[float, float, float, float]  # left, top, right and bottom of what a copy shows, in the original
PHOTO = scene(1, (640, 480))
ALL: Place = (0.0, 0.0, 1.0, 1.0)
PART: Place = (0.25, 0.25, 0.75, 0.75)


class Album:
    """Copies of one photo, by row, of which each shows a part. Notes what is read.

    `moved` are positions that are wrong, by how much.
    """

    def __init__(self, *copies: tuple[Image.Image | None, Place]) -> None:
        self.images = [image for image, _ in copies]
        self.places = [place for _, place in copies]
        self.read = list[int]()
        self.moved = dict[Pair, float]()
        self.photos = {
            row: RatedPhoto(replace(photo("a.jpg", (image or PHOTO).size), sha256=uuid4().hex), 90)
            for row, (image, _) in enumerate(copies)
        }

    def position(self, query: int, photo: int) -> Alignment:
        if query > photo:
            return inverted(self.position(photo, query))
        (left, top, right, bottom), (x, y, its_right, its_bottom) = self.places[query], self.places[photo]
        width, height = its_right - x, its_bottom - y
        places = ((left, top), (right, top), (right, bottom), (left, bottom))
        wrong = self.moved.get((query, photo), 0.0)
        corners = tuple(((a - x) / width + wrong, (b - y) / height) for a, b in places)
        scale = ((right - left) * (bottom - top) / width / height) ** 0.5
        return Alignment(0.9, 40, False, 0.0, scale, corners, 0.9)

    def picture(self, row: int, part: Box | None) -> Image.Image:
        self.read.append(row)
        image = self.images[row]
        if image is None:
            raise ImageError("gone", "unreadable")
        return image

    def look(self, pairs: Sequence[Pair], directory: Path | None = None) -> dict[Pair, Seen]:
        measured = Measured(directory)
        looker = Looker(self.photos, self.position, self.picture, measured)
        with ThreadPoolExecutor(2) as threads:
            seen = looker.look(pairs, threads, SILENT)
        measured.save(are_all=True)
        return seen

    @property
    def pairs(self) -> list[Pair]:
        return list(combinations(range(len(self.images)), 2))


def reduced(factor: float) -> Image.Image:
    return PHOTO.resize((round(640 * factor), round(480 * factor)))


def half_replaced() -> Image.Image:
    image = PHOTO.copy()
    image.paste(scene(2, (640, 480)).crop((0, 0, 300, 480)), (340, 0))
    return image


@pytest.fixture
def album() -> Album:
    """The photo in five sizes, two crops, a framed copy and one of which nearly half shows something else."""
    framed = ImageOps.expand(PHOTO, 80, "white")
    whole = [(reduced(factor), ALL) for factor in (0.5, 0.6, 1.0, 0.8, 0.9)]
    crops = [(PHOTO.crop((160, 120, 480, 360)), PART), (PHOTO.crop((0, 0, 480, 360)), (0.0, 0.0, 0.75, 0.75))]
    border = (-80 / 640, -80 / 480, 720 / 640, 560 / 480)
    return Album(*whole, *crops, (framed, border), (half_replaced(), ALL))


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """The pairs that are looked at, not those for which others stand."""
    pairs, see = list[Pair](), Looker._see

    def counted(looker: Looker, pair: Pair) -> Seen:
        pairs.append(pair)
        return see(looker, pair)

    monkeypatch.setattr(Looker, "_see", counted)
    return pairs


def test_one_of_the_copies_that_show_the_same_stands_for_all(album: Album, looked_at: list[Pair]) -> None:
    seen = album.look(album.pairs)
    # Four with the largest of the five; that one, both crops, the framed and the last copy with each other.
    assert len(looked_at) == 4 + 5 * 4 // 2
    assert len(album.read) == len(album.images)
    apart = {pair: album.look([pair])[pair] for pair in album.pairs}
    assert {pair: (each.first, each.second, each.is_part) for pair, each in seen.items()} == {
        pair: (each.first, each.second, each.is_part) for pair, each in apart.items()
    }
    assert (seen[0, 5].first, seen[0, 5].second) == (Around.SCENE, Around.NOTHING)
    assert (seen[3, 7].first, seen[3, 7].second) == (Around.NOTHING, Around.FRAME)


def test_nothing_stands_for_a_photo_that_lies_elsewhere(album: Album, looked_at: list[Pair]) -> None:
    """A crop that lies in one of the whole copies where it does not lie in the others, by a wrong match."""
    album.moved[0, 5] = 0.2
    album.look(album.pairs)
    assert (0, 5) in looked_at
    assert (1, 5) not in looked_at


def test_a_photo_that_cannot_be_read_is_unclear_and_is_read_again(tmp_path: Path) -> None:
    album = Album((PHOTO, ALL), (None, PART))
    for _ in range(2):
        assert album.look([(0, 1)], tmp_path)[0, 1].second == Around.UNCLEAR
    assert album.read.count(1) == 2
    album.images[1] = PHOTO.crop((160, 120, 480, 360))
    assert album.look([(0, 1)], tmp_path)[0, 1] == Seen(Around.SCENE, Around.NOTHING)


def test_what_was_seen_is_stored_and_no_photo_is_read_again(album: Album, tmp_path: Path) -> None:
    seen = album.look(album.pairs, tmp_path)
    assert album.read
    album.read.clear()
    assert album.look(album.pairs, tmp_path) == seen
    assert not album.read
    turned = [pair[::-1] for pair in album.pairs]
    assert album.look(turned, tmp_path) == {pair[::-1]: each.turned() for pair, each in seen.items()}
    assert not album.read


def test_what_was_seen_is_not_used_for_another_position_or_content(tmp_path: Path) -> None:
    album = Album((PHOTO, ALL), (PHOTO.crop((160, 120, 480, 360)), PART))
    album.look([(0, 1)], tmp_path)
    album.read.clear()
    album.places[1] = (0.25, 0.25, 0.75, 0.76)
    album.look([(0, 1)], tmp_path)
    assert sorted(album.read) == [0, 1]
    album.read.clear()
    changed = album.photos[1]
    album.photos[1] = replace(changed, photo=replace(changed.photo, sha256=uuid4().hex))
    album.look([(0, 1)], tmp_path)
    assert sorted(album.read) == [0, 1]


def test_damaged_measurements_are_made_again(
    album: Album, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen = album.look(album.pairs, tmp_path)
    path = tmp_path / ORIGINALS
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    album.read.clear()
    assert album.look(album.pairs, tmp_path) == seen
    assert album.read
    assert f"{ORIGINALS} is damaged" in caplog.text
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "numbers",
    [(), (1.0,), (2.0, 7.0), (0.0,) * 11, (0.0,) * 8 + (9.0, 0.0, 0.0, 0.0), (0.0,) * 11 + (float("nan"),)],
)
def test_numbers_of_another_form_are_not_used(tmp_path: Path, numbers: tuple[float, ...]) -> None:
    one, other = "1" * 64, "2" * 64
    keys = (one, f"{one} detail (0, 0, 64, 64)", f"{one} grid (0, 0, 64, 64)", f"{one} {other}")
    write_measurements(tmp_path, dict.fromkeys(keys, numbers), MEASURED_BY)
    stored, corners = Measured(tmp_path), ((0.0, 0.0),) * 4
    assert stored.colours(one) is None
    assert stored.detail(one, (0, 0, 64, 64)) is None
    assert stored.seen(one, other, Alignment(0.9, 40, False, 0.0, 1.0, corners)) is None
    assert stored.has_grid(one, (0, 0, 64, 64)) is (True if numbers == (1.0,) else None)
