"""Give photos, folders, indexes, pages and options hostile names, and read every command's output as others would.

A case is a name. Some hundred of them lie in a folder with a hostile name itself; every command and format that
lists names is run on it, and a few commands with each name as an argument. What a person reads must hold no
control character; what a program reads must give back the exact bytes, and a page no element that a name brought
along. A command that is printed to be pasted must mean to a shell what it says.
"""

import csv
import io
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from urllib.parse import unquote_to_bytes

from campaign import Result, Settings
from children import Ended, vggsearch
from pictures import pictures, save

BATCH = 250  # names in a folder
ALL = str(BATCH)  # as many results as there may be
COPIES = 4  # names for one picture: duplicates of each other
SIDE = 48
LONGEST = 200  # bytes of a name; file systems allow 255
FRAGMENTS = (
    "\x1b]0;owned\x07", "\x1b[2J", "\x1b[31m", "\x9b31m", "\x1bP$q\x1b\\", "\x1b]8;;http://x\x1b\\", "\x9d0;x\x9c",
    "\x07\x08", "\r", "\n", "\t\x0b\x0c", "\x7f", "\x01\x02\x1f", "\u2028", "\u2029", "\x85", "\u202e",
    "\u2066\u200f", "\ufeff\u200b\u00ad", "\u200d", "[red]b[/red]", "[link=x]y[/link]", "[/]", "[bold", "\\[",
    "$(touch owned)", "`touch owned`", ";touch owned;", "&&touch owned", "|touch owned", "'", '"', "\\", "\\x1b",
    "\\n", " ", "  ", "*", "?", "{a,b}", "~", "#", "%s%n", "%41", "=1+1", "+1", "-1", "@sum", "=HYPERLINK(1)",
    "\uff1d1", "<script>owned()<", "<img src=x onerror=owned()>", "<!--", "-->", "</script", "&lt;", "]]>",
    "e\u0301", "\u00e9", "\u0130", "\U0001f468\u200d\U0001f469", "\U0001f1e9\U0001f1ea", "\ufe0f", "\ufffd",
    "\uffff", "\U000e0041", "\u0e33\u0e47", "a" * 60, "..", "...", "-rf", "--help", "--yes", "CON", "nul",
    "decisions.jsonl", "manifest.json", "Thumbs", "null", "None", ",", ";", "\u0627", "\u05d0",
)  # fmt: skip
NOT_UTF_8 = ("\udcff", "\udc80\udcfe", "\udced\udca0\udc80")


def hostile_name(random: Random, *, utf_8: bool = True) -> str:
    """Return a name of one to four fragments and some letters."""
    pieces = random.choices(FRAGMENTS, k=random.randint(1, 4)) + random.choices(("", "plain", "7"), k=1)
    if not utf_8:
        pieces.append(random.choice(NOT_UTF_8))
    random.shuffle(pieces)
    name = "".join(pieces).replace("/", "\u2044").lstrip(".")
    while len(os.fsencode(name)) > LONGEST:
        name = name[:-1]
    return name or "plain"


def photo_names(settings: Settings, numbers: Sequence[int]) -> dict[str, int]:
    """Return distinct names of photos, each with the number of its case."""
    names: dict[str, int] = {}
    for number in numbers:
        random = settings.random(number)
        name = hostile_name(random, utf_8=random.random() > 0.05) + random.choice((".jpg", ".jpg", ".JPG", ".png"))
        while name in names:
            name = f"{random.randrange(10)}{name}"
        names[name] = number
    return names


class Elements(HTMLParser):
    """The elements and comments of a page, and its data by the id of their script."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.data: dict[str, str] = {}
        self.id = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count an element with its attributes."""
        self.seen[f"{tag} {attrs if tag != 'script' else [name for name, _ in attrs]}"] += 1
        self.id = dict(attrs).get("id") or ""

    def handle_comment(self, data: str) -> None:
        """Count a comment."""
        self.seen[f"comment {data}"] += 1

    def handle_data(self, data: str) -> None:
        """Keep text."""
        self.data[self.id] = self.data.get(self.id, "") + data


def elements(page: Path) -> Elements:
    """Return the elements of a page, and its data."""
    parser = Elements()
    parser.feed(page.read_text("utf-8"))
    parser.close()
    return parser


