import csv
import json
from dataclasses import replace
from pathlib import Path

from tests.helpers.duplicates import aligned, group, member, pair, photo
from vggsearch.render.duplicates import duplicate_groups, duplicate_pairs, member_edit

ROOT = Path("/photos")
HALF = aligned(scale=0.5)
GROUPS = [
    group(
        1,
        photo("trip/a.jpg", size=(4000, 3000), bytes=3_200_000),
        member("b.jpg", "exact", 1.0, 1.0, bytes=3_200_000),
        member(
            "c.jpg", "near", 0.98, 0.991, alignment=HALF, reason="more pixels", left_alone="in a read-only folder"
        ),
    ),
    group(2, photo("日本.jpg"), member("d.jpg", "near", 0.9, 0.95, bytes=1_000)),
]


def test_a_table_shows_what_is_kept_what_the_others_are_and_what_could_be_freed() -> None:
    assert duplicate_groups(GROUPS, "table", ROOT).splitlines() == [
        "group 1: 3 photos, similarity 0.980 or more, frees 3.2 MB",
        "  keep  trip/a.jpg  4000 x 3000    3.2 MB  2024-05-01 12:30",
        "        b.jpg         640 x 480    3.2 MB  2024-05-01 12:30  exact  1.000   100%  larger",
        "        c.jpg         640 x 480  100.0 kB  2024-05-01 12:30  near   0.980  99.1%  crop of 25%; "
        "more pixels; left alone: in a read-only folder",
        "",
        "group 2: 2 photos, similarity 0.900, frees 1.0 kB",
        "  keep  日本.jpg      640 x 480  100.0 kB  2024-05-01 12:30",
        "        d.jpg         640 x 480    1.0 kB  2024-05-01 12:30  near   0.900  95.0%  larger",
        "",
        "2 groups, 5 photos: 3 duplicates, 2 removable, freeing 3.2 MB",
    ]


def test_a_file_name_cannot_break_the_table() -> None:
    hostile = [group(1, photo("a\n\x1b[31m.jpg"), member("b\u202egpj.exe", "near", 0.9, 0.9))]
    lines = duplicate_groups(hostile, "table", None).splitlines()
    assert len(lines) == 5
    assert r"a\n\x1b[31m.jpg" in lines[1]
    assert r"b\u202egpj.exe" in lines[2]


def test_json_lines_are_a_group_a_line_as_programs_were_promised() -> None:
    first, second = map(json.loads, duplicate_groups(GROUPS, "jsonl", ROOT).splitlines())
    assert first["group"] == 1
    assert first["keep"] == "trip/a.jpg"
    assert first["reason"] == "larger; more pixels"
    assert first["members"][0] == {
        "path": "b.jpg",
        "similarity": 1.0,
        "kind": "exact",
        "confidence": 1.0,
        "reason": "larger",
    }
    assert first["members"][1]["left_alone"] == "in a read-only folder"
    assert first["members"][1]["transform"] == {
        "mirrored": False,
        "turned": 0.0,
        "area": 0.25,
        "in": "keeper",
        "corners": [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]],
    }
    assert second["members"][0]["path"] == "d.jpg"
    assert json.loads(duplicate_groups(GROUPS, "json", ROOT)) == [first, second]


def test_csv_has_a_row_for_each_photo_of_a_group() -> None:
    rows = list(csv.DictReader(duplicate_groups(GROUPS, "csv", ROOT).splitlines()))
    assert [(row["group"], row["role"], row["path"]) for row in rows] == [
        ("1", "keep", "trip/a.jpg"),
        ("1", "duplicate", "b.jpg"),
        ("1", "duplicate", "c.jpg"),
        ("2", "keep", "日本.jpg"),
        ("2", "duplicate", "d.jpg"),
    ]
    assert (rows[2]["similarity"], rows[2]["confidence"], rows[2]["transform"]) == (
        "0.9800",
        "0.9910",
        "crop of 25%",
    )


def test_paths_are_only_photos_that_may_be_removed() -> None:
    assert duplicate_groups(GROUPS, "paths", ROOT).split("\0") == ["/photos/b.jpg", "/photos/d.jpg"]


def test_no_duplicates_are_said_in_a_word_and_are_empty_for_programs() -> None:
    assert duplicate_groups([], "table", ROOT) == "no duplicates"
    assert duplicate_groups([], "jsonl", ROOT) == ""
    assert duplicate_groups([], "json", ROOT) == "[]"
    assert duplicate_pairs([], "table", ROOT) == "no duplicates"


def test_pairs_are_told_in_every_format() -> None:
    pairs = [pair("a.jpg", "b.jpg", 1.0, "exact"), pair("a.jpg", "c.jpg", 0.98, "near", aligned(mirrored=True))]
    assert duplicate_pairs(pairs, "table", ROOT).splitlines() == [
        "1.000   100%  exact  a.jpg  b.jpg",
        "0.980  98.0%  near   a.jpg  c.jpg  mirrored",
        "",
        "2 pairs",
    ]
    first, second = map(json.loads, duplicate_pairs(pairs, "jsonl", ROOT).splitlines())
    assert first == {"a": "a.jpg", "b": "b.jpg", "similarity": 1.0, "confidence": 1.0, "kind": "exact"}
    assert second["transform"]["mirrored"] is True
    assert duplicate_pairs(pairs, "csv", ROOT).splitlines()[2] == "a.jpg,c.jpg,0.9800,0.9800,near,mirrored"
    assert duplicate_pairs(pairs, "paths", ROOT).split("\0") == ["/photos/a.jpg", "/photos/b.jpg", "/photos/c.jpg"]


def test_a_pair_names_all_files_that_it_stands_for() -> None:
    near = replace(pair("a.jpg", "c.jpg", 0.98, "near"), copies_of_second=("again/c.jpg", "d.jpg"))
    (values,) = json.loads(duplicate_pairs([near], "json", ROOT))
    assert values["b_copies"] == ["again/c.jpg", "d.jpg"]
    assert "a_copies" not in values


def test_what_was_done_to_the_keeper_is_told_from_whichever_photo_the_other_was_found_in() -> None:
    turned = aligned(turned=90.0, scale=0.5)
    said = {
        where: member_edit(member("b.jpg", "near", 0.9, 0.9, alignment=turned, aligned_in=where))
        for where in ("keeper", "member")
    }
    assert said == {"keeper": "rotated 90°, crop of 25%", "member": "rotated 270°, shows more"}
    mirrored = member("b.jpg", "near", 0.9, 0.9, alignment=aligned(turned=90.0, mirrored=True), aligned_in="member")
    assert member_edit(mirrored) == "mirrored, rotated 90°"
