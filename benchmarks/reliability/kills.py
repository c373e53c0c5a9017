"""Kill commands at random moments, run them again, and compare with runs that were not killed.

A case is a command on a copy of prepared photos and their index: it is sent SIGKILL up to three times, at any
moment of its duration, and then completed; a removal that it reports as interrupted is undone first. After each
kill no photo may be missing from the folder, the trash and the place to which photos are moved, and the index must
open. At the end `verify` must be clean, and the photos, index and output the same, bit for bit, as without a kill.
A removal is then undone, after which every photo must be where it was.
"""

import hashlib
import os
import shlex
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

from campaign import Result, Settings, contents, regular_files, restore
from children import Ended, be_command, in_child
from pictures import pictures, save

from vggsearch import ImageIndex
from vggsearch.defaults import EXTRACT
from vggsearch.indexing import update
from vggsearch.store.store import Store

PHOTOS = 24
SIDE = 64
PART_S = 0.02  # between two commits, so that kills hit them; a minute usually
MOST_KILLS = 3
BEYOND = 1.1  # the last moment of a kill, in durations of the command
UNDO = "vggsearch dups undo "
OPEN = ("--index", "index")
FIND = (*OPEN, "--threshold", "0.9999")
ACTIONS = ("trash", "move:out", "hardlink", "symlink", "delete")
PLACES = ("photos", "out", "share")


@dataclass(frozen=True)
class Scenario:
    """A command, the state that it starts from, and whether it may replace a copy by nothing or by a link."""

    words: tuple[str, ...]
    state: str
    may_drop_copies: bool = False


SCENARIOS: Mapping[str, Scenario] = {
    "index, new": Scenario(("index", "photos", *OPEN, "--layer", "pool3", "--size", "64"), "photos"),
    "index, update": Scenario(("index", "photos", *OPEN), "changed"),
    "index --compact": Scenario(("index", "photos", *OPEN, "--compact", "--local-features"), "changed"),
    "build": Scenario(("build", *OPEN, "--recipe", "hnsw"), "indexed"),
    "dups": Scenario(("dups", *OPEN, "--format", "json"), "indexed"),
    "dups decide": Scenario(("dups", "decide", "--same", "000.jpg", "001.jpg", *OPEN), "decided"),
    "verify --repair": Scenario(("verify", "--repair", *OPEN), "damaged"),
    **{
        f"dups remove {action}": Scenario(
            ("dups", "remove", action, "--yes", *FIND), "decided", action not in ("trash", "move:out")
        )
        for action in ACTIONS
    },
    **{
        f"dups undo of {action}": Scenario(
            ("dups", "undo", "JOURNAL"), f"removed: {action}", action not in ("trash", "move:out")
        )
        for action in ACTIONS
    },
}


# ---- states


def prepare(settings: Settings) -> None:
    """Make a folder for each state that a command starts from."""
    base = settings.scratch
    if (base / "prepared").exists():
        return
    for number, picture in zip(range(PHOTOS), pictures(settings.photos, SIDE), strict=False):
        save(picture, base / "photos" / "photos" / f"{number:03}.jpg")
    (base / "photos" / "photos" / "bad.jpg").write_bytes(b"")
    step(base, "photos", "copied", copy_some)
    step(base, "copied", "indexed", run(*SCENARIOS["index, new"].words))
    step(base, "indexed", "changed", change)
    step(
        base, "indexed", "searched", run(*SCENARIOS["dups"].words)
    )  # so that kills hit the removal, not the search
    step(base, "searched", "decided", run("dups", "decide", "--not-duplicates", "002.jpg", "003.jpg", *OPEN))
    step(base, "decided", "damaged", damage)
    for action in ACTIONS:
        step(base, "decided", f"removed: {action}", run(*SCENARIOS[f"dups remove {action}"].words))
    (base / "prepared").touch()


def step(base: Path, before: str, after: str, change: Callable[[Path], object]) -> None:
    """Make a state from another."""
    restore(base / before, base / "work")
    change(base / "work")
    restore(base / "work", base / after)


def run(*words: str) -> Callable[[Path], object]:
    """Return a step that runs a command, which must succeed."""
    return lambda work: command(words, work).result()


