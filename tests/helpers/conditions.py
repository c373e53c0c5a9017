"""Commands in real processes, under conditions in which they cannot do what they are to do."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from tests.fakes import save_photo

Stream = Literal["pipe", "null", "closed", "broken", "full", "read-only", "zero", "folder", "photo"]
Prepare = Callable[[Path], object]

SECONDS = 300
CHECKOUT = Path(__file__).parents[2]
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
MB = 1 << 20

PHOTO = "photos/summer/2.jpg"
COMMANDS: dict[str, tuple[str, ...]] = {
    "help": ("--help",),
    "index new": ("index", "photos", "--index", "indexes/new"),
    "index": ("index", "photos"),
    "query": ("query", PHOTO, "-k", "3"),
    "query json": ("query", PHOTO, "-k", "3", "--format", "json"),
    "query csv": ("query", PHOTO, "-k", "3", "--format", "csv", "--no-rerank"),
    "query stdin": ("query", "-", "-k", "3"),
    "query random": ("query", "--random", "8"),
    "dups": ("dups",),
    "dups csv": ("dups", "--format", "csv"),
    "dups html": ("dups", "--html", "page.html"),
    "remove trash": ("dups", "remove", "trash", "--yes"),
    "remove move": ("dups", "remove", "move:away", "--yes"),
    "remove hardlink": ("dups", "remove", "hardlink", "--yes"),
    "decide": ("dups", "decide", "--same", PHOTO, "photos/summer/3.jpg"),
    "undo": ("dups", "undo", "indexes/photos/journals/made.jsonl", "--root", "photos"),
    "info": ("info", "--skipped", "--format", "csv"),
    "build": ("build",),
    "repair": ("verify", "--repair"),
    "eval truth": ("eval", "truth", "truth.tsv", "--curve", "curve.csv"),
    "eval copies": ("eval", "copies", "photos", "--sample", "2", "--edits", "mirror,jpeg30", "--save", "copies"),
    "model": ("model",),
}
MADE = {"dups html": "page.html", "eval truth": "curve.csv", "eval copies": "copies", "index new": "indexes/new"}


@dataclass(frozen=True)
class Condition:
    """What a process meets: its environment, its streams, its limits, its files.

    `is_bound` binds root by permissions, too. `interrupt` sends SIGINT so many seconds after the start. `is_root`
    needs root.
    """

    env: Mapping[str, str | None] = field(default_factory=dict)
    stdin: Stream = "photo"
    stdout: Stream = "pipe"
    stderr: Stream = "pipe"
    limits: Mapping[int, int] = field(default_factory=dict)
    prepare: Prepare = lambda _: None
    is_bound: bool = False
    interrupt: float | None = None
    is_root: bool = False
    is_in_a_deleted_folder: bool = False


def read_only(lab: Path, name: str) -> None:
    for path in (lab / name, *(lab / name).rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


def unreadable(lab: Path, name: str) -> None:
    for path in lab.glob(name):
        path.chmod(0)


def replace_package(lab: Path, name: str, text: str) -> None:
    (lab / "site").mkdir()
    (lab / "site" / f"{name}.py").write_text(text)


def small_disk(lab: Path, bytes: int) -> None:
    """Put the indexes on a disk with so many bytes left."""
    folder, kept = lab / "indexes", lab / "kept"
    folder.rename(kept)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    shutil.rmtree(kept)
    status = os.statvfs(folder)
    (folder / ".filler").write_bytes(bytes_of(max(0, status.f_bavail * status.f_bsize - bytes)))


def bytes_of(number: int) -> bytes:
    return b"\0" * number


def package(name: str, text: str) -> Condition:
    prepare = partial(replace_package, name=name, text=text)
    return Condition({"PYTHONPATH": f"site{os.pathsep}{CHECKOUT}"}, prepare=prepare)


MISSING = "raise ModuleNotFoundError('No module named ' + repr(__name__), name=__name__)\n"
BROKEN = "raise ImportError('lib.so.1: cannot open shared object file: No such file or directory')\n"
GARBLED = "def :\n"
UNUSABLE_STDOUT = ("stdout full", "stdout closed", "stdout broken", "stdout read-only", "both full", "all closed")

CONDITIONS: dict[str, Condition] = {
    "stdout full": Condition(stdout="full"),
    "stdout closed": Condition(stdout="closed"),
    "stdout broken": Condition(stdout="broken"),
    "stdout read-only": Condition(stdout="read-only"),
    "stderr full": Condition(stderr="full"),
    "stderr closed": Condition(stderr="closed"),
    "stderr broken": Condition(stderr="broken"),
    "both full": Condition(stdout="full", stderr="full"),
    "all closed": Condition(stdin="closed", stdout="closed", stderr="closed"),
    "stdin closed": Condition(stdin="closed"),
    "stdin a folder": Condition(stdin="folder"),
    "stdin endless": Condition(stdin="zero"),
    **{
        f"encoding {name}": Condition({"PYTHONIOENCODING": name})
        for name in ("ascii", "cp1252", "cp932", "utf-16", "latin-1:strict")
    },
    "locale C without UTF-8": Condition({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "locale unknown": Condition({"LC_ALL": "xx_YY.UTF-8"}),
    "locale POSIX": Condition({"LC_ALL": "POSIX"}),
    **{
        f"{size} MB of address space": Condition(limits={resource.RLIMIT_AS: size * MB})
        for size in (50, 100, 200, 400, 700, 1000, 1500, 2000, 3000)
    },
    **{f"{number} files": Condition(limits={resource.RLIMIT_NOFILE: number}) for number in (5, 6, 8, 12, 16, 24)},
    **{
        f"files of {size} bytes": Condition(limits={resource.RLIMIT_FSIZE: size})
        for size in (0, 100, 1000, 4096, 20_000)
    },
    "read-only index": Condition(prepare=partial(read_only, name="indexes"), is_bound=True),
    "read-only photos": Condition(prepare=partial(read_only, name="photos"), is_bound=True),
    "read-only all": Condition(prepare=partial(read_only, name="."), is_bound=True),
    **{
        f"unreadable {name.rpartition('/')[2]}": Condition(prepare=partial(unreadable, name=name), is_bound=True)
        for name in (
            "indexes/photos",
            "indexes/photos/manifest.json",
            "indexes/photos/embeddings/part-*.parquet",
            "indexes/photos/search/*/index.faiss",
            "indexes/photos/search/*/vectors.npy",
            "indexes/photos/decisions.jsonl",
            "indexes/photos/calibration.json",
            "photos",
            PHOTO,
        )
    },
    "HOME unset": Condition({"HOME": None}),
    "HOME missing": Condition({"HOME": "/nonexistent"}),
    "HOME a file": Condition({"HOME": "/dev/null"}),
    "TMPDIR missing": Condition({"TMPDIR": "/nonexistent"}),
    "no environment": Condition(dict.fromkeys(os.environ)),
    "current folder deleted": Condition(is_in_a_deleted_folder=True),
    **{
        f"disk with {size} bytes": Condition(prepare=partial(small_disk, bytes=size), is_root=True)
        for size in (0, 4096, 40_960)
    },
    **{
        f"{name} missing": package(name, MISSING)
        for name in ("faiss", "pyarrow", "cv2", "openvino", "torch", "send2trash", "pillow_heif", "rich", "sklearn")
    },
    **{
        f"{name} broken": package(name, BROKEN)
        for name in ("faiss", "pyarrow", "cv2", "send2trash", "pillow_heif", "rich", "numpy", "PIL", "filelock")
    },
    **{f"{name} garbled": package(name, GARBLED) for name in ("faiss", "cv2", "send2trash", "pillow_heif")},
    **{
        f"Ctrl-C after {ms} ms": Condition(interrupt=ms / 1000)
        for ms in (0, 30, 100, 300, 500, 700, 1000, 1300, 1700, 2200)
    },
}


@dataclass(frozen=True)
class Outcome:
    """How a process ended, and what it wrote to the streams that are pipes."""

    status: int
    stdout: bytes = b""
    stderr: bytes = b""


@contextmanager
def opened(kind: Stream, lab: Path, *, writes: bool) -> Iterator[int | None]:
    """Yield what Popen takes for a stream."""
    if kind in ("pipe", "null", "closed"):
        yield {"pipe": subprocess.PIPE, "null": subprocess.DEVNULL, "closed": None}[kind]
        return
    if kind == "broken":
        reader, number = os.pipe()
        os.close(reader)
    else:
        places = {"full": "/dev/full", "read-only": "/dev/null", "zero": "/dev/zero", "folder": str(lab)}
        number = os.open(
            places.get(kind, str(lab / PHOTO)), os.O_WRONLY if kind == "full" and writes else os.O_RDONLY
        )
    try:
        yield number
    finally:
        os.close(number)


def environment_of(condition: Condition, lab: Path) -> dict[str, str]:
    ours = {"PYTHONPATH": str(CHECKOUT), "HOME": str(lab / "home")}
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS")}
    values: dict[str, str | None] = {**os.environ, **ours, **threads, "VGGSEARCH_INDEX": None, **condition.env}
    if values.get("PYTHONPATH") is None:
        values["PYTHONPATH"] = str(CHECKOUT)
    values["STARTED"] = str(lab / "started") if condition.interrupt is not None else None
    return {name: value for name, value in values.items() if value is not None}


def wait_for(file: Path, process: "subprocess.Popen[bytes]") -> None:
    while not file.exists() and process.poll() is None:
        time.sleep(0.002)


def enter(condition: Condition, lab: Path) -> None:
    """Be the new process just before it starts the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a job in the background ignores
    if condition.is_bound:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if condition.is_in_a_deleted_folder:
        (lab / "gone").mkdir()
        os.chdir(lab / "gone")
        (lab / "gone").rmdir()
    for number, kind in enumerate((condition.stdin, condition.stdout, condition.stderr)):
        if kind == "closed":
            with suppress(OSError):
                os.close(number)
    for limit, value in condition.limits.items():
        resource.setrlimit(limit, (value, value))


