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
        ("a.HEIC", ["a.AAE", "a.heic.aae", "b.AAE", "aa.AAE"], ["a.AAE", "a.heic.aae"]),
        ("a.NEF", ["a.NEF.pp3", "a.NEF.dop", "a.pp3", "a.arp", "a.vrd", "a.on1"], None),
        ("a.jpg", ["a.jpg.json", "a.json", "a.jpg.supplemental-metadata.json", "a.jpg.supple.json"], None),
        ("a.jpg", ["a.jpg.notes.json", "a.png.json", "ab.json", "a.jpg.supplemental-metadatas.json"], []),
        ("a(1).jpg", ["a.jpg(1).json", "a.jpg.supplemental-metadata(1).json", "a(1).jpg.json"], None),
        ("a(1).jpg", ["a.jpg.json", "a.jpg(2).json", "a.png(1).json", "a.jpg(1).xmp", "a.xmp"], []),
        ("a.jpg", ["a.jpg(1).json"], []),
        ("a.jpg", ["a_01.jpg.xmp", "a_02.JPG.xmp", "a_100.jpg.xmp"], None),
        ("a.jpg", ["a_1.jpg.xmp", "a_01.xmp", "a_01.png.xmp", "a_x1.jpg.xmp", "a_01.jpg.pp3"], []),
        ("a.jpg", ["a_01.jpg", "a_01.jpg.xmp", "a_02.jpg.xmp"], ["a_02.jpg.xmp"]),  # a_01.jpg has its own
        ("a.jpg", ["a.nef", "a.aae", "a.pp3", "a.jpg.pp3", "a.nef.pp3"], ["a.jpg.pp3"]),
    ],
)
def test_what_goes_with_a_photo(photo: str, beside_it: list[str], go: list[str] | None) -> None:
    """None for `go` means all of them."""
    assert list(companions(photo, [photo, *beside_it])) == (sorted(beside_it) if go is None else go)


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


def test_a_companion_that_the_keeper_lacks_is_not_deleted(root: Path) -> None:
    (root / "kept/I.xmp").unlink()
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


UUID = b"4F6B2C1A-9E0D-4B7C-8A53-0123456789AB"
LIVE = PHOTO + b"Apple iOS\0" + UUID + b"rest"


def film(uuid: bytes = UUID, *, first: bool = False) -> bytes:
    """Return a video with an identifier in its index, which is at the end or at the start."""
    body = b"keys com.apple.quicktime.content.identifier data" + uuid
    index = (8 + len(body)).to_bytes(4, "big") + b"moov" + body
    data = (1).to_bytes(4, "big") + b"mdat" + (16 + 50).to_bytes(8, "big") + bytes(50)
    kind = b"\0\0\0\x14ftypqt  " + bytes(8)
    return kind + (index + data if first else data + index)


@pytest.mark.parametrize("action", ["trash", "move", "delete"])
@pytest.mark.parametrize("mine", [VIDEO, VIDEO[:-1] + b"?", b"short", film(), b"", b"\0\0\0\1moov", bytes(1000)])
@pytest.mark.parametrize("theirs", [None, VIDEO])
def test_an_unrelated_video_stays(tmp_path: Path, action: str, mine: bytes, theirs: bytes | None) -> None:
    files = {"kept/I.JPG": PHOTO, "copies/I.JPG": PHOTO, "copies/I.MOV": mine}
    root = fill(tmp_path / "photos", files | ({} if theirs is None else {"kept/I.MOV": theirs}))
    words = f"move:{tmp_path / 'moved'}" if action == "move" else action
    report = remove(root, [removal(root, "copies/I.JPG", "kept/I.JPG")], words)
    goes = mine == theirs
    assert [entry.path for entry in report.done] == ["copies/I.JPG", *(["copies/I.MOV"] if goes else [])]
    assert report.refusals == ()
    assert tree(root).get("copies/I.MOV") == (None if goes else mine)
    restore(report)
    assert tree(root)["copies/I.MOV"] == mine


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("action", ["trash", "move"])
def test_the_video_of_exactly_this_live_photo_goes_along(tmp_path: Path, action: str, first: bool) -> None:
    video = film(UUID.lower(), first=first)
    root = fill(tmp_path / "photos", {"kept/a.jpg": b"edited", "copies/I.HEIC": LIVE, "copies/I.MOV": video})
    words = f"move:{tmp_path / 'moved'}" if action == "move" else action
    report = remove(root, [removal(root, "copies/I.HEIC", "kept/a.jpg")], words)
    assert [entry.path for entry in report.done] == ["copies/I.HEIC", "copies/I.MOV"]
    restore(report)
    assert tree(root)["copies/I.MOV"] == video


def test_the_only_video_of_a_live_photo_is_not_deleted(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", {"kept/I.HEIC": LIVE, "copies/I.HEIC": LIVE, "copies/I.MOV": film()})
    report = remove(root, [removal(root, "copies/I.HEIC", "kept/I.HEIC")], "delete")
    assert report.done == ()
    assert (
        "copies/I.MOV would be lost with its photo"
        in make_plan(root, [removal(root, "copies/I.HEIC", "kept/I.HEIC")], Action.parse("delete"))
        .refusals[0]
        .reason
    )


def test_the_video_of_another_live_photo_stays(tmp_path: Path) -> None:
    other = film(UUID.replace(b"4", b"5"))
    root = fill(tmp_path / "photos", {"kept/I.HEIC": LIVE, "copies/I.HEIC": LIVE, "copies/I.MOV": other})
    report = remove(root, [removal(root, "copies/I.HEIC", "kept/I.HEIC")], "trash")
    assert [entry.path for entry in report.done] == ["copies/I.HEIC"]
    assert tree(root)["copies/I.MOV"] == other