def command(words: Sequence[str], work: Path, kill_after: float | None = None) -> Ended[None]:
    """Run a command, with commits in quick succession and a trash of its own."""

    def be_it() -> None:
        update.EXTRACT = replace(EXTRACT, part_seconds=PART_S)  # type: ignore[attr-defined]
        os.environ["XDG_DATA_HOME"] = str(work / "share")
        os.environ["HOME"] = str(work)  # a trash of the user is on the volume of the home folder
        be_command(tuple(words), work)

    return in_child(be_it, kill_after)


def copy_some(work: Path) -> None:
    """Copy three photos, one of them twice, into another folder."""
    for name in ("004", "005", "006"):
        (work / "photos" / "copies").mkdir(exist_ok=True)
        shutil.copy(work / "photos" / f"{name}.jpg", work / "photos" / "copies" / f"{name}.jpg")
    shutil.copy(work / "photos" / "006.jpg", work / "photos" / "copies" / "again.jpg")


def change(work: Path) -> None:
    """Add, change, rename and delete photos."""
    root = work / "photos"
    for number, picture in zip(range(8), pictures(None, SIDE), strict=False):
        save(picture, root / "new" / f"{number}.png")
    shutil.copy(root / "007.jpg", root / "008.jpg")
    (root / "009.jpg").rename(root / "renamed.jpg")
    (root / "010.jpg").unlink()


def damage(work: Path) -> None:
    """Damage the vector index."""
    [path] = work.glob("index/search/*/vectors.npy")
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x10
    path.write_bytes(data)


# ---- what must be the same


@dataclass(frozen=True)
class Final:
    """What is there once a command is complete: every photo by path, what the index holds, and decisions."""

    photos: dict[str, str]
    index: dict[str, str]
    printed: bytes

    def differences(self, other: "Final") -> list[str]:
        """Return what is not the same in another."""
        return [name for name in ("photos", "index", "printed") if getattr(self, name) != getattr(other, name)]


def final(work: Path, words: Sequence[str], printed: bytes) -> Final:
    """Return what is there after a command; of what it printed, what does not depend on how often it was run."""
    held = in_child(partial(index_content, work / "index")).result()
    return Final(tree(work), held, printed if words[:1] == ("dups",) and "json" in words else b"")


def tree(work: Path) -> dict[str, str]:
    """Return the hash of each file outside the index by path; those in the trash by hash, links with target."""
    found = {}
    for path in regular_files(*(work / place for place in PLACES)):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        name = path.relative_to(work).as_posix()
        if not name.endswith(".trashinfo"):
            found[digest if name.startswith("share") else name] = digest
    links = (path for path in (work / "photos").rglob("*") if path.is_symlink())
    return found | {path.relative_to(work).as_posix(): str(path.readlink()) for path in links}


def index_content(directory: Path) -> dict[str, str]:
    """Return a hash of all that an index holds on each photo and each skipped file, by path."""
    with ImageIndex.open(directory) as index:
        table = index.to_arrow()
        rows = {path: str(table.slice(row, 1).to_pylist()) for row, path in enumerate(index.paths())}
        if len(rows) != len(index):
            raise RuntimeError("a photo is in the index twice")
        built = Store.open(directory).manifest.fresh_vector_index
        rows["vector index"] = built.recipe if built is not None else "none"
        return rows | {f"skipped {one.path}": str(one) for one in index.skipped()}


# ---- cases


@dataclass(frozen=True)
class Undisturbed:
    """A run that was not killed: how long it took, and what was there then."""

    seconds: float
    final: Final


def undisturbed(scenario: Scenario, base: Path) -> Undisturbed:
    """Run the command of a scenario once."""
    work = base / "work"
    restore(base / scenario.state, work)
    words = spelled_out(scenario, work)
    ended = command(words, work)
    ended.result()
    return Undisturbed(ended.seconds, final(work, words, ended.stdout))


def spelled_out(scenario: Scenario, work: Path) -> tuple[str, ...]:
    """Return the words of a command, with the name of the only journal for JOURNAL."""
    return tuple(
        str(next(work.glob("index/journals/*")).relative_to(work)) if word == "JOURNAL" else word
        for word in scenario.words
    )


