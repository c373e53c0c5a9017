"""Errors that reach the command line: one line for what can be foreseen, a traceback for a bug."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from vggsearch.cli import cli
from vggsearch.cli.failures import explanation, told_in_one_line
from vggsearch.errors import InstallationError, OptionError, PhotosError
from vggsearch.system.outputs import naming

IMPORT_FAILED = ImportError("numpy cannot be imported")
IMPORT_FAILED.__cause__ = MemoryError()


def run(
    *words: str, before: Callable[[], None] | None = None, **streams: int
) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process of its own; `before` runs in it first."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    words = (sys.executable, "-m", "vggsearch", *words)
    return subprocess.run(words, text=True, preexec_fn=before, **pipes)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "page.html"), "page.html: No space left on device. Free"),
        (
            OSError(errno.EMFILE, "Too many open files"),
            "Too many open files. Raise the limit of open files: ulimit",
        ),
        (
            OSError(errno.EFBIG, "File too large", b"caf\xe9"),
            "caf\udce9: File too large. Raise the limit of the size",
        ),
        (OSError("no number"), "no number."),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Memory ran out."),
        (MemoryError(), "Memory ran out."),
        (np.exceptions.TooHardError("std::bad_alloc"), "Memory ran out."),
        (RuntimeError("Exception from src/core.cpp:1:\nstd::bad_alloc"), "Memory ran out."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), "Memory ran"),
        (RuntimeError("can't start new thread"), "Memory ran out."),
        (pa.ArrowMemoryError("malloc of size 64 failed"), "Memory ran out."),
        (IMPORT_FAILED, "Memory ran out."),
        (ImportError("libGL.so.1: cannot open shared object file", name="cv2"), "A package that vggsearch needs"),
        (
            ModuleNotFoundError("No module named 'faiss'", name="faiss"),
            "cannot be imported: No module named 'faiss'",
        ),
        (
            SyntaxError("invalid syntax", ("/site-packages/faiss/loader.py", 1, 1, "def")),
            "needs cannot be imported",
        ),
        (
            UnicodeEncodeError("ascii", "n\xe4me.jpg", 1, 2, "not in range"),
            "n\xe4me.jpg cannot be written in the enc",
        ),
        (PhotosError("x is missing."), "x is missing."),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, Exception) else "",
)
def test_what_can_be_foreseen_is_told_in_one_line(error: Exception, line: str) -> None:
    told = explanation(error)
    assert told is not None
    assert line in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "error",
    [
        KeyError("row"),
        RuntimeError("a bug"),
        RecursionError(),
        AssertionError(),
        ImportError("cannot import name 'x' from 'vggsearch.query'", name="vggsearch.query"),
        SyntaxError("invalid syntax", ("/x/vggsearch/query/run.py", 1, 1, "def")),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    ],
    ids=repr,
)
def test_a_bug_keeps_its_traceback_with_a_note_what_to_do(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, told_in_one_line():
        raise error
    assert raised.value is error
    assert "This is a bug in vggsearch" in error.__notes__[0]


def test_what_a_message_quotes_is_escaped_and_wrong_usage_keeps_its_status() -> None:
    with pytest.raises(click.UsageError, match=r"^\\x1b\[2J$"), told_in_one_line():
        raise OptionError("\x1b[2J")
    with pytest.raises(click.ClickException, match=r"^\\x07: gone\.$") as raised, told_in_one_line():
        raise FileNotFoundError(errno.ENOENT, "gone", "\x07")
    assert raised.value.exit_code == 1


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("dups", "--help"), ("model",)])
def test_a_full_or_closed_stdout_is_an_error_of_one_line(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(*words, stdout=full.fileno())
    assert (done.returncode, done.stderr) == (
        1,
        "Error: standard output: No space left on device. Free disk space, then run the same command again.\n",
    )
    done = run(*words, before=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (1, "Error: standard output: Bad file descriptor.\n")


def test_a_closed_pipe_ends_the_command_silently() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("--help", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_cannot_be_written_to_stderr_is_lost_and_the_status_is_right() -> None:
    with Path("/dev/full").open("wb") as full:
        for before in (None, lambda: os.close(2)):
            assert run("model", stderr=full.fileno(), before=before).stdout.startswith("layer")
            assert run("model", "--layer", "x", stderr=full.fileno(), before=before).returncode == 2


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """Else a library that prints would write into a file of the index."""
    program = (
        "import os; from vggsearch.cli.streams import prepare_streams; prepare_streams();"
        f"number = os.open({str(tmp_path / 'number')!r}, os.O_CREAT | 1); os.write(number, b'%d' % number)"
    )

    def close_all() -> None:
        os.closerange(0, 3)

    subprocess.run([sys.executable, "-c", program], check=True, preexec_fn=close_all)
    assert int((tmp_path / "number").read_bytes()) > 2


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932", "latin-1", "utf-8", "shift_jis"])
def test_a_name_outside_the_code_page_of_stdout_is_escaped(encoding: str) -> None:
    name = "caf\u00e9 \u2603 \udcff"
    program = f"from vggsearch.cli.streams import prepare_streams; prepare_streams(); print({name!a}, end='')"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment).stdout
    assert shown == name.encode(encoding, "backslashreplace")


def test_an_error_of_writing_names_the_file() -> None:
    with pytest.raises(OSError, match="No space left on device"), naming(Path("page.html")):
        Path("/dev/full").write_text("x")
    with pytest.raises(FileNotFoundError, match="absent"), naming(Path("page.html")):
        Path("absent").read_text()


def test_a_limit_of_memory_below_the_least_is_told_with_both_numbers() -> None:
    resource = pytest.importorskip("resource")
    done = run("model", before=lambda: resource.setrlimit(resource.RLIMIT_AS, (200_000_000, 200_000_000)))
    assert (done.returncode, done.stdout) == (1, "")
    assert "limited to 200.0 MB, and vggsearch needs at least 1.0 GB to start. Raise the limit" in done.stderr
    assert run("--help", before=lambda: resource.setrlimit(resource.RLIMIT_AS, (200_000_000,) * 2)).returncode == 0


def test_a_system_error_is_a_lack_of_memory_only_where_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    error = SystemError("error return without exception set")
    assert explanation(error) is None
    monkeypatch.setattr("vggsearch.cli.failures.address_space", lambda: 700_000_000)
    assert "Memory ran out" in (explanation(error) or "")


def test_a_package_that_cannot_be_loaded_under_a_limit_of_memory_may_lack_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error, cause = InstallationError("FAISS cannot be imported"), ImportError("libfaiss.so: corrupt?")
    monkeypatch.setattr("vggsearch.cli.failures.address_space", lambda: 2_000_000_000)
    assert explanation(error) == "FAISS cannot be imported"
    error.__cause__ = cause
    assert explanation(error) == (
        "FAISS cannot be imported. Or the limit of 2.0 GB of memory is too low for it: ulimit -v unlimited"
    )
    monkeypatch.setattr("vggsearch.cli.failures.address_space", lambda: None)
    assert explanation(error) == "FAISS cannot be imported"


def test_a_deleted_current_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = CliRunner().invoke(cli, ["index", "."])
    assert done.exit_code == 1
    assert done.stderr == "Error: The current folder was deleted. Change to another one: cd\n"
    for words in (["index", "photos"], ["info"], ["dups", "undo", "journal.jsonl"], ["query", "a.jpg"]):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code > 0
        assert done.stderr.endswith(" The current folder was deleted. Change to another one: cd\n"), words


def test_a_library_for_which_a_limit_leaves_no_room_is_not_loaded() -> None:
    """OpenBLAS, which FAISS comes with, crashes if it gets no memory while it is loaded."""
    pytest.importorskip("resource")
    script = (
        "import resource; from vggsearch.system.limits import check_room\n"
        "check_room('FAISS', 10**12)  # nothing is limited\n"
        "resource.setrlimit(resource.RLIMIT_AS, (10**9, resource.RLIM_INFINITY))\n"
        "check_room('FAISS', 10**8)\n"
        "check_room('FAISS', 10**9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.endswith(
        "InstallationError: FAISS needs 1.0 GB of memory to be loaded, and the limit of 1.0 GB of this process "
        "does not leave as much. Raise the limit: ulimit -v unlimited\n"
    )