class Folder:
    """A folder of photos with hostile names, and its index; what is wrong with the output of commands on it."""

    def __init__(self, settings: Settings, numbers: Sequence[int]) -> None:
        self.random = settings.random(-1 - numbers[0])
        self.work = settings.scratch / f"names {numbers[0]}"
        self.numbers = photo_names(settings, numbers)
        self.folder = hostile_name(self.random)
        self.index = f"indexes/{hostile_name(self.random)}i"
        self.faults: list[tuple[int, str]] = []
        self.runs = 0
        shutil.rmtree(self.work, ignore_errors=True)
        drawn = pictures(settings.photos, SIDE)
        for at, name in enumerate(self.numbers):
            if at % COPIES == 0:
                picture = next(drawn)
                save(picture, self.work / "one.png")
            target = self.work / self.folder / name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(self.work / "one.png", target)
        self.utf_8 = {name for name in self.numbers if is_utf_8(name)}

    def run(self, *words: str, status: Sequence[int] = (0,), machine: bool = False) -> Ended[None]:
        """Run a command and check its status, its errors and, unless it is for machines, what it prints."""
        ended = vggsearch(*words, cwd=self.work)
        self.runs += 1
        faults = ended.faults()
        if ended.status not in status:
            faults.append(f"status {ended.status}: {ended.stderr[-300:]!r}")
        texts = [ended.stderr] if machine else [ended.stderr, ended.stdout.decode("utf-8", "backslashreplace")]
        faults += [f"not printable: {text!r}" for text in map(unprintable, texts) if text]
        if (self.work / "owned").exists():
            faults.append("a name was run by a shell")
        for fault in faults:
            self.fault(f"{words!a}: {fault}")
        return ended

    def fault(self, what: str, name: str | None = None) -> None:
        """Note a fault, of a name if it is known which."""
        self.faults.append((self.numbers.get(name or "", -1), what))

    def equal(self, what: str, found: set[str], wanted: set[str]) -> None:
        """Note each name that is missing, and each that is there but should not be."""
        for name in sorted(found ^ wanted)[:3]:
            self.fault(f"{what}: {name!a} {'is missing' if name in wanted else 'is no file'}", name)


def is_utf_8(name: str) -> bool:
    """Return whether the bytes of a name are UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def unprintable(text: str) -> str:
    """Return the first line that holds something that a terminal acts on, "" if there is none."""
    return next((line for line in text.split("\n") if not line.isprintable()), "")


def rows(data: bytes) -> list[dict[str, str]]:
    """Read CSV; a ' that keeps a spreadsheet from running a cell is taken off."""
    text = data.decode("utf-8", "surrogateescape")
    found = csv.DictReader(io.StringIO(text, newline=""))
    return [{name: cell[1:] if cell.startswith("'") else cell for name, cell in row.items()} for row in found]


def lists(folder: Folder) -> None:
    """Run every command that lists names, in every format."""
    at = ("--index", folder.index)
    root = Path(folder.folder)
    names = folder.utf_8
    several = [name for name in folder.random.sample(sorted(names), 4) if not name.startswith("-")]
    asked = [str(root / name) for name in several]
    folder.run("index", folder.folder, *at, "--layer", "pool1", "--size", "32")
    for words in (
        ("info",),
        ("info", "--skipped"),
        ("verify",),
        ("dups", "--pairs"),
        ("dups", "--explain-threshold"),
    ):
        folder.run(*words, *at)
    folder.run("query", *asked, *at, "-k", ALL, "--no-rerank")
    folder.run("query", "--random", ALL, *at)
    folder.run("query", asked[0], *at, "--filter", several[0])

    skipped = json.loads(folder.run("info", "--skipped", "--format", "json", *at, machine=True).stdout)
    if len(skipped) != len(folder.numbers) - len(names):
        folder.fault(f"info --skipped lists {len(skipped)}")
    every = ("query", asked[0], *at, "-k", ALL, "--no-rerank")
    [found] = json.loads(folder.run(*every, "--format", "json", machine=True).stdout)
    folder.equal("query --format json", {match["path"] for match in found["matches"]}, names)
    found = json.loads(folder.run(*every, "--format", "jsonl", machine=True).stdout)
    folder.equal("query --format jsonl", {match["path"] for match in found["matches"]}, names)
    found = rows(folder.run(*every, "--format", "csv", machine=True).stdout)
    folder.equal("query --format csv", {row["path"] for row in found}, names)
    on_disk = {str(root / name) for name in names}
    check_paths(folder, every, on_disk)
    picked = json.loads(folder.run("query", "--random", ALL, *at, "--format", "json", machine=True).stdout)
    folder.equal("query --random", {pick["path"] for pick in picked}, names)


def check_paths(folder: Folder, words: Sequence[str], wanted: set[str]) -> None:
    """Compare what two formats of paths give with the paths on the disk."""
    text = folder.run(*words, "--print0", machine=True).stdout
    folder.equal(f"{words[0]} --print0", {os.fsdecode(path) for path in text.split(b"\0")[:-1]}, wanted)
    lines = {path for path in wanted if "\n" not in path}
    status = (1,) if lines != wanted else (0,)
    text = folder.run(*words, "--format", "paths", status=status, machine=True).stdout
    folder.equal(f"{words[0]} --format paths", {os.fsdecode(path) for path in text.split(b"\n")[:-1]}, lines)


def duplicates(folder: Folder) -> None:
    """List duplicates in every format, and as a page."""
    at = ("--index", folder.index)
    find = ("dups", *at, "--threshold", "1")
    names = folder.utf_8
    folder.run(*find)
    groups = json.loads(folder.run(*find, "--format", "json", machine=True).stdout)
    doomed = {member["path"] for group in groups for member in group["members"]}
    listed = doomed | {group["keep"] for group in groups}
    grouped = {row["path"] for row in rows(folder.run(*find, "--format", "csv", machine=True).stdout)}
    folder.equal("dups --format csv", grouped, listed)
    if not listed <= names:
        folder.fault("dups --format json lists other names")
    check_paths(folder, find, {str(Path(folder.folder) / name) for name in doomed})
    page = f"{hostile_name(folder.random)}.html"
    folder.run(*find, "--html", f"./{page}")
    check_page(folder, folder.work / page, listed)


