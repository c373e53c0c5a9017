"""Groups that do not chain, what is kept in them, and photos that only look like duplicates."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.helpers.duplicates import TAKEN, photo
from vggsearch.duplicates.bursts import other_exposures
from vggsearch.duplicates.keep_policy import LOSSLESS, RatedPhoto, keep_rules, quality_of, ranked, reason
from vggsearch.duplicates.results import Photo, keepers
from vggsearch.errors import OptionError
from vggsearch.knn.edges import Edges, edges_from_pairs
from vggsearch.photos.capture import FRACTION, SAVED, SECOND, TimeKind
from vggsearch.photos.decoder_pool import Decoders, Source

Pairs = Sequence[tuple[int, int, float]]


def edges(rows: int, pairs: Pairs) -> Edges:
    first, second, similarity = zip(*pairs, strict=True) if pairs else ((), (), ())
    return edges_from_pairs(
        rows, None, 0.0, np.array(first, np.int64), np.array(second, np.int64), np.array(similarity, np.float32)
    )


def kept(ranks: Sequence[int], pairs: Pairs) -> list[int]:
    found: list[int] = keepers(np.array(ranks), edges(len(ranks), pairs)).tolist()
    return found


def test_the_best_photo_keeps_all_its_duplicates() -> None:
    assert kept([1, 0, 2], [(0, 1, 0.9), (1, 2, 0.8), (0, 2, 0.7)]) == [1, 1, 1]


def test_photos_that_are_no_duplicate_of_a_keeper_are_kept() -> None:
    assert kept([0, 1, 2], [(0, 1, 0.9), (1, 2, 0.9)]) == [0, 0, 2]


def test_a_photo_joins_the_most_similar_keeper_that_ranks_better() -> None:
    assert kept([0, 2, 1], [(0, 1, 0.8), (1, 2, 0.9)]) == [0, 2, 2]
    assert kept([0, 1, 2], [(0, 1, 0.8), (1, 2, 0.9)]) == [0, 0, 2]


def test_photos_without_duplicates_keep_themselves() -> None:
    assert kept([2, 0, 1], []) == [0, 1, 2]


def test_frames_of_a_pan_do_not_chain_into_one_group() -> None:
    frames, reach = 40, 3
    pairs = [(a, b, 1 - (b - a) / 10) for a in range(frames) for b in range(a + 1, min(frames, a + reach + 1))]
    for seed in range(5):
        ranks = np.random.default_rng(seed).permutation(frames)
        found = kept(ranks.tolist(), pairs)
        assert all(abs(row - keeper) <= reach for row, keeper in enumerate(found))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int, float]]]:
    rows = draw(st.integers(1, 12))
    every = [(a, b) for a in range(rows) for b in range(a + 1, rows)]
    chosen = draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    similarities = draw(st.lists(st.sampled_from([0.5, 0.6, 0.9]), min_size=len(chosen), max_size=len(chosen)))
    return draw(st.permutations(range(rows))), [
        (a, b, similarity) for (a, b), similarity in zip(chosen, similarities, strict=True)
    ]


@given(graphs())
def test_every_photo_is_kept_or_a_duplicate_of_a_better_one_that_is_kept(
    graph: tuple[list[int], list[tuple[int, int, float]]],
) -> None:
    ranks, pairs = graph
    found = kept(ranks, pairs)
    similarity = {frozenset((a, b)): value for a, b, value in pairs}
    for row, keeper in enumerate(found):
        assert found[keeper] == keeper
        if row != keeper:
            assert ranks[keeper] < ranks[row]
            others = [
                similarity[frozenset((row, other))]
                for other in set(found)
                if frozenset((row, other)) in similarity and ranks[other] < ranks[row]
            ]
            assert similarity[frozenset((row, keeper))] == max(others)
    for a, b, _ in pairs:  # two duplicates are never both kept
        assert not (found[a] == a and found[b] == b)


@given(graphs(), st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_the_order_of_the_photos(
    graph: tuple[list[int], list[tuple[int, int, float]]], random: object
) -> None:
    ranks, pairs = graph
    order = np.random.default_rng(hash(tuple(ranks)) % 2**32).permutation(len(ranks))
    moved: NDArray[np.int64] = np.argsort(order)
    found = kept(ranks, pairs)
    again = kept(
        [ranks[row] for row in order], [(int(moved[a]), int(moved[b]), value) for a, b, value in pairs[::-1]]
    )
    assert [int(order[again[moved[row]]]) for row in range(len(ranks))] == found


def candidate(path: str, *, quality: int = 90, **facts: Any) -> RatedPhoto:
    return RatedPhoto(photo(path, **facts), quality)


@pytest.mark.parametrize(
    ("rule", "better", "worse", "why"),
    [
        ("resolution", {"size": (4032, 3024)}, {"size": (1600, 1200)}, "4032 x 3024 vs. 1600 x 1200"),
        ("quality", {"quality": LOSSLESS}, {"quality": 90}, "lossless vs. quality 90"),
        ("quality", {"quality": 95}, {"quality": 60}, "quality 95 vs. quality 60"),
        ("bytes", {"bytes": 2_000_000}, {"bytes": 900_000}, "2,000,000 bytes vs. 900,000"),
        ("exif", {}, {"taken": None}, "taken 2024-05-01 12:30, the other has no date"),
        ("oldest", {}, {"taken": TAKEN + timedelta(days=1)}, "the older one"),
        ("newest", {"taken": TAKEN + timedelta(days=1)}, {}, "the newer one"),
    ],
)
def test_each_rule_keeps_the_better_photo_and_explains_why(
    rule: str, better: dict[str, Any], worse: dict[str, Any], why: str
) -> None:
    one, other = candidate("a.jpg", **worse), candidate("b.jpg", **better)
    policy = keep_rules(rule)
    assert ranked([one, other], policy) == [1, 0]
    assert reason(other, one, policy) == why


def test_a_date_before_photography_is_no_age() -> None:
    odd, older = candidate("b.jpg", taken=datetime(1, 1, 1)), candidate("a.jpg", taken=datetime(2020, 1, 1))
    assert ranked([odd, older], keep_rules("oldest")) == [1, 0]
    assert ranked([older, odd], keep_rules("newest")) == [1, 0]


def test_of_identical_files_the_one_that_was_written_first_is_kept_rather_than_the_shorter_path() -> None:
    saved, taken = (
        RatedPhoto(replace(photo(path), mtime_ns=time), 95) for path, time in (("a.jpg", 9), ("2024/a.jpg", 3))
    )
    assert ranked([saved, taken], keep_rules()) == [1, 0]
    assert ranked([saved, taken], keep_rules("newest")) == [0, 1]
    assert reason(taken, saved, keep_rules()) == "the older one"


def test_a_path_can_be_preferred_and_earlier_rules_take_precedence() -> None:
    small, large = candidate("best/b.jpg", size=(10, 10)), candidate("a.jpg", size=(99, 99))
    policy = keep_rules("path:best/*,resolution")
    assert ranked([large, small], policy) == [1, 0]
    assert reason(small, large, policy) == "its path matches best/*"
    assert ranked([large, small], keep_rules("resolution,path:best/*")) == [0, 1]
    assert ranked([candidate("a/long/path.jpg"), candidate("b.jpg")], keep_rules("shortest-path")) == [1, 0]


def test_where_the_rules_of_the_user_make_no_difference_the_default_ones_decide() -> None:
    original, copy = candidate("z.jpg", size=(99, 99)), candidate("a.jpg", size=(10, 10))
    assert ranked([copy, original], keep_rules("path:no such folder/*")) == [1, 0]
    assert [rule.name for rule in keep_rules("newest,bytes")][:3] == ["newest", "bytes", "original"]


def test_if_all_rules_are_tied_the_first_by_path_is_kept() -> None:
    pair = [candidate("b.jpg"), candidate("a.jpg")]
    assert ranked(pair, keep_rules()) == [1, 0]
    assert "first by path" in reason(pair[1], pair[0], keep_rules("resolution"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No keep rule given. The default is keep='original,"),
        ("biggest", "Unknown keep rule 'biggest'. Available: original, resolution,"),
        ("resolution,best", "Unknown keep rule 'best'. Available: original, resolution,"),
    ],
)
def test_an_unknown_rule_is_refused_with_the_available_ones(text: str, message: str) -> None:
    with pytest.raises(OptionError) as raised:
        keep_rules(text)
    assert str(raised.value).startswith(message)


def test_the_quality_of_a_jpeg_is_read_from_its_header(tmp_path: Path) -> None:
    from tests.fakes import picture

    with Decoders(1) as decoders:

        def quality_in(name: str) -> int | None:
            return decoders.jpeg_quality(Source(name, tmp_path))

        for quality in (30, 75, 95):
            picture(1).save(tmp_path / "a.jpg", quality=quality)
            assert quality_of(photo("a.jpg"), lambda: quality_in("a.jpg")) == pytest.approx(quality, abs=1)
        png = Photo("a.png", "", 1, 1, 1, 1, "PNG", None)
        assert quality_of(png, lambda: quality_in("a.png")) == LOSSLESS
        assert 1 <= quality_of(photo("gone.jpg"), lambda: quality_in("gone.jpg")) <= 100


def test_a_raw_file_is_known_by_its_suffix_or_its_content() -> None:
    assert photo("a.NEF").is_raw
    assert replace(photo("a.tif"), format="RAW").is_raw
    assert not replace(photo("a.tif"), format="TIFF").is_raw


def test_the_quality_of_other_lossy_formats_is_estimated_from_their_bits_per_pixel() -> None:
    sizes = (5_000, 10_000, 20_000, 60_000)
    heic = [quality_of(replace(photo("a.heic", bytes=size), format="HEIF"), lambda: None) for size in sizes]
    jpeg2000 = [quality_of(replace(photo("a.jp2", bytes=size), format="JPEG2000"), lambda: None) for size in sizes]
    assert heic == sorted(set(heic))
    assert all(one > other for one, other in zip(heic, jpeg2000, strict=True))
    assert max(heic) < LOSSLESS


def taken(
    path: str,
    seconds: float,
    size: tuple[int, int] = (640, 480),
    kind: TimeKind = SECOND,
    camera: str | None = None,
) -> Photo:
    made = photo(path, size=size, taken=datetime(2024, 5, 1, 12, 0) + timedelta(seconds=seconds))
    return replace(made, taken_kind=kind, camera=camera)


def numbered(photo: Photo, serial: str) -> Photo:
    return replace(photo, camera_serial=serial)


EOS, NIKON = "Canon EOS 80D", "NIKON D7500"
SMALL = (320, 240)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (taken("a.jpg", 0), taken("b.jpg", 2)),
        (taken("a.jpg", 0), taken("b.jpg", 2, (480, 640))),
        (taken("a.jpg", 0), taken("b.jpg", 90)),
        (taken("IMG_0007.jpg", 0), taken("IMG_0008.jpg", 0)),
        (taken("DSC4000.JPG", 0), taken("DSC4030.JPG", 0)),
        (taken("DSC9998.JPG", 0), taken("DSC0003.JPG", 0)),
        (photo("20240601_120000.jpg", taken=None), photo("20240601_120005.jpg", taken=None)),
        (taken("PXL_20240601_120000123.jpg", 0), taken("PXL_20240601_120000456.jpg", 0)),
        (
            taken("00000IMG_00000_BURST20190804101112345_COVER.jpg", 0),
            taken("00003IMG_00003_BURST20190804101112345.jpg", 0),
        ),
        (taken("3fa9.jpg", 0, kind=FRACTION), taken("77c1.jpg", 0.05, kind=FRACTION)),
        (taken("x/a.jpg", 0.1, SMALL, FRACTION, EOS), taken("y/b.jpg", 0.2, kind=FRACTION, camera=EOS)),
        (taken("IMG_0007.jpg", 0, kind=FRACTION), taken("IMG_0008.jpg", 0, kind=FRACTION)),  # a clock without them
        (taken("a.jpg", 0, camera=EOS), taken("b.jpg", 86_401, SMALL, camera=EOS)),
        (taken("a.jpg", 0, camera=EOS), taken("b.jpg", 0, SMALL, camera=NIKON)),
        (numbered(taken("a.jpg", 0, camera=EOS), "1"), numbered(taken("b.jpg", 0, camera=EOS), "2")),
        (taken("IMG_0007.jpg", 0, kind=SAVED), taken("IMG_0008.jpg", 1, kind=SAVED)),
    ],
)
def test_siblings_are_recognised(first: Photo, second: Photo) -> None:
    assert other_exposures(first, second)
    assert other_exposures(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (taken("a.jpg", 0), taken("b.jpg", 7200)),
        (taken("a.jpg", 0), taken("b.jpg", 1800)),
        (taken("a.jpg", 0), taken("b.jpg", 2, (320, 240))),
        (taken("IMG_0007.jpg", 0), taken("IMG_0007 copy.jpg", 0)),
        (taken("IMG_0007.jpg", 0), taken("IMG_0007 (1).jpg", 0)),
        (taken("x/IMG_0007.jpg", 0), taken("y/IMG_0008.jpg", 0)),
        (taken("IMG_0007.jpg", 0), taken("IMG_0099.jpg", 0)),
        (photo("a.jpg", taken=None), photo("b.jpg")),
        (photo("20240601_120000.jpg", taken=None), photo("20240601_120000_edited.jpg", taken=None)),
        (photo("20249901_120000.jpg", taken=None), photo("20249901_120005.jpg", taken=None)),
        (photo("Screenshot_20240601-120000.png", taken=None), photo("Screenshot_20240601-120005.png", taken=None)),
        (photo("x/IMG_1.CR2"), photo("y/IMG_1.jpg")),
        (
            taken("a.jpg", 0, kind=SAVED),
            taken("b.jpg", 5, kind=SAVED),
        ),  # as an editor leaves it that knows no other time
        (taken("a.jpg", 0, kind=SECOND), taken("b.jpg", 5, kind=SAVED)),
        (taken("a.jpg", 0.25, kind=FRACTION), taken("b.jpg", 0, kind=SECOND)),  # a program has lost the fraction
        (taken("IMG_1.jpg", 0.25, kind=FRACTION), taken("IMG_2.jpg", 0.25, kind=FRACTION)),  # exported twice
        (taken("a.jpg", 0.25, kind=FRACTION), taken("b.jpg", 3600.25, kind=FRACTION)),
        (taken("a.jpg", 0, camera=EOS), taken("b.jpg", 7200, camera=EOS)),
        (taken("a.jpg", 0, camera=EOS), taken("b.jpg", 0, SMALL, camera="EOS 80D")),
        (numbered(taken("a.jpg", 0, camera=EOS), "1"), taken("b.jpg", 0, camera=EOS)),
        (taken("a.jpg", 0, camera=EOS), taken("b.jpg", 7201)),
        (
            replace(taken("a.jpg", 0), taken=datetime(1, 1, 1)),
            replace(taken("b.jpg", 0), taken=datetime(1, 1, 1, 0, 1)),
        ),
    ],
)
def test_copies_are_not_siblings(first: Photo, second: Photo) -> None:
    assert other_exposures(first, second) is None
    assert other_exposures(second, first) is None
