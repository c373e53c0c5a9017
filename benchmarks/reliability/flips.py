"""Damage every file of an index, and then do with it all that can be done.

A case changes one file: a byte is flipped, or a few; the file is cut off, extended, emptied or zeroed in part.
Then the index is opened, read, queried, searched for duplicates, verified and updated, and a removal is undone. In
every sixteenth case, the index is also repaired, updated and asked again. Each step must give the answer of the
undamaged index, or an error or warning that says what to do. No photo, no decision and no readable line of a
journal may be lost.

Everything is asked of every case. The decoder processes stay for the next one, since starting them takes longer
than the rest of a case; `kills` and `files` start and end them.
"""

import faulthandler
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any, ClassVar, TypeVar

import numpy as np
from campaign import Result, Settings, contents, restore
from children import in_child
from numpy.typing import NDArray
from pictures import pictures, save
from PIL import Image

from vggsearch import EmbeddingOptions, ImageIndex, VggsearchError, undo, verify
from vggsearch.model.engine import Engine
from vggsearch.photos import decoder_pool
from vggsearch.photos.decoder_process import DecoderProcess, Request, Response
from vggsearch.progress import Progress

T = TypeVar("T")
Log = list[str]

RECIPES = ("flat", "ivf-sq8", "hnsw")
PHOTOS = 168  # whitening needs 100, inverted lists 156
SIDE = 96
REPAIRED = 16  # one case of so many is repaired
CHUNK = 100  # cases a child
LIMIT_S = 120  # seconds that a case may take
OPTIONS = EmbeddingOptions(layer="pool3", size=64)
FACTS = ("path", "bytes", "mtime_ns", "sha256", "width", "height", "format", "taken", "is_blank")
USERS = ("decisions.jsonl", "journals")  # damage there costs what the damaged line says
CALIBRATING = ("comparing unrelated pairs", "making edited copies")


# ---- the undamaged index


def make(base: Path, photos: Path | None) -> None:
    """Make photos and their index, with a calibration, below `base`."""
    root = base / "photos"
    for number, picture in zip(range(PHOTOS), pictures(photos, SIDE), strict=False):
        save(picture, root / ("summer" if number % 2 else "winter") / f"{number:03}.jpg")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with ImageIndex.create(base / "index", OPTIONS) as index:
        index.update(root, local_features=True)
        index.duplicates()


def complete(base: Path, recipe: str) -> None:
    """Build the vector index of a copy, change photos, decide and remove: it then has every kind of file."""
    root = base / "photos"
    with ImageIndex.open(base / "index") as index:
        index.build(recipe=recipe)
        for number in (2, 3, 4, 5):
            shutil.copy(root / "winter" / "008.jpg", root / f"copy{number}.jpg")
        with Image.open(root / "winter" / "010.jpg") as picture:
            picture.save(root / "edited.jpg", quality=60)
        (root / "winter" / "000.jpg").unlink()
        (root / "summer" / "001.jpg").unlink()
        index.update()
        index.decide("different", ["copy2.jpg", "copy3.jpg"])
        index.decide("same", ["winter/010.jpg", "edited.jpg"])
        index.decide("different", ["winter/020.jpg", "winter/022.jpg"])
        index.remove(index.plan_removal(index.duplicates(), f"move:{base / 'out'}"))
        for number in (6, 7):
            shutil.copy(root / "winter" / "012.jpg", root / f"copy{number}.jpg")
        index.update()
        index.duplicates()


@dataclass(frozen=True)
class Answers:
    """All that an index says: rows by path, skipped files, matches, groups."""

    rows: tuple[Any, ...]
    skipped: tuple[Any, ...]
    matches: tuple[Any, ...]
    groups: tuple[Any, ...]

    @property
    def roughly(self) -> tuple[Any, ...]:
        """What has to be the same also under another whitening."""
        return self.rows, self.skipped, tuple(found[0] for found in self.matches[:3])


@dataclass
class Case:
    """An index in a folder with its photos, an engine to read it with, and what is right."""

    base: Path
    engine: Engine
    images: Sequence[NDArray[np.uint8]]
    log: Log
    faults: list[str] = field(default_factory=list)
    is_recalibrated: bool = False

    @property
    def index(self) -> Path:
        """The directory of the index."""
        return self.base / "index"

    @property
    def photos(self) -> Path:
        """The folder of photos."""
        return self.base / "photos"

    def opened(self) -> ImageIndex:
        """Open the index."""
        return ImageIndex.open(self.index, engine=self.engine)

    def answers(self, *, local: bool = False) -> Answers:
        """Ask all questions; with `local`, those that local features answer as well. Raises VggsearchError."""
        with self.opened() as index:
            index.info()
            table = index.to_arrow()
            order = np.argsort(table["path"].to_numpy(zero_copy_only=False))
            rows = tuple((name, table[name].take(order).to_pylist()) for name in FACTS)
            rows += (("embedding", index.embeddings()[order].tobytes()),)
            matches = [index.query(image, rerank=False).matches for image in self.images]
            if local:
                matches.append(index.query(self.images[0], count=3).matches)
                matches.append(index.query(self.images[0], count=3, containing=True).matches)
            return Answers(rows, tuple(index.skipped()), tuple(matches), self.groups(index))

    def groups(self, index: ImageIndex) -> tuple[Any, ...]:
        """Return the duplicates; stop where the calibration is computed again, which takes long."""

        def show(progress: Progress) -> None:
            self.is_recalibrated |= progress.stage in CALIBRATING

        try:
            report = index.duplicates(progress=show, stop=lambda: self.is_recalibrated)
        except VggsearchError:
            if self.is_recalibrated:
                return ()
            raise
        return tuple(
            (group.keeper.path, tuple((member.photo.path, member.kind) for member in group.members))
            for group in report.groups
        )

    def attempt(self, what: str, work: Callable[[], T]) -> T | None:
        """Return the result of a step, None for an error as it should be; anything else is a fault."""
        try:
            return work()
        except VggsearchError as error:
            if "\n" in error.for_shell().strip() or len(error.for_shell()) < 20:
                self.faults.append(f"{what}: no good message: {error.for_shell()!r}")
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            self.faults.append(f"{what}: {type(error).__name__}: {str(error)[:300]}")
        return None


