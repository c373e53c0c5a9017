"""Decisions: the order of lines, never of clocks; merging two files; lines that nobody would write."""

import json
import random
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from vggsearch.cli import cli
from vggsearch.duplicates.options import check_named
from vggsearch.errors import OptionError
from vggsearch.image_index import ImageIndex
from vggsearch.store import decisions as module
from vggsearch.store.contents import DECISIONS
from vggsearch.store.decisions import (
    MOST_PHOTOS,
    Decision,
    Decisions,
    ImportedDecisions,
    Judgement,
    add_decisions,
    as_text,
    decide,
    import_decisions,
    pair_key,
    read_decisions,
)

A, B, C = ((f"{number:064x}", f"{number}.jpg") for number in range(3))


def made(judgement: Judgement, *photos: tuple[str, str], at: str = "2026-01-01T00:00:00.000+00:00") -> Decision:
    return Decision(at, judgement, tuple(sha256 for sha256, _ in photos), tuple(path for _, path in photos))


def merged(tmp_path: Path, own: list[Decision], others: list[Decision]) -> tuple[list[Decision], ImportedDecisions]:
    (tmp_path / "idx").mkdir(exist_ok=True)
    (tmp_path / "idx" / DECISIONS).write_text(as_text(own), "utf-8")
    (tmp_path / "other.jsonl").write_text(as_text(others), "utf-8")
    done = import_decisions(tmp_path / "idx", tmp_path / "other.jsonl")
    return list(read_decisions(tmp_path / "idx" / DECISIONS).made), done


