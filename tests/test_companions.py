"""What goes with a photo, what stays because another photo needs it, and RAW and JPEG pairs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.removals import fill, removal, remove, restore, trash_in, tree
from vggsearch.photos.raw_formats import RAW_MAKERS
from vggsearch.removal.companions import companions, raw_partner
from vggsearch.removal.plan import make_plan
from vggsearch.removal.request import Action

PHOTO, VIDEO, STARS = b"the photo" * 10, b"the video" * 10, b"<stars>"


@pytest.fixture(autouse=True)
def trash(tmp_path: Path) -> Iterator[Path]:
    with trash_in(tmp_path / "share") as folder:
        yield folder


@pytest.mark.parametrize(
    ("photo", "beside_it", "go"),
    [
        ("a.jpg", ["a.xmp", "a.jpg.xmp", "a.mov"], ["a.jpg.xmp", "a.mov", "a.xmp"]),
        ("a.HEIC", ["a.XMP", "a.heic.Xmp", "a.MP4"], ["a.MP4", "a.XMP", "a.heic.Xmp"]),
        ("a.png", ["a.xmp", "a.mov"], ["a.xmp"]),  # a live photo is a JPEG or a HEIC
        ("a.jpg", ["ab.xmp", "A.xmp", "a.b.xmp", "a.txt", "a", ".xmp"], []),
        ("a.jpg", ["a.heic", "a.xmp", "a.mov"], []),  # the HEIC stays and needs them
        ("a.jpg", ["a.heic", "a.jpg.xmp", "a.heic.xmp"], ["a.jpg.xmp"]),
        ("a.jpg", ["a.JPG", "a.jpg.xmp", "a.xmp"], ["a.jpg.xmp"]),
        ("a.JPG", ["a.jpg", "a.jpg.xmp"], []),
        ("a.jpg", ["a.png", "a.mov", "a.xmp"], ["a.mov"]),
        ("a", ["a.xmp"], ["a.xmp"]),
        ("a.b.jpg", ["a.b.xmp", "a.xmp"], ["a.b.xmp"]),
    ],
)
def test_what_goes_with_a_photo(photo: str, beside_it: list[str], go: list[str]) -> None:
    assert list(companions(photo, [photo, *beside_it])) == go


def test_what_two_photos_share_goes_with_the_last_of_them() -> None:
    assert companions("a.jpg", ["a.jpg", "a.heic", "a.xmp"], leaving=["a.heic"]) == ("a.xmp",)


@pytest.mark.parametrize(
    ("photo", "beside_it", "partner"),
    [
        ("a.jpg", ["a.DNG"], "a.DNG"),
        ("a.nef", ["a.jpg", "a.xmp"], "a.jpg"),
        ("a.jpg", ["a.heic", "b.nef", "ab.nef", "a.mov"], None),
        ("a.dng", ["a.nef"], None),
    ],
)
def test_raw_and_jpeg_pairs(photo: str, beside_it: list[str], partner: str | None) -> None:
    assert raw_partner(photo, [photo, *beside_it]) == partner


@pytest.mark.parametrize("suffix", RAW_MAKERS)
def test_each_raw_format_makes_a_pair_with_a_jpeg(suffix: str) -> None:
    assert raw_partner("a.jpg", ["a.jpg", f"a{suffix}"]) == f"a{suffix}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(
        tmp_path / "photos",
        {
            "kept/I.HEIC": PHOTO,
            "kept/I.MOV": VIDEO,
            "kept/I.xmp": STARS,
            "copies/I.HEIC": PHOTO,
            "copies/I.mov": VIDEO,
            "copies/I.HEIC.xmp": STARS,
        },
    )


@pytest.mark.parametrize("action", ["trash", "move", "delete"])
def test_companions_go_with_their_photo_and_come_back(root: Path, action: str) -> None:
    before = tree(root)
    words = f"move:{root.parent / 'moved'}" if action == "move" else action
    removals = [removal(root, "copies/I.HEIC", "kept/I.HEIC")]
    plan = make_plan(root, removals, Action.parse(words))
    assert plan.removals[0].companions == ("copies/I.HEIC.xmp", "copies/I.mov")
    assert plan.freed_bytes == len(PHOTO + VIDEO + STARS)
    report = remove(root, removals, words)
    assert [entry.path for entry in report.done] == ["copies/I.HEIC", "copies/I.HEIC.xmp", "copies/I.mov"]
    assert report.freed_bytes == plan.freed_bytes
    assert sorted(tree(root)) == ["kept/I.HEIC", "kept/I.MOV", "kept/I.xmp"]
    assert len(restore(report).restored) == 3
    assert tree(root) == before


@pytest.mark.parametrize("action", ["hardlink", "symlink"])
def test_companions_of_a_link_stay(root: Path, action: str) -> None:
    report = remove(root, [removal(root, "copies/I.HEIC", "kept/I.HEIC")], action)
    assert [entry.path for entry in report.done] == ["copies/I.HEIC"]
    assert tree(root)["copies/I.mov"] == VIDEO


@pytest.mark.parametrize("lost", ["kept/I.MOV", "kept/I.xmp"])
def test_a_companion_that_the_keeper_lacks_is_not_deleted(root: Path, lost: str) -> None:
    (root / lost).unlink()
    removals = [removal(root, "copies/I.HEIC", "kept/I.HEIC")]
    refusal = make_plan(root, removals, Action.parse("delete")).refusals[0]
    assert "would be lost with its photo, because kept/I.HEIC has no equal companion" in refusal.reason
    assert make_plan(root, removals, Action.parse("trash")).refusals == ()


def test_a_companion_of_other_bytes_is_not_deleted_either(root: Path) -> None:
    (root / "kept/I.xmp").write_bytes(b"<*****>")  # as long, so that only reading tells
    before = tree(root)
    report = remove(root, [removal(root, "copies/I.HEIC", "kept/I.HEIC")], "delete")
    assert report.done == ()
    assert "copies/I.HEIC.xmp would be lost" in report.refusals[0].reason
    assert tree(root) == before


def test_a_shared_companion_goes_only_when_both_photos_went(root: Path) -> None:
    fill(root, {"copies/I.JPG": b"another", "kept/J.JPG": b"another"})
    removals = [removal(root, "copies/I.JPG", "kept/J.JPG"), removal(root, "copies/I.HEIC", "kept/I.HEIC")]
    plan = make_plan(root, removals, Action.parse("trash"))
    assert [act.companions for act in plan.removals] == [(), ("copies/I.HEIC.xmp", "copies/I.mov")]
    one = remove(root, removals[:1], "trash")
    assert [entry.path for entry in one.done] == ["copies/I.JPG"]
    assert "copies/I.mov" in tree(root)


def test_moved_companions_keep_the_name_of_their_photo(root: Path) -> None:
    moved = fill(root.parent / "moved", {"copies/I.mov": b"some other film"})
    report = remove(root, [removal(root, "copies/I.HEIC", "kept/I.HEIC")], f"move:{moved}")
    names = {"copies/I (2).HEIC", "copies/I (2).HEIC.xmp", "copies/I (2).mov", "copies/I.mov"}
    assert set(tree(moved)) == names
    assert len(restore(report).restored) == 3


@pytest.mark.parametrize("action", ["trash", "delete"])
def test_half_of_a_raw_and_jpeg_pair_is_left_alone_unless_asked(root: Path, action: str) -> None:
    fill(root, {"pairs/R.JPG": PHOTO, "pairs/R.NEF": b"raw"})
    removals = [removal(root, "pairs/R.JPG", "kept/I.HEIC")]
    refusal = make_plan(root, removals, Action.parse(action)).refusals[0]
    said = "pairs/R.JPG and R.NEF are a RAW and JPEG pair; allow removing one of them with "
    assert (refusal.reason, refusal.shell_reason) == (f"{said}raw_pairs=True", f"{said}--raw-pairs")
    assert make_plan(root, removals, Action.parse("symlink")).refusals == ()
    report = remove(root, removals, action, raw_pairs=True)
    assert [entry.path for entry in report.done] == ["pairs/R.JPG"]
    assert tree(root)["pairs/R.NEF"] == b"raw"


def test_a_companion_that_is_protected_or_a_link_stops_its_photo(root: Path) -> None:
    removals = [removal(root, "copies/I.HEIC", "kept/I.HEIC")]
    plan = make_plan(root, removals, Action.parse("trash"), [root / "copies/I.mov"])
    assert plan.refusals[0].reason == "copies/I.mov is protected"
    (root / "copies/I.mov").unlink()
    (root / "copies/I.mov").symlink_to(root / "kept/I.MOV")
    refusal = make_plan(root, removals, Action.parse("trash")).refusals[0]
    assert "copies/I.mov is a symbolic link" in refusal.reason