def run_case(scenario: Scenario, base: Path, expected: Undisturbed, random: Random) -> tuple[int, list[str]]:
    """Kill a command up to three times, complete it and check everything; return how many kills, and faults."""
    work, kills, faults = base / "work", 0, list[str]()
    restore(base / scenario.state, work)
    words = spelled_out(scenario, work)
    before, made = contents(work / "photos"), user_lines(work)
    for _ in range(random.randint(1, MOST_KILLS)):
        killed = command(words, work, random.uniform(0, expected.seconds * BEYOND))
        kills += killed.status == -signal.SIGKILL
        if killed.status not in (0, -signal.SIGKILL):
            faults += [f"a command after a kill: {killed.stderr[-500:]}"]
        if killed.outlived:
            faults.append("a decoder outlives its parent")
        faults += lost(scenario, before, work)
        if any(line not in user_lines(work) for line in made):
            faults.append("a decision or a line of a journal is lost")
        if (work / "index" / "manifest.json").exists():
            opened = command(("query", "--random", "3", *OPEN), work)
            faults += [f"query: {opened.stderr}"] if opened.status != 0 else []
    ended = completed(words, work)
    if ended.status != 0:
        return kills, [*faults, f"does not complete: {ended.status}: {ended.stderr[-800:]}"]
    verified = command(("verify", *OPEN), work)
    if verified.status != 0:
        faults.append(f"verify: {verified.stdout.decode()} {verified.stderr}")
    differing = expected.final.differences(final(work, words, ended.stdout))
    faults += [f"other {name} than without a kill" for name in differing]
    faults += lost(scenario, before, work)
    if scenario.words[:2] == ("dups", "remove"):
        faults += undo_all(base / scenario.state, work)
    return kills, faults


def completed(words: Sequence[str], work: Path) -> Ended[None]:
    """Run a command; if it says that a removal was interrupted, undo that as it says, and run it again."""
    ended = command(words, work)
    interrupted = [line.partition(UNDO)[2] for line in ended.stderr.splitlines() if UNDO in line]
    for journal in sorted(interrupted, reverse=True):
        command(("dups", "undo", *shlex.split(journal)), work).result()
    return command(words, work) if interrupted else ended


def lost(scenario: Scenario, before: Counter[str], work: Path) -> list[str]:
    """Return a fault if a content is gone, or a copy of one, unless the command replaces copies."""
    now = contents(*(work / place for place in PLACES))
    gone = before - now
    if scenario.may_drop_copies:
        gone = Counter({digest: count for digest, count in gone.items() if digest not in now})
    return [f"{gone.total()} photos are lost"] if gone else []


def user_lines(work: Path) -> set[bytes]:
    """Return the lines of decisions and journals."""
    files = [*work.glob("index/decisions*.jsonl"), *work.glob("index/journals/*.jsonl")]
    return {line for path in files for line in path.read_bytes().splitlines()}


def undo_all(state: Path, work: Path) -> list[str]:
    """Undo all removals, the last one first; every photo must then be where it was."""
    faults = []
    for journal in sorted(work.glob("index/journals/*"), reverse=True):
        ended = command(("dups", "undo", str(journal.relative_to(work))), work)
        if ended.status != 0:
            faults.append(f"undo: {ended.stdout.decode()} {ended.stderr[-500:]}")
    if tree(work) != tree(state):
        faults.append(f"undo leaves other photos: {sorted(set(tree(state).items()) ^ set(tree(work).items()))[:4]}")
    return faults


def kills(settings: Settings) -> Result:
    """Run the campaign."""
    prepare(settings)
    names = list(SCENARIOS)
    runs = {name: undisturbed(SCENARIOS[name], settings.scratch) for name in names}
    result = Result()
    for number in settings.numbers:
        name = names[number % len(names)]
        killed, faults = run_case(SCENARIOS[name], settings.scratch, runs[name], settings.random(number))
        result.add(number, name, faults)
        result.notes["SIGKILLs"] += killed
    return result