# ---- damage


def damaged(data: bytes, random: Random) -> tuple[str, bytes]:
    """Return a changed copy of a file and how it was changed; more often near both ends, where headers are."""
    size = len(data)
    at = random.choice(
        (random.randrange(size), random.randrange(min(size, 128)), size - 1 - random.randrange(min(size, 128)))
    )
    kind = random.choices(("flip", "flips", "cut", "longer", "zeroed", "empty"), (70, 8, 9, 6, 6, 1))[0]
    changed = bytearray(data)
    if kind == "flip":
        changed[at] ^= random.choice((1, 2, 4, 8, 16, 32, 64, 128, 255))
    elif kind == "flips":
        for _ in range(random.randint(2, 8)):
            changed[random.randrange(size)] ^= random.randint(1, 255)
    elif kind == "cut":
        del changed[at:]
    elif kind == "longer":
        changed += random.randbytes(random.choice((1, 8, 100)))
    elif kind == "zeroed":
        length = random.choice((4, 16, 512))
        changed[at : at + length] = bytes(len(changed[at : at + length]))
    else:
        changed.clear()
    return f"{kind} at {at} of {size}", bytes(changed)


def files_of(directory: Path) -> list[Path]:
    """Return the files of an index that hold something, sorted."""
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


# ---- one case


def run_case(case: Case, expected: Sequence[Answers], template: Path, random: Random, *, is_repaired: bool) -> str:
    """Damage a file and use the index; return what was done."""
    restore(template, case.base)
    before = contents(case.photos, case.base / "out")
    lines = [line for path in user_lines(case.index) for line in path.read_bytes().splitlines()]
    file = random.choice(files_of(case.index))
    name = file.relative_to(case.index).as_posix()
    how, data = damaged(file.read_bytes(), random)
    is_users = name.startswith(USERS)
    if data == file.read_bytes():
        return f"{name}: unchanged"
    file.write_bytes(data)
    case.log.clear()
    case.is_recalibrated = False
    right = expected[is_local := name.startswith("local")]
    ask = partial(case.answers, local=is_local)
    check_answers(case, "query", right, case.attempt("query", ask), is_users=is_users)
    case.attempt("verify", lambda: verify(case.index))
    if case.attempt("update", partial(update, case)) and is_repaired:
        check_answers(case, "query after update", right, case.attempt("query after update", ask), is_users=is_users)
    if is_repaired:
        check_repair(case, right)
    kept = b"\n".join(path.read_bytes() for path in user_lines(case.index))
    lost = [line for line in lines if line not in kept]
    if len(lost) > (len(lines) if is_users else 0):
        case.faults.append(f"lost lines {lost}")
    for journal in sorted((case.index / "journals").glob("*")):
        case.attempt("undo", partial(undo, journal, case.photos))
    if before - contents(case.photos, case.base / "out"):
        case.faults.append("a photo is lost")
    return f"{name}: {how}"


def check_repair(case: Case, expected: Answers) -> None:
    """Repair, update and ask again: everything must be as it was, but for the whitening of a new vector index."""
    if case.attempt("repair", lambda: verify(case.index, repair=True)) is None:
        return
    case.attempt("update after repair", partial(update, case, repaired=True))
    after = case.attempt("query after repair", case.answers)
    if after is None:
        case.faults.append("a repair and an update do not restore it")
    elif after.roughly != expected.roughly:
        case.faults.append(f"a repair and an update restore something else: {difference(expected, after)}")
    if any("journals" not in finding.file for finding in verify(case.index).findings):
        case.faults.append("verify finds damage after a repair and an update")


def check_answers(case: Case, what: str, expected: Answers, found: Answers | None, *, is_users: bool) -> None:
    """Note a fault if an answer is wrong: nothing was said, or it is not even roughly right."""
    if found is None:
        return
    if case.is_recalibrated or is_users:
        expected, found = (Answers(each.rows, each.skipped, each.matches, ()) for each in (expected, found))
    if found == expected:
        return
    if found.roughly != expected.roughly:
        case.faults.append(f"{what}: wrong answer: {difference(expected, found)}; said {case.log[:2]}")
    elif not case.log:
        case.faults.append(f"{what}: another answer without a word: {difference(expected, found)}")


