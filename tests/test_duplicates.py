"""Duplicates from photos to groups: real photos and edited copies of them, with a network that is faked."""

import os
import re
import shutil
import zlib
from collections.abc import Iterator
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tests.fakes import FakeEngine, save_photo
from tests.helpers.calibration import calibrated_with
from tests.helpers.raw_files import tiff_ep
from vggsearch import ImageIndex
from vggsearch.duplicates import confirmation
from vggsearch.duplicates.find import DuplicatesReport
from vggsearch.duplicates.keep_policy import LEAST_BYTES_WITH_VIDEO
from vggsearch.duplicates.options import DuplicateOptions
from vggsearch.duplicates.removals import new_journal
from vggsearch.errors import DecisionsDamaged, OptionError, Stopped
from vggsearch.knn.keypoint_votes import CodedKeypoints
from vggsearch.matching.keypoint_codes import code_keypoints
from vggsearch.matching.keypoints import Keypoints
from vggsearch.removal.undo import undo
from vggsearch.render.calibration import chosen_line
from vggsearch.render.duplicates import duplicate_groups
from vggsearch.store.contents import DECISIONS, EDGES, HASH_EDGES, KEYPOINT_CODES, KEYPOINT_MATCHES, KEYPOINT_VOTES
from vggsearch.store.decisions import read_decisions


@pytest.fixture(scope="module", autouse=True)
def few_edited_copies() -> Iterator[None]:
    with calibrated_with(15):
        yield


@pytest.fixture(scope="module")
def whole(sample_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageIndex]:
    """An index of the sample photos, exact copies of two, a PNG of one copy, a blank and a look-alike pair."""
    base = tmp_path_factory.mktemp("duplicates")
    photos = base / "photos"
    shutil.copytree(sample_photos, photos)
    (photos / "again").mkdir()
    for name in ("coffee", "rocket"):
        shutil.copy(photos / "originals" / f"{name}.jpg", photos / "again" / f"{name}.jpg")
    Image.open(photos / "originals" / "coffee.jpg").save(photos / "again" / "coffee.png")
    for name in ("one", "two"):
        Image.new("RGB", (64, 64), "black").save(photos / "again" / f"blank {name}.png", compress_level=len(name))
    with ImageIndex.create(base / "index", engine=FakeEngine()) as index:
        index.update(photos)
        yield index


@pytest.fixture(scope="module")
def found(whole: ImageIndex) -> DuplicatesReport:
    return whole.duplicates()


@pytest.fixture
def index(whole: ImageIndex, tmp_path: Path) -> Iterator[ImageIndex]:
    """A copy of that index and its photos, to change."""
    assert whole.root is not None
    shutil.copytree(whole.root, tmp_path / "photos")
    shutil.copytree(whole.directory, tmp_path / "index")
    with ImageIndex.open(tmp_path / "index", engine=FakeEngine(), root=tmp_path / "photos") as copied:
        yield copied


def family(path: str) -> str:
    """Return the name of the photo that a sample file was made from: edited/coffee_half.jpg is of coffee."""
    return Path(path).stem.split("_")[0]


def group_of(report: DuplicatesReport, path: str) -> set[str]:
    """Return the paths of all photos in the group of one photo."""
    for group in report.groups:
        paths = {group.keeper.path, *(member.photo.path for member in group.members)}
        if path in paths:
            return paths
    return {path}


def test_no_group_holds_two_different_photos_and_most_copies_are_found(found: DuplicatesReport) -> None:
    for group in found.groups:
        assert {family(member.photo.path) for member in group.members} == {family(group.keeper.path)}
    edited = [member.photo.path for group in found.groups for member in group.members]
    copies = found.photos - found.blank - len({family(path) for path in edited})
    assert len(edited) >= 0.6 * copies  # the fake network recognises neither mirror images nor crops