def run(words: Sequence[str], lab: Path, condition: Condition = Condition()) -> Outcome:
    """Run a command in a lab. Raises TimeoutExpired for one that does not end."""
    condition.prepare(lab)
    with (
        opened(condition.stdin, lab, writes=False) as stdin,
        opened(condition.stdout, lab, writes=True) as stdout,
        opened(condition.stderr, lab, writes=True) as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.fake_command", *words],
            cwd=lab,
            env=environment_of(condition, lab),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=partial(enter, condition, lab),
            start_new_session=True,
        ) as process,
    ):
        if condition.interrupt is not None:
            wait_for(lab / "started", process)
            time.sleep(condition.interrupt)
            process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Outcome(process.returncode, out or b"", err or b"")


def make_lab(lab: Path) -> None:
    """Make photos, some of them indexed, an exact copy to remove, decisions, and a journal to undo."""
    for seed in range(6):
        save_photo(lab / "photos" / ("summer" if seed < 4 else "winter") / f"{seed}.jpg", seed)
    shutil.copy(lab / "photos/summer/0.jpg", lab / "photos/winter/copy of 0.jpg")
    save_photo(lab / "photos/n\u00e4me \u2603.jpg", 1)
    (lab / "photos/broken \u2603.jpg").write_bytes(b"")
    (lab / "home").mkdir()
    (lab / "truth.tsv").write_text("path\tlabel\nsummer/2.jpg\ta\nsummer/3.jpg\ta\nwinter/4.jpg\tb\n")
    must(("index", "photos"), lab)
    must(("dups", "decide", "--not-duplicates", PHOTO, "photos/winter/4.jpg"), lab)
    must(("dups", "remove", "move:away", "--yes"), lab)
    (journal,) = (lab / "indexes/photos/journals").iterdir()
    journal.rename(journal.with_name("made.jsonl"))
    shutil.copy(lab / PHOTO, lab / "photos/copy of 2.jpg")
    must(("index", "photos"), lab)
    save_photo(lab / "photos/new.jpg", 9)


def must(words: Sequence[str], lab: Path) -> None:
    done = run(words, lab)
    if done.status:
        raise RuntimeError(f"{words}: {done}")


def copy_lab(template: Path, lab: Path) -> None:
    shutil.copytree(template, lab, symlinks=True)


def leave(lab: Path) -> None:
    """Make a lab readable again, and take its disk away."""
    for path in (lab, *lab.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def unmount(lab: Path) -> None:
    if os.path.ismount(lab / "indexes"):
        subprocess.run(["umount", "--lazy", lab / "indexes"], check=True)
