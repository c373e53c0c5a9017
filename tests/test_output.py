"""Names in output: nothing in one acts on a terminal, and programs get its exact bytes."""

import csv
import io
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.fakes import FakeEngine, save_photo
from vggsearch.cli import cli, output
from vggsearch.errors import option, shell_word
from vggsearch.image_index import ImageIndex
from vggsearch.render.text import as_csv, folded

OSC, CSI, C1 = "\x1b]0;owned\x07", "\x1b[2J", "\x9b31m"
NAMES = (
    f"osc{OSC}.jpg",
    f"{CSI}csi.jpg",
    f"c1{C1}.jpg",
    "\x1b[0mplain.jpg",
    "plain.jpg",
    "new\nline.jpg",
    "return\r.jpg",
    "tab\t.jpg",
    "sep\u2028\u2029\x85.jpg",
    "bidi\u202egpj.jpg",
    "[red]markup[/red].jpg",
    "[link=x]y[z].jpg",
    "=HYPERLINK(1).jpg",
    "-rf.jpg",
    "@sum.jpg",
    "+1.jpg",
    "it's.jpg",
    'quote".jpg',
    "$(touch owned).jpg",
    "`touch owned`.jpg",
    " space .jpg",
    "\\back.jpg",
)
FOLDER = f"al{OSC}bum\u202e [b]x[/b] $(touch owned)"