def test_each_kind_of_duplicate_is_named(found: DuplicatesReport) -> None:
    kinds: dict[str, str] = {member.photo.path: member.kind for group in found.groups for member in group.members}
    kinds |= {group.keeper.path: "kept" for group in found.groups}
    rockets = sorted(kinds[f"{folder}/rocket.jpg"] for folder in ("again", "originals"))
    assert rockets == ["exact", "kept"]
    coffees = sorted(kinds[path] for path in ("again/coffee.jpg", "originals/coffee.jpg", "again/coffee.png"))
    assert coffees in (["exact", "kept", "same picture"], ["kept", "same picture", "same picture"])


def test_blank_photos_are_excluded_and_counted(found: DuplicatesReport) -> None:
    assert found.blank == 2
    assert not any("blank" in group.keeper.path for group in found.groups)


def test_every_member_has_a_reason_and_only_identical_ones_have_similarity_1(
    found: DuplicatesReport,
) -> None:
    for group in found.groups:
        for member in group.members:
            assert member.reason
            assert (member.similarity == 1) == (member.kind in ("exact", "same picture"))
            assert 0.5 <= member.confidence <= 1


def test_a_raw_file_is_shown_with_its_photo_wherever_it_is_and_never_removed_for_it(index: ImageIndex) -> None:
    assert index.root is not None
    (index.root / "raw").mkdir()
    rocket, coffee = ((index.root / "originals" / f"{name}.jpg").read_bytes() for name in ("rocket", "coffee"))
    (index.root / "raw" / "capture.NEF").write_bytes(tiff_ep(preview=rocket))
    (index.root / "originals" / "coffee.DNG").write_bytes(tiff_ep(preview=coffee))
    index.update(index.root)
    report = index.duplicates()
    (group,) = (each for each in report.groups if each.keeper.path.endswith("rocket.jpg"))
    (raw,) = (member for member in group.members if member.kind == "RAW")
    assert (raw.photo.path, raw.reason) == ("raw/capture.NEF", "RAW file of the photo")
    assert raw not in group.removable
    assert re.search("raw/capture.NEF +RAW ", duplicate_groups(report.groups, "table", index.root))
    assert group_of(report, "originals/coffee.DNG") == {"originals/coffee.DNG"}  # as the names say
    paired = {pair.first.path for pair in report.pairs if pair.kind == "RAW"}
    paired |= {pair.second.path for pair in report.pairs if pair.kind == "RAW"}
    assert {"raw/capture.NEF", "originals/coffee.DNG"} <= paired

    index.decide("same", ["raw/capture.NEF", "originals/rocket.jpg"])
    report = index.duplicates()
    assert "raw/capture.NEF" in group_of(report, "originals/rocket.jpg")
    plan = index.plan_removal(report, "delete", raw_pairs=True)
    assert not {"raw/capture.NEF", "originals/coffee.DNG"} & {planned.path for planned in plan.removals}


def test_a_photo_with_an_impossible_date_does_not_end_the_search(index: ImageIndex) -> None:
    assert index.root is not None
    exif = Image.Exif()
    exif[ExifTags.Base.DateTime] = "0001:01:01 00:00:00"
    with Image.open(index.root / "originals" / "rocket.jpg") as photo:
        photo.save(index.root / "odd.jpg", exif=exif, quality=90)
    index.update(index.root)
    assert "originals/rocket.jpg" in group_of(index.duplicates(keep="oldest"), "odd.jpg")


def test_the_second_run_is_the_same_and_compares_nothing_again(index: ImageIndex, found: DuplicatesReport) -> None:
    stages: list[str] = []
    again = index.duplicates(progress=lambda progress: stages.append(progress.stage))
    assert again.groups == found.groups
    assert "comparing pairs" not in stages
    assert "making edited copies" not in stages
    checks = index.directory / KEYPOINT_MATCHES
    written = checks.stat().st_ino, checks.stat().st_mtime_ns
    assert "finding keypoints" not in stages
    assert list(index.directory.rglob(EDGES))
    assert list(index.directory.rglob(KEYPOINT_VOTES))
    index.duplicates()
    assert (checks.stat().st_ino, checks.stat().st_mtime_ns) == written  # there was nothing to add