def test_a_later_decision_counts_though_the_clock_of_an_earlier_one_was_ahead(
    index: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = ["summer/0.jpg", "winter/4.jpg"]
    path = index.directory / DECISIONS
    for first, second in (("different", "same"), ("same", "different")):
        for clock in ("2099-01-01T00:00:00+00:00", "1999-01-01T00:00:00+00:00"):
            path.unlink(missing_ok=True)
            ahead = Decision(clock, first, *decided(index, photos))  # type: ignore[arg-type]
            add_decisions(index.directory, [ahead])
            index.decide(second, photos)  # type: ignore[arg-type]
            assert list(read_decisions(path).pairs().values()) == [second]
    frozen = made("same", A, B)
    monkeypatch.setattr(module, "decide", lambda *_: frozen)
    path.unlink()
    add_decisions(index.directory, [frozen, made("different", A, B), frozen])
    assert list(read_decisions(path).pairs().values()) == ["same"], (
        "the same line, at the same time, is a decision too"
    )


def decided(index: ImageIndex, photos: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    decision = index.decide("undecided", photos)
    return decision.photos, decision.paths


def test_merging_keeps_the_order_of_both_files(tmp_path: Path) -> None:
    one, two, three, four = (made("same", A, B, at=f"2026-01-0{day}T00:00:00+00:00") for day in (4, 1, 3, 2))
    assert merged(tmp_path, [one, three], [one, two, three, four])[0] == [one, two, three, four]
    assert merged(tmp_path, [one, four], [two, one, three])[0] == [two, one, four, three]
    lines, done = merged(tmp_path, [one, two], [one, one])
    assert (lines, done.added) == ([one, two], 0)
    assert merged(tmp_path, [one, two], [two, one])[0] == [one, two]


def test_a_decision_that_a_file_makes_after_one_of_ours_is_later_than_ours(tmp_path: Path) -> None:
    for first, second in (("different", "undecided"), ("different", "same"), ("same", "different")):
        ours = made(first, A, B)  # type: ignore[arg-type]
        lines, done = merged(tmp_path, [ours], [ours, made(second, A, B)])  # type: ignore[arg-type]
        assert (len(lines), lines[-1].judgement, done.conflicts) == (2, second, ())


@pytest.mark.parametrize("ours", ["same", "different"])
@pytest.mark.parametrize("theirs", ["same", "different", "undecided"])
def test_what_two_files_decided_differently_is_no_duplicate(
    tmp_path: Path, ours: Judgement, theirs: Judgement
) -> None:
    lines, done = merged(
        tmp_path, [made(ours, A, B, C, at="2026-01-02T00:00:00+00:00")], [made(theirs, A, B), made(theirs, B, A)]
    )
    wanted = "different" if "different" in (ours, theirs) else "same"
    pairs = read_decisions(tmp_path / "idx" / DECISIONS).pairs()
    assert pairs == {pair_key(A, B): wanted, pair_key(A, C): ours, pair_key(B, C): ours}
    assert [(each.judgement, each.paths) for each in done.conflicts] == (
        [] if ours == theirs else [(wanted, ("0.jpg", "1.jpg"))]
    )
    assert done.added == 2
    assert len(lines) == 3 + len(done.conflicts)
    again = import_decisions(tmp_path / "idx", tmp_path / "other.jsonl")
    assert again == ImportedDecisions(0, (), ())


def test_merging_any_two_files_loses_no_line_and_no_not_duplicates(tmp_path: Path) -> None:
    generator = random.Random(1)
    for _ in range(200):
        all_of = [
            made(
                generator.choice(module.JUDGEMENTS), *generator.sample([A, B, C], 2), at=f"2026-01-01T00:00:{at:02}"
            )
            for at in range(8)
        ]
        own = [each for each in all_of if generator.random() < 0.6]
        others = [each for each in all_of if generator.random() < 0.6]
        lines, done = merged(tmp_path, own, others)
        assert set(lines) == {*own, *others, *done.conflicts}
        assert [each for each in lines if each in own] == own
        assert [each for each in lines if each in others] == others
        after = read_decisions(tmp_path / "idx" / DECISIONS).pairs()
        for each in done.conflicts:
            key = pair_key(*zip(each.photos, each.paths, strict=True))
            assert after[key] == each.judgement


def test_decisions_about_identical_files_are_by_path() -> None:
    twin, other = (A[0], "twin.jpg"), (A[0], "other.jpg")
    pairs = module.Decisions((made("different", A, twin, B),)).pairs()
    assert pairs == {pair_key(A, twin): "different", pair_key(A, B): "different"}
    assert pair_key(A, twin) == pair_key(twin, A) != pair_key(A, other)


# ---- lines from others

HASHES = [f"{number:064x}" for number in range(20_000)]
BAD = {
    "20,000 photos": json.dumps(
        {"at": "2026-01-01T00:00:00", "judgement": "same", "photos": HASHES, "paths": ["x"] * len(HASHES)}
    ),
    "nested": "[" * 1_000_000,
    "nested objects": '{"at":' * 200_000,
    "a number": "1" * 100_000,
    "a long word": json.dumps({"at": "2026-01-01", "judgement": "x" * 10_000_000, "photos": [], "paths": []}),
    "a photo": json.dumps({"at": "2026-01-01", "judgement": "same", "photos": "a", "paths": "b"}),
    "photos of photos": json.dumps({"at": "2026-01-01", "judgement": "same", "photos": [[]], "paths": [1]}),
    "paths that are numbers": json.dumps({"at": "2026-01-01", "judgement": "same", "photos": [A[0]], "paths": [1]}),
    "no text": json.dumps({"at": "2026-01-01", "judgement": "same", "photos": [A[0]], "paths": ["\ud800"]}),
    "no time": json.dumps({"at": 5, "judgement": "same", "photos": [A[0]], "paths": ["a"]}),
    "a list of judgements": json.dumps({"at": "2026-01-01", "judgement": ["same"], "photos": [], "paths": []}),
    "nothing": "null",
    "escape": "\x1b]0;owned\x07",
}


@pytest.mark.parametrize("name", BAD)
def test_a_line_that_nobody_would_write_costs_itself_and_is_an_error_of_one_line(
    index: ImageIndex, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(index.directory.parent.parent)
    good = made("different", A, B)
    (tmp_path / "theirs.jsonl").write_text(BAD[name] + "\n" + as_text([good]), "utf-8")
    started = time.monotonic()
    done = CliRunner().invoke(cli, ["dups", "decide", "--import", "theirs.jsonl"], prog_name="vggsearch")
    assert time.monotonic() - started < 5
    assert (done.exit_code, done.stdout) == (1, "Imported 1 new decision.\n")
    assert done.stderr.startswith("Error: line 1 of theirs.jsonl cannot be read: ")
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 400
    assert done.stderr.strip().isprintable()
    assert read_decisions(index.directory / DECISIONS).made == (good,)


def test_the_command_says_what_became_of_conflicts(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(index.directory.parent.parent)
    photos = ["summer/0.jpg", "summer/1.jpg"]
    index.decide("same", photos)
    (index.directory / DECISIONS).rename("theirs.jsonl")
    index.decide("different", photos)
    done = CliRunner().invoke(cli, ["dups", "decide", "--import", "theirs.jsonl"], prog_name="vggsearch")
    assert done.exit_code == 0
    assert done.stdout == (
        "Imported 1 new decision.\n"
        "The two files disagreed about summer/0.jpg and summer/1.jpg: they are not duplicates.\n"
    )
    assert list(read_decisions(index.directory / DECISIONS).pairs().values()) == ["different"]


def test_a_decision_about_too_many_photos_is_refused(index: ImageIndex) -> None:
    names = [f"{number}.jpg" for number in range(MOST_PHOTOS + 1)]
    with pytest.raises(OptionError, match="name at most 1,000"):
        check_named(index.root or Path(), names, names)


def test_what_the_user_keeps_holds_until_it_is_undecided_and_decides_about_no_pair() -> None:
    photos = [("a" * 64, "a.jpg"), ("b" * 64, "b.jpg")]
    different, keep = decide("different", photos), decide("keep", photos)
    both = Decisions((different, keep))
    assert both.kept() == set(photos)
    assert set(both.pairs().values()) == {"different"}
    assert Decisions((keep, decide("undecided", [("a" * 64, "renamed.jpg")]))).kept() == {photos[1]}