def difference(expected: Answers, found: Answers) -> str:
    """Return where two answers differ first."""
    for name in ("rows", "skipped", "matches", "groups"):
        one, other = getattr(expected, name), getattr(found, name)
        if one != other:
            pairs = [pair for pair in zip(one, other, strict=False) if pair[0] != pair[1]]
            return f"{name}: {len(one)} and {len(other)}: {str(pairs[:1])[:500]}"
    return "nowhere"


def update(case: Case, *, repaired: bool = False) -> bool:
    """Update the index; a manifest that was rebuilt has forgotten the photo folder and the local features."""
    with case.opened() as index:
        index.update(case.photos, workers=1, moved=repaired, local_features=True if repaired else None)
    return True


def user_lines(directory: Path) -> list[Path]:
    """Return the files of which no line may be lost."""
    return [
        path for path in (*directory.glob("decisions*"), *directory.glob("journals/*")) if path.suffix == ".jsonl"
    ]


# ---- many cases


class Lines(logging.Handler):
    """Collects what is logged as a warning."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.log.append(record.getMessage())


class KeptProcess(DecoderProcess):
    """A decoder process that the next case uses, unless it is closed while it decodes."""

    idle: ClassVar[list["KeptProcess"]] = []

    def __new__(cls) -> "KeptProcess":
        """Return an idle process if there is one."""
        return cls.idle.pop() if cls.idle else super().__new__(cls)

    def __init__(self) -> None:
        if not hasattr(self, "_asking"):
            self._asking = Lock()
            super().__init__()

    def ask(self, request: Request) -> Response:
        """Have the process answer a request."""
        with self._asking:
            return super().ask(request)

    def close(self) -> None:
        """Keep the process, or end it if it has not answered yet."""
        if not self._asking.acquire(blocking=False):
            super().close()
            return
        self._asking.release()
        self.idle.append(self)


def run_chunk(settings: Settings, base: Path, numbers: Sequence[int], journal: Path) -> None:
    """Run some cases, one line each to a file: a list of the number, what was done and the faults."""
    log: Log = []
    logger = logging.getLogger("vggsearch")
    logger.addHandler(Lines(log))
    logger.propagate = False
    decoder_pool.DecoderProcess = KeptProcess  # type: ignore[attr-defined]
    template, work = base / "template", base / "work"
    restore(template, work)
    with ImageIndex.open(work / "index") as index:
        engine, paths = index.engine, index.paths()
    images = [np.asarray(Image.open(work / "photos" / path)) for path in (paths[0], paths[40], paths[-1])]
    case = Case(work, engine, images, log)
    expected = case.answers(), case.answers(local=True)
    with journal.open("a", encoding="utf-8") as file:
        for number in numbers:
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            case.faults = []
            print(json.dumps([number, "started", []]), file=file, flush=True)
            is_repaired = number % REPAIRED == 0
            done = run_case(case, expected, template, settings.random(number), is_repaired=is_repaired)
            print(json.dumps([number, done, case.faults]), file=file, flush=True)
            faulthandler.cancel_dump_traceback_later()


def flips(settings: Settings) -> Result:
    """Run the campaign."""
    result = Result()
    common = settings.scratch / "common"
    if not common.exists():
        in_child(partial(make, common, settings.photos)).result()
    for recipe in RECIPES:
        base = settings.scratch / recipe
        if not base.exists():
            restore(common, base / "work")
            in_child(partial(complete, base / "work", recipe)).result()
            restore(base / "work", base / "template")
    for batch in settings.batches(CHUNK * len(RECIPES)):
        for at, recipe in enumerate(RECIPES):
            numbers = [number for number in batch if number % len(RECIPES) == at]
            for number, done, faults in finished(settings, settings.scratch / recipe, numbers):
                file = re.sub("[0-9-]{6,}", "*", done.partition(":")[0])
                result.add(number, f"{recipe}: {file}", [f"{done}: {fault}" for fault in faults])
    return result


def finished(settings: Settings, base: Path, numbers: list[int]) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the cases. One that kills its child is a fault, and the next child goes on after it."""
    journal = base / "cases.jsonl"
    while numbers and not settings.is_over:
        journal.write_text("")
        ended = in_child(partial(run_chunk, settings, base, numbers[:CHUNK], journal), limit=CHUNK * LIMIT_S)
        last: list[Any] = [numbers[0] - 1, "", []]
        for line in journal.read_text("utf-8").splitlines():
            last = json.loads(line)
            if last[1] != "started":
                yield last[0], last[1], last[2]
        if last[1] == "started":
            yield last[0], "?", [f"child ended with {ended.status}: {ended.stderr[-3000:]}"]
        elif ended.status != 0:
            raise RuntimeError(ended.stderr)
        numbers = [number for number in numbers if number > last[0]]