@pytest.fixture(autouse=True)
def in_a_fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VGGSEARCH_INDEX", raising=False)
    monkeypatch.setattr("vggsearch.query.session.load_engine", lambda *_: FakeEngine())


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A photo folder with a hostile name, of identical photos with hostile names, and its index."""
    folder = tmp_path / FOLDER
    for name in NAMES:
        save_photo(folder / name, 1)
    (folder / f"bad{OSC}.jpg").write_bytes(b"")
    assert run("index", FOLDER).exit_code == 0
    return folder


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words, prog_name="vggsearch")


def duplicates(root: Path) -> set[bytes]:
    """The paths that dups lists: all but that of the keeper."""
    keeper = next(
        row["path"] for row in csv_rows(run("dups", "--format", "csv").stdout_bytes) if row["role"] == "keep"
    )
    return {os.fsencode(Path(FOLDER) / name) for name in NAMES} - {os.fsencode(Path(FOLDER) / keeper)}


def csv_rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


ESCAPES = (
    OSC,
    CSI,
    C1,
    "\x1b[0m",
    "\x1bP$q\x1b\\\\",
    "\x1b]8;;http://x\x1b\\\\",
    "\x9d0;owned\x9c",
    "\x07\x08",
    "\r",
    "\n",
    "\t\x0b\x0c",
    "\x7f",
    "\u2028\u2029\x85",
    "\u202e\u2066\u200f",
    "\ufeff\u200b\u00ad",
    "\udcff\udc80",
    "[red]b[/red]",
    "[link=x]y[/link]",
    "$(touch owned)`touch owned`",
    "' \" \\",
)


def commands(escape: str = OSC) -> Iterator[tuple[str, ...]]:
    index, name = f"indexes/{FOLDER}", f"{FOLDER}/{NAMES[0]}"
    yield from (("index", FOLDER), ("index", f"no{escape}where"), ("index", FOLDER, "--index", f"new{escape}"))
    for command in ("info", "build", "verify", "dups", "query"):
        yield (command, "--index", f"no{escape}where", *([name] if command == "query" else []))
        yield (command, f"--no{escape}")
        yield (command, "--index", index, *([name] if command == "query" else []))
    yield from (("info", "--skipped"), ("info", "--format", "json"), ("info", "--skipped", "--format", "jsonl"))
    yield from (("build", "--recipe", f"x{escape}"), ("build", "--memory", f"1{escape}"), ("verify", "--repair"))
    yield from (
        ("query", f"no{escape}"),
        ("query", name, "--filter", f"taken:{escape}"),
        ("query", name, "--crop", escape),
    )
    yield from (
        ("query", name, "--format", "json"),
        ("query", "--random", "30"),
        ("query", name, "--root", f"x{escape}"),
    )
    yield from (
        ("dups", "--pairs"),
        ("dups", "--explain-threshold"),
        ("dups", "--keep", escape),
        ("dups", "--protect", escape),
    )
    yield from (
        ("dups", "--html", f"page{escape}.html"),
        ("dups", "--against", f"x{escape}"),
        ("dups", "--format", "jsonl"),
    )
    yield from (
        ("dups", "remove", "trash"),
        ("dups", "remove", f"move:out{escape}"),
        ("dups", "remove", f"x{escape}"),
    )
    yield from (("dups", "decide", "--same", name, f"no{escape}"), ("dups", "decide", "--import", f"no{escape}"))
    yield from (("dups", "undo", f"no{escape}"), ("eval", f"no{escape}"), ("eval", "copies", f"no{escape}"))
    yield from (
        ("eval", "copies", FOLDER, "--edits", escape),
        ("bench", f"no{escape}"),
        ("model", "--layer", escape),
    )
    yield from (
        (escape,),
        (f"--{escape}",),
        ("dups", escape),
        ("index", FOLDER, escape),
        ("query", name, "--weights", f"no{escape}"),
    )
    yield ("dups", "remove", f"move:out{escape}", "--yes")


@pytest.mark.parametrize(
    "escape", [OSC, *(pytest.param(each, marks=pytest.mark.slow) for each in ESCAPES[1:])], ids=ascii
)
def test_no_command_sends_a_terminal_what_is_in_a_name(hostile: Path, escape: str) -> None:
    for words in commands(escape):
        done = run(*words)
        assert done.exception is None or isinstance(done.exception, SystemExit), words
        for text in (done.stdout, done.stderr):
            assert text.replace("\n", "").isprintable(), (words, text)
    assert not Path("owned").exists()


def test_markup_in_a_name_is_text(hostile: Path) -> None:
    for words in (("dups",), ("query", f"{FOLDER}/plain.jpg", "-k", "30"), ("query", "--random", "30")):
        assert "[red]markup[/red].jpg" in run(*words).stdout


def test_print0_writes_each_path_exactly(hostile: Path) -> None:
    wanted = duplicates(hostile)
    for flags in (["-0"], ["--print0"], ["--print0", "--format", "paths"]):
        content = run("dups", *flags).stdout_bytes
        assert content.endswith(b"\0")
        assert set(content[:-1].split(b"\0")) == wanted
    shown = run("query", f"{FOLDER}/plain.jpg", "-k", "30", "-0").stdout_bytes
    assert set(shown[:-1].split(b"\0")) == {os.fsencode(Path(FOLDER) / name) for name in NAMES}
    assert run("info", "--skipped", "-0").stdout_bytes == os.fsencode(f"bad{OSC}.jpg") + b"\0"
    assert run("verify", "-0").stdout_bytes == b""
    files = subprocess.run(["xargs", "-0", "ls", "-1"], input=content, capture_output=True, check=True).stdout
    assert len(files.splitlines()) > len(wanted) - 1
    for words in (("dups", "-0", "--format", "json"), ("query", "x", "--format", "csv", "-0")):
        done = run(*words)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "--print0 prints paths" in done.stderr


def test_a_path_that_a_line_cannot_hold_is_an_error_and_no_other_path_is_altered(hostile: Path) -> None:
    done = run("dups", "--format", "paths")
    broken = os.fsencode(Path(FOLDER) / "new\nline.jpg")
    assert set(done.stdout_bytes[:-1].split(b"\n")) == duplicates(hostile) - {broken}
    assert done.exit_code == 1
    assert "new\\nline.jpg contains a line break and is left out: use --print0." in done.stderr
    assert "Duplicates have" in done.stderr or "Compared" in done.stderr, "the notes are shown all the same"


@pytest.mark.parametrize("format", ["json", "jsonl"])
def test_json_holds_each_name_exactly_and_nothing_that_a_terminal_acts_on(hostile: Path, format: str) -> None:
    text = run("query", f"{FOLDER}/plain.jpg", "-k", "30", "--format", format).stdout
    found = json.loads(text)
    matches = (found[0] if format == "json" else found)["matches"]
    assert {match["path"] for match in matches} == set(NAMES)
    assert text.replace("\n", "").isprintable()


def test_bytes_that_are_not_utf_8_come_out_as_they_went_in(tmp_path: Path) -> None:
    folder = os.fsdecode(b"caf\xe9")
    save_photo(tmp_path / folder / "a.jpg", 1)
    save_photo(tmp_path / folder / "b.jpg", 1)
    assert run("index", folder).stdout.endswith("2 photos in indexes/caf\\xe9\n")
    done = run("index", folder, "--index", folder + "x")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "needs a name that is valid UTF-8, unlike caf\\xe9x. Choose another: --index FOLDER." in done.stderr
    assert run("index", folder, "--index", "idx").exit_code == 0
    where = ("--index", "idx")
    assert run("query", f"{folder}/a.jpg", "-k", "1", "-0", *where).stdout_bytes == b"caf\xe9/a.jpg\0"
    assert run("dups", "--format", "paths", *where).stdout_bytes == b"caf\xe9/b.jpg\n"
    data = run("query", f"{folder}/a.jpg", "-k", "1", "--format", "json", *where).stdout_bytes
    assert os.fsencode(json.loads(data)[0]["query"]) == b"caf\xe9/a.jpg"
    table = run("query", f"{folder}/a.jpg", "-k", "1", "--format", "csv", *where).stdout_bytes
    assert table.splitlines()[1].startswith(b"caf\xe9/a.jpg,")
    assert "caf\\udce9" in run("query", f"{folder}/a.jpg", "-k", "1", *where).stdout


def test_a_skipped_name_that_is_not_utf_8_is_listed_exactly_and_costs_no_other_photo(tmp_path: Path) -> None:
    shown = "b\\xe9.jpg"  # what a terminal shows of the other two names
    save_photo(tmp_path / "photos" / shown, 1)
    names = {b"b\xe9.jpg", b"new\nline \xff.jpg"}
    for name in names:
        (tmp_path / "photos" / os.fsdecode(name)).write_bytes(b"")
    for expected in ("1 indexed", "1 unchanged"):
        assert expected in run("index", "photos").stdout
    listed = run("info", "--skipped", "-0").stdout_bytes
    assert set(listed.split(b"\0")) == {*names, b""}
    rows = json.loads(run("info", "--skipped", "--format", "json").stdout_bytes)
    assert {os.fsencode(row["path"]) for row in rows} == names
    assert b"b\xe9.jpg," in run("info", "--skipped", "--format", "csv").stdout_bytes
    assert r"b\udce9.jpg" in run("info", "--skipped").stdout
    with ImageIndex.open(tmp_path / "indexes" / "photos") as index:
        assert index.paths() == [shown]
    report = run("verify")
    assert (report.exit_code, "no longer exist" in report.stdout) == (0, False)


def test_a_spreadsheet_runs_no_cell(hostile: Path) -> None:
    rows = csv_rows(run("dups", "--format", "csv").stdout_bytes)
    paths = {row["path"] for row in rows}
    assert {"'=HYPERLINK(1).jpg", "'-rf.jpg", "'@sum.jpg", "'+1.jpg"} <= paths
    assert {"plain.jpg", "it's.jpg", 'quote".jpg'} <= paths
    assert not any(cell.startswith(tuple("=@")) for row in rows for cell in row.values())
    numbers = ("-0.1234", "+5", "1e-05", "-1e-05")
    assert as_csv(("a",), [(number,) for number in numbers]).splitlines()[1:] == list(numbers)
    assert as_csv(("a",), [("'=1.jpg",), ("=1.jpg",)]).splitlines()[1:] == ["''=1.jpg", "'=1.jpg"]
    assert as_csv(("a",), [("-1+cmd|' /C calc'!A0",)]).endswith("\n'-1+cmd|' /C calc'!A0")


def test_the_command_that_undoes_a_removal_can_be_pasted(hostile: Path) -> None:
    done = run("dups", "remove", "move:out", "--yes")
    line = next(line for line in done.stdout.splitlines() if line.startswith("Undo: "))
    shown = subprocess.run(
        ["bash", "-c", 'vggsearch() { printf "%s\\0" "$@"; }\n' + line.removeprefix("Undo: ")],
        capture_output=True,
        check=True,
    ).stdout
    *_, journal = shown[:-1].split(b"\0")
    assert Path(os.fsdecode(journal)).is_file()
    assert run("dups", "undo", os.fsdecode(journal)).exit_code == 0
    assert not Path("owned").exists()


def test_commands_in_messages_are_quoted_for_the_shell() -> None:
    assert option("root", "my photos").shell == "--root 'my photos'"
    assert option("root", "PHOTOS").shell == "--root PHOTOS"
    message = run("info", "--index", "my index").stderr
    assert "vggsearch index PHOTOS --index 'my index'" in message
    for name in NAMES:
        assert shlex.split(shell_word(name)) == [name] or "\\" in shell_word(name)


def test_in_a_terminal_paths_are_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    said: list[str] = []
    monkeypatch.setattr("vggsearch.cli.output.sys.stdout", Terminal())
    monkeypatch.setattr(output, "say", lambda text, **_: said.append(text))
    output.show("\0".join(NAMES), "paths")
    output.show(NAMES[0], "csv")
    monkeypatch.undo()
    assert said[0].replace("\n", "").isprintable()
    assert len(said[0].split("\n")) == len(NAMES)
    assert said[1] == NAMES[0]


LINE = "        c.jpg  640 x 480  near   0.980  99.1%  crop of 25%; more pixels; left alone: in a read-only folder"


def test_a_long_line_is_broken_before_words_and_keeps_its_columns() -> None:
    first, *others = folded(LINE, 80)
    assert first == "        c.jpg  640 x 480  near   0.980  99.1%  crop of 25%; more pixels; left"
    assert others == ["            alone: in a read-only folder"]
    path = f"photos/{'long' * 30}.jpg"
    assert folded(f"Cannot read {path} at all", 80) == ["Cannot read", f"    {path}", "    at all"]


@pytest.mark.parametrize(
    "line", ["short", "", LINE[:80], f"Undo: vggsearch dups undo indexes/{'journal' * 12}.jsonl"]
)
def test_short_lines_and_commands_stay_whole(line: str) -> None:
    assert folded(line, 80) == [line]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_lines_are_broken_in_a_terminal_only_and_never_those_of_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(output, "_is_terminal", lambda _: is_terminal)
    output.say(LINE)
    output.say(LINE, is_data=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == LINE
    assert len(lines) == (3 if is_terminal else 2)