def check_page(folder: Folder, page: Path, names: set[str]) -> None:
    """Compare a page with one of the same duplicates under plain names, and its links with the files."""
    found = elements(page)
    groups = json.loads(found.data["groups-data"])
    links = {Path(unquote_to_bytes(photo["link"]).decode()).name for group in groups for photo in group["photos"]}
    folder.equal("links of a page", links, names)
    plain = folder.work / "plain"
    for number, name in enumerate(sorted(names)):
        plain.mkdir(exist_ok=True)
        shutil.copy(folder.work / folder.folder / name, plain / f"{number}.jpg")
    folder.run("index", "plain", "--index", "plain index", "--layer", "pool1", "--size", "32")
    folder.run("dups", "--index", "plain index", "--threshold", "1", "--html", "plain.html")
    expected = elements(folder.work / "plain.html")
    if found.seen != expected.seen:
        folder.fault(f"a page has other elements: {(found.seen - expected.seen) + (expected.seen - found.seen)}")


def removal(folder: Folder) -> None:
    """Decide, remove, and paste the line that undoes the removal into a shell."""
    at = ("--index", folder.index)
    before = {path.name for path in (folder.work / folder.folder).iterdir()}
    one, other = (f"{folder.folder}/{name}" for name in folder.random.sample(sorted(folder.utf_8), 2))
    folder.run("dups", "decide", "--not-duplicates", *at, "--", one, other)
    folder.run("dups", "decide", "--import", f"{folder.index}/decisions.jsonl", *at)
    where = f"{hostile_name(folder.random)} out"
    folder.run("dups", "remove", f"move:{where}", *at, "--threshold", "1")
    done = folder.run("dups", "remove", f"move:{where}", *at, "--threshold", "1", "--yes")
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith("Undo: ")]
    script = 'vggsearch() { printf "%s\\0" "$@"; }\n' + lines[0].removeprefix("Undo: ")
    pasted = subprocess.run(["bash", "-c", script], capture_output=True, cwd=folder.work).stdout
    words = [os.fsdecode(word) for word in pasted.split(b"\0")[:-1]]
    if not words or not (folder.work / words[-1]).is_file():
        folder.fault(f"{lines} cannot be pasted")
        return
    folder.run(*words)
    folder.equal("undo", {path.name for path in (folder.work / folder.folder).iterdir()}, before)


def arguments(name: str, folder: Folder) -> Iterator[tuple[str, ...]]:
    """Yield commands with a hostile name as an argument, most of which end with an error."""
    at = ("--index", folder.index)
    photo = f"{folder.folder}/{name}"
    yield from (
        ("index", name),
        ("query", "--", name),
        ("query", "--random", "1", "--index", name),
        ("info", "--index", name),
    )
    yield from (("dups", name), ("dups", "decide", "--same", *at, "--", name, photo), ("dups", "undo", "--", name))
    yield from (
        ("dups", "decide", "--import", name, *at),
        ("dups", "remove", f"move:{name}", *at, "--threshold", "1"),
    )
    yield from (("dups", "remove", name, *at), ("dups", "--keep", name, *at), ("dups", "--protect", name, *at))
    yield from (
        ("dups", "--html", name, *at, "--threshold", "1"),
        ("dups", "--against", name, *at),
        (name,),
        (f"--{name}",),
    )
    yield from (("query", "--random", "1", *at, "--filter", name), ("query", "--random", "1", *at, "--root", name))
    yield from (("build", *at, "--recipe", name), ("build", *at, "--memory", name), ("verify", "--index", name))
    yield from (("model", "--layer", name), ("eval", "--", name), ("eval", "copies", name), ("bench", name))
    yield from (("query", "--random", "1", *at, "--weights", name), ("index", "photos", "--weights", name))
    yield ("eval", "copies", folder.folder, "--edits", name)


def names(settings: Settings) -> Result:
    """Run the campaign."""
    result = Result()
    for numbers in settings.batches(BATCH):
        folder = Folder(settings, numbers)
        lists(folder)
        duplicates(folder)
        removal(folder)
        for name, number in folder.numbers.items():
            random = settings.random(number)
            for words in random.sample(list(arguments(name, folder)), 2):
                folder.run(*words, status=(0, 1, 2))
        by_number = {
            number: [fault for of, fault in folder.faults if of == number]
            for number in {of for of, _ in folder.faults}
        }
        result.add(numbers[0], "folders", by_number.pop(-1, []))
        result.notes["runs of commands"] += folder.runs
        for number in numbers:
            result.add(number, "names", by_number.get(number, []))
        shutil.rmtree(folder.work)
    return result