def test_after_a_photo_is_added_only_its_keypoints_are_detected_for_votes(
    index: ImageIndex, found: DuplicatesReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert index.duplicates().groups == found.groups
    coded = list[Keypoints]()

    def code(keypoints: Keypoints) -> CodedKeypoints:
        coded.append(keypoints)
        return code_keypoints(keypoints)

    monkeypatch.setattr(confirmation, "code_keypoints", code)
    assert index.root is not None
    save_photo(index.root / "new.jpg", 999)
    index.update(index.root)
    index.duplicates()
    assert len(coded) == 1


def test_damaged_keypoints_are_detected_again(
    index: ImageIndex, found: DuplicatesReport, caplog: pytest.LogCaptureFixture
) -> None:
    path = index.directory / KEYPOINT_CODES
    whole = path.read_bytes()
    (votes,) = index.directory.rglob(KEYPOINT_VOTES)
    votes.unlink()
    path.write_bytes(whole[: len(whole) // 2])
    assert index.duplicates().groups == found.groups
    assert f"{KEYPOINT_CODES} is damaged" in caplog.text
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", [EDGES, HASH_EDGES, KEYPOINT_VOTES])
def test_stored_pairs_that_are_damaged_are_searched_again(
    index: ImageIndex, found: DuplicatesReport, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    assert index.duplicates().groups == found.groups
    (edges,) = index.directory.rglob(name)
    whole = edges.read_bytes()
    edges.write_bytes(whole[: len(whole) // 2])
    assert index.duplicates().groups == found.groups
    assert f"{name} is damaged" in caplog.text
    assert edges.read_bytes() == whole


def test_photos_decided_different_are_never_duplicates_even_when_renamed(index: ImageIndex) -> None:
    before = index.duplicates()
    group = next(group for group in before.groups if family(group.keeper.path) == "rocket")
    paths = [group.keeper.path, *(member.photo.path for member in group.members if member.kind != "exact")]
    index.decide("different", paths)
    assert group_of(index.duplicates(), "originals/rocket.jpg") == {"originals/rocket.jpg", "again/rocket.jpg"}
    assert index.root is not None
    (index.root / paths[1]).rename(index.root / "renamed.jpg")
    index.update(index.root)
    assert group_of(index.duplicates(), "renamed.jpg") == {"renamed.jpg"}
    index.decide("undecided", [path if path != paths[1] else "renamed.jpg" for path in paths])
    assert "renamed.jpg" in group_of(index.duplicates(), "originals/rocket.jpg")


def test_photos_that_the_user_keeps_are_not_removed_until_they_are_undecided_again(
    index: ImageIndex, found: DuplicatesReport
) -> None:
    group = next(group for group in found.groups if family(group.keeper.path) == "rocket")
    copy = next(member.photo.path for member in group.members if member.photo.path.startswith("edited/"))
    kept = [copy, "again/rocket.jpg"]  # the latter has the same bytes as originals/rocket.jpg
    index.decide("keep", kept)
    report = index.duplicates()
    chosen = next(group for group in report.groups if group.keeper.path in kept)
    assert {member.reason for member in chosen.members} == {"you decided to keep it"}
    removed = {planned.path for planned in index.plan_removal(report, "delete").removals}
    assert "originals/rocket.jpg" in removed
    assert not removed.intersection(kept)

    index.decide("undecided", ["again/rocket.jpg"])
    index.decide("undecided", [copy])
    assert index.duplicates().groups == found.groups


def test_photos_decided_the_same_are_duplicates_however_dissimilar(index: ImageIndex) -> None:
    index.decide("same", ["originals/rocket.jpg", "originals/coffee.jpg"])
    pairs = index.duplicates().pairs
    mixed = [pair for pair in pairs if {family(pair.first.path), family(pair.second.path)} == {"rocket", "coffee"}]
    assert any(pair.confidence == 1.0 for pair in mixed)


def test_a_decision_applies_even_to_two_shots_of_a_burst(index: ImageIndex) -> None:
    assert index.root is not None
    shots = []
    for second in (1, 2):
        exif = Image.Exif()
        exif[306] = f"2024:05:01 12:00:0{second}"
        path = index.root / f"shot {second}.jpg"
        with Image.open(index.root / "originals" / "rocket.jpg") as photo:
            photo.save(path, quality=80 + second, exif=exif)
        shots.append(path.name)
    index.update(index.root)
    pairs = {frozenset((pair.first.path, pair.second.path)) for pair in index.duplicates().pairs}
    assert frozenset(shots) not in pairs
    index.decide("same", shots)
    pairs = {frozenset((pair.first.path, pair.second.path)) for pair in index.duplicates().pairs}
    assert frozenset(shots) in pairs


def test_a_partial_report_is_not_acted_on(index: ImageIndex) -> None:
    index.duplicates()
    (index.directory / KEYPOINT_MATCHES).unlink()
    stops = iter([False] * 2)
    with pytest.raises(Stopped) as stopped:
        index.duplicates(stop=lambda: next(stops, True))
    report = stopped.value.report
    assert isinstance(report, DuplicatesReport)
    assert not report.classified.is_complete
    with pytest.raises(OptionError, match="stopped early"):
        index.plan_removal(report, "delete")


def test_similarity_alone_is_not_acted_on_unless_the_user_chose_a_threshold(index: ImageIndex) -> None:
    by_calibration = index.duplicates(confirm=False)
    with pytest.raises(OptionError, match="were not compared"):
        index.plan_removal(by_calibration, "delete")
    by_threshold = index.duplicates(confirm=False, threshold=0.95)
    assert index.plan_removal(by_threshold, "delete").removals


def test_protected_folders_may_be_named_relative_to_the_current_directory(
    index: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert index.root is not None
    monkeypatch.chdir(index.root.parent)
    plan = index.plan_removal(index.duplicates(), "delete", protect=["photos/edited"])
    assert plan.removals
    assert not any(act.path.startswith("edited/") for act in plan.removals)


def joined(report: DuplicatesReport, one: str, other: str) -> bool:
    """Whether a report suggests to remove one of two photos as a copy of the other."""
    pairs = {frozenset((pair.first.path, pair.second.path)) for pair in report.pairs}
    members = {frozenset((group.keeper.path, each.photo.path)) for group in report.groups for each in group.members}
    return frozenset((one, other)) in pairs | members


SELECTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"across_folders": True},
    {"within_folder": True},
    {"keep": "newest"},
    {"threshold": 0.9},
)


def test_two_identical_photos_that_are_decided_different_do_not_come_back(index: ImageIndex) -> None:
    assert index.root is not None
    shutil.copy(index.root / "originals" / "rocket.jpg", index.root / "originals" / "twin.jpg")
    index.update(index.root)
    rocket, again, twin = "originals/rocket.jpg", "again/rocket.jpg", "originals/twin.jpg"
    assert joined(index.duplicates(), rocket, again)
    assert joined(index.duplicates(within_folder=True), rocket, twin)
    index.decide("different", [rocket, again, twin])
    for options in SELECTIONS:
        report = index.duplicates(**options)
        for pair in combinations((rocket, again, twin), 2):
            assert not joined(report, *pair), options
        removed = {planned.path: planned.removal.keeper for planned in index.plan_removal(report, "trash").removals}
        assert {rocket, again, twin}.isdisjoint(removed.get(path) for path in (rocket, again, twin)), options
    index.decide("undecided", [rocket, twin])
    report = index.duplicates(within_folder=True)
    assert joined(report, rocket, twin)
    assert not joined(index.duplicates(), rocket, again)
    (index.root / again).rename(index.root / "again" / "moved.jpg")
    index.update(index.root)
    assert joined(index.duplicates(), rocket, "again/moved.jpg"), "what is by path ends with the path"


def test_decisions_on_unknown_photos_are_refused_and_a_damaged_line_is_named(
    index: ImageIndex, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OptionError, match=r"nowhere.jpg is not in the index"):
        index.decide("same", ["originals/rocket.jpg", "nowhere.jpg"])
    with pytest.raises(OptionError, match="Name at least two photos; the decision applies to every pair of them"):
        index.decide("same", ["originals/rocket.jpg"])
    index.decide("different", ["originals/rocket.jpg", "originals/coffee.jpg"])
    path = index.directory / DECISIONS
    path.write_text(path.read_text("utf-8") + "{torn", "utf-8")
    report = index.duplicates()
    assert "decisions.jsonl cannot be read" in caplog.text
    assert not joined(report, "originals/rocket.jpg", "originals/coffee.jpg")
    with pytest.raises(DecisionsDamaged, match=r"Line 2 of .*decisions\.jsonl"):
        index.plan_removal(report, "trash")
    assert path.read_text("utf-8").endswith("{torn")


def test_decisions_of_another_index_are_imported_once(index: ImageIndex, tmp_path: Path) -> None:
    index.decide("different", ["originals/rocket.jpg", "originals/coffee.jpg"])
    shutil.copy(index.directory / DECISIONS, tmp_path / "exported.jsonl")
    index.decide("same", ["originals/rocket.jpg", "originals/coffee.jpg"])
    assert index.import_decisions(tmp_path / "exported.jsonl").added == 0
    decisions = read_decisions(index.directory / DECISIONS)
    assert [decision.judgement for decision in decisions.made] == ["different", "same"]
    assert list(decisions.pairs().values()) == ["same"]


def test_a_protected_folder_is_kept_whatever_the_policy(index: ImageIndex) -> None:
    report = index.duplicates(protect=("edited",), keep="resolution")
    for group in report.groups:
        for member in group.removable:
            assert not member.photo.path.startswith("edited/")
    assert any(member.left_alone == "protected" for group in report.groups for member in group.members)


def test_no_crop_is_removed_for_another_one_that_lacks_some_of_its_scene(
    sample_photos: Path, tmp_path: Path
) -> None:
    image, paths = Image.open(sample_photos / "originals" / "rocket.jpg"), ["left.png", "right.png"]
    (tmp_path / "photos").mkdir()
    for path, left in zip(paths, (0, 0.3), strict=True):
        box = round(left * image.width), 0, round((left + 0.7) * image.width), image.height
        image.crop(box).save(tmp_path / "photos" / path)
    with ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as index:
        index.update(tmp_path / "photos")
        ((member,),) = (group.members for group in index.duplicates().groups)
        assert member.left_alone == "it shows some of the scene that the photo to keep does not"
        index.decide("same", paths)
        ((member,),) = (group.members for group in index.duplicates().groups)
        assert member.left_alone is None


def test_a_motion_photo_is_kept_rather_than_the_same_picture_without_its_video(tmp_path: Path) -> None:
    photos, video = tmp_path / "photos", b"\x00\x00\x00\x18ftypmp42" + bytes(LEAST_BYTES_WITH_VIDEO)
    still = save_photo(photos / "album" / "still.jpg", 0)
    moving = save_photo(photos / "moving.jpg", 0, xmp=b'<rdf:Description GCamera:MotionPhoto="1"/>')
    moving.write_bytes(moving.read_bytes() + video)
    os.utime(still, (1_000_000_000, 1_000_000_000))
    with ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as index:
        index.update(photos)
        (group,) = index.duplicates().groups
        assert group.keeper.path == "moving.jpg"
        assert group.removable[0].reason == "it holds a video, the other does not"
        (group,) = index.duplicates(protect=["album"]).groups
        assert group.keeper.path == "album/still.jpg"
        assert [member.left_alone for member in group.members] == ["it holds a video, the photo to keep does not"]


@pytest.mark.parametrize("named", ["edietd", "edited/*.jpg", "edited/none.jpg", ["edited", "edietd"]])
def test_a_protected_folder_that_does_not_exist_is_an_error_before_the_search(
    index: ImageIndex, monkeypatch: pytest.MonkeyPatch, named: str | list[str]
) -> None:
    monkeypatch.setattr("vggsearch.duplicates.find.duplicates", lambda *_: pytest.fail("it searched"))
    with pytest.raises(OptionError, match="there is no such folder or file in the photo folder"):
        index.duplicates(protect=named)


def test_a_protected_folder_without_photos_and_a_keep_rule_that_matches_none_are_told(
    index: ImageIndex, caplog: pytest.LogCaptureFixture
) -> None:
    assert index.root is not None
    (index.root / "empty").mkdir()
    index.duplicates(protect=["edited", "empty"], keep="path:edietd/*,path:edited/*,oldest")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        f"No photo of the index is in {index.root / 'empty'}, so there is nothing to protect.",
        "The keep rule path:edietd/* matches no photo of the index.",
    ]


def test_photos_can_be_protected_while_their_folder_is_away(index: ImageIndex) -> None:
    assert index.root is not None
    index.root.rename(index.root.with_name("away"))
    report = index.duplicates(protect="edited", threshold=0.9)
    assert not any(member.photo.path.startswith("edited/") for group in report.groups for member in group.removable)
    with pytest.raises(OptionError, match="no such folder"):
        index.duplicates(protect="edietd", threshold=0.9)


def test_pairs_can_be_limited_to_one_folder_or_to_different_folders(index: ImageIndex) -> None:
    within = index.duplicates(within_folder=True)
    across = index.duplicates(across_folders=True)
    for pair in within.pairs:
        assert Path(pair.first.path).parent == Path(pair.second.path).parent
    for pair in across.pairs:
        assert Path(pair.first.path).parent != Path(pair.second.path).parent
    assert within.pairs
    assert across.pairs


def test_exact_copies_elsewhere_do_not_hide_pairs_of_folders(index: ImageIndex) -> None:
    """If copies are in two folders, each of them is in pairs of its own."""
    assert index.root is not None
    for folder in ("a", "b"):
        (index.root / folder).mkdir()
        shutil.copy(index.root / "originals" / "rocket.jpg", index.root / folder / "rocket.jpg")
    shutil.copy(index.root / "originals" / "rocket.jpg", index.root / "b" / "second.jpg")
    with Image.open(index.root / "originals" / "rocket.jpg") as picture:
        picture.save(index.root / "a" / "near.jpg", quality=60)
    index.update(index.root)

    def paths(report: DuplicatesReport, *, within_folder: bool) -> set[frozenset[str]]:
        for group in report.groups:
            folders = [Path(member.photo.path).parent == Path(group.keeper.path).parent for member in group.members]
            assert all(folders) if within_folder else not any(folders)
        return {frozenset((pair.first.path, pair.second.path)) for pair in report.pairs}

    within = paths(index.duplicates(within_folder=True), within_folder=True)
    across = paths(index.duplicates(across_folders=True), within_folder=False)
    assert {frozenset(("a/near.jpg", "a/rocket.jpg")), frozenset(("b/rocket.jpg", "b/second.jpg"))} <= within
    copies = ("again/rocket.jpg", "a/rocket.jpg", "b/rocket.jpg", "b/second.jpg")
    assert {frozenset((each, "originals/rocket.jpg")) for each in copies} <= across  # the oldest is the best
    assert {frozenset(("a/near.jpg", each)) for each in ("originals/rocket.jpg", "b/rocket.jpg")} <= across


def test_against_another_index_only_photos_it_has_are_found(index: ImageIndex, tmp_path: Path) -> None:
    assert index.root is not None
    other = tmp_path / "others"
    other.mkdir()
    shutil.copy(index.root / "originals" / "rocket.jpg", other / "kept.jpg")
    with ImageIndex.create(tmp_path / "other-index", engine=FakeEngine()) as theirs:
        theirs.update(other)
        report = index.duplicates(against=theirs)
        assert {group.keeper.path for group in report.groups} == {str(other / "kept.jpg")}
        with pytest.raises(OptionError, match="within one index"):
            index.plan_removal(report, "delete")
        paths = {member.photo.path for group in report.groups for member in group.members}
        assert {"originals/rocket.jpg", "again/rocket.jpg"} <= paths
        assert {family(path) for path in paths} == {"rocket"}


def test_a_threshold_replaces_the_calibration(index: ImageIndex) -> None:
    strict = index.duplicates(threshold=0.97)
    assert strict.classified.min_confidence is None
    assert all(pair.similarity >= 0.97 for pair in strict.pairs)
    loose = index.duplicates(threshold=0.6)
    assert len(loose.pairs) > len(strict.pairs)


class _NothingAlike(FakeEngine):
    """A network to which any two pictures that differ in a pixel are as different as can be."""

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        seeds = [zlib.crc32(square.tobytes()) for square in squares]
        rows = np.stack([np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds])
        unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit


def test_turned_copies_are_found_though_the_network_does_not_recognise_them(
    sample_photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(sample_photos / "originals", tmp_path / "photos")
    expected = set()
    for path, turn in zip(sorted((tmp_path / "photos").iterdir()), Image.Transpose, strict=False):
        Image.open(path).convert("RGB").transpose(turn).save(path.with_name(f"turned {path.stem}.jpg"), quality=80)
        expected.add(frozenset((path.name, f"turned {path.stem}.jpg")))
    with ImageIndex.create(tmp_path / "index", engine=_NothingAlike()) as index:
        index.update(tmp_path / "photos")
        report = index.duplicates(confirm=False)
    assert {frozenset((pair.first.path, pair.second.path)) for pair in report.pairs} == expected
    assert len(expected) == 7
    assert min(pair.similarity for pair in report.pairs) > 0.9


def test_small_groups_can_be_omitted_and_the_least_certain_reviewed_first(
    found: DuplicatesReport, index: ImageIndex
) -> None:
    large = index.duplicates(min_size=4)
    assert all(len(group.members) >= 3 for group in large.groups)
    confidences = [min(member.confidence for member in group.members) for group in found.in_review_order()]
    assert confidences == sorted(confidences)


def test_without_the_photo_files_embeddings_alone_decide_and_the_report_says_so(index: ImageIndex) -> None:
    assert index.root is not None
    index.root.rename(index.root.with_name("away"))
    report = index.duplicates()
    assert not report.was_compared
    assert any(member.kind == "exact" for group in report.groups for member in group.members)


def test_duplicates_are_moved_and_restored(index: ImageIndex, tmp_path: Path) -> None:
    assert index.root is not None
    before = {path.relative_to(index.root): path.read_bytes() for path in index.root.rglob("*") if path.is_file()}
    report = index.duplicates()
    done = index.remove(index.plan_removal(report, f"move:{tmp_path / 'away'}"))
    gone = {member.photo.path for group in report.groups for member in group.removable}
    assert {entry.path for entry in done.done} == gone
    assert not any((index.root / path).exists() for path in gone)
    assert all((tmp_path / "away" / path).exists() for path in gone)
    undo(done.journal)
    after = {path.relative_to(index.root): path.read_bytes() for path in index.root.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    "options",
    [
        {"min_precision": 1.0},
        {"min_precision": 0.2},
        {"threshold": 0.0},
        {"threshold": 1.5},
        {"min_size": 1},
        {"within_folder": True, "across_folders": True},
    ],
)
def test_invalid_options_are_refused_with_their_names(options: dict[str, object]) -> None:
    with pytest.raises(OptionError) as raised:
        DuplicateOptions(**options)  # type: ignore[arg-type]
    assert all(f"{name}={value!r}" in str(raised.value) for name, value in options.items())


def test_journals_are_named_after_the_time(tmp_path: Path) -> None:
    journal = new_journal(tmp_path)
    named = datetime.strptime(journal.stem, "%Y-%m-%d-%H%M%S")
    assert abs((datetime.now() - named).total_seconds()) < 60


def test_two_removals_within_a_second_have_two_journals(tmp_path: Path) -> None:
    taken = set[Path]()
    for _ in range(5):
        journal = new_journal(tmp_path)
        assert journal not in taken
        journal.touch()
        taken.add(journal)


@pytest.mark.parametrize("count", [3, 90])
def test_one_content_in_many_folders_makes_one_pair_for_each(tmp_path: Path, count: int) -> None:
    first = save_photo(tmp_path / "photos" / "000" / "a.png", seed=1, size=(64, 48))
    for number in range(1, count):
        (tmp_path / "photos" / f"{number:03}").mkdir()
        shutil.copy(first, tmp_path / "photos" / f"{number:03}" / "a.png")
    shutil.copy(first, tmp_path / "photos" / "000" / "b.png")
    shutil.copy(first, tmp_path / "photos" / "001" / "b.png")
    with Image.open(first) as picture:
        for number in (0, 1, 2):
            picture.save(tmp_path / "photos" / f"{number:03}" / "near.jpg", quality=90)
    with ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as index:
        index.update(tmp_path / "photos")
        report = index.duplicates(across_folders=True, threshold=0.9)
    (group,) = report.groups
    assert group.keeper.path == "000/a.png"
    members = sorted(member.photo.path for member in group.members)
    assert members == sorted(
        [*(f"{number:03}/a.png" for number in range(1, count)), "001/b.png", "001/near.jpg", "002/near.jpg"]
    )
    exact = [pair for pair in report.pairs if pair.kind == "exact"]
    assert len(exact) == (count - 1) + 1 + 2  # with the keeper, and of the three near ones with the best of them
    assert len(report.pairs) - len(exact) == count + 2 + 3 - 2  # one for each row; two rows find each other
    assert len(report.classified.compared) == 1
    for pair in report.pairs:
        assert Path(pair.first.path).parent != Path(pair.second.path).parent


def test_the_recall_is_printed_with_the_range_that_few_copies_leave(found: DuplicatesReport) -> None:
    likely, recall = found.recall_range, found.classified.recall
    assert likely is not None
    assert recall is not None
    low, high = likely
    assert 0 <= low < high <= 1
    assert low <= recall <= high
    assert f"{recall:.0%} of edited copies are found ({low:.0%} to {high:.0%})" in chosen_line(found)


def test_a_photo_is_as_old_as_its_oldest_exact_copy(index: ImageIndex) -> None:
    """The name of a younger exact copy of the original comes first; a photo saved from it lies between in time."""
    assert index.root is not None
    folder, newest = index.root / "again", 1_500_000_000
    original, younger, saved = folder / "chelsea.jpg", folder / "chelsea-edited.jpg", folder / "saved.jpg"
    for path, quality in ((original, 92), (saved, 91)):
        Image.open(index.root / "originals" / "chelsea.jpg").resize((900, 600)).save(path, quality=quality)
    shutil.copy(original, younger)
    for path, age in ((original, 200_000), (saved, 100_000), (younger, 0)):
        os.utime(path, (newest - age, newest - age))
    index.update(index.root)
    group = next(
        each for each in index.duplicates().groups if each.keeper.path in ("again/chelsea.jpg", "again/saved.jpg")
    )
    assert group.keeper.path == "again/chelsea.jpg"
    assert {member.photo.path: member.reason for member in group.members}["again/saved.jpg"] == "the older one"
