"""The last handler of errors: one line for what can be foreseen; a bug keeps its traceback."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import click

from vggsearch import __version__
from vggsearch.errors import InstallationError, OptionError, VggsearchError
from vggsearch.photos.walk import one_line
from vggsearch.system.installation import distribution
from vggsearch.system.limits import address_space
from vggsearch.system.places import current_folder
from vggsearch.system.units import decimal

BUG = (
    f"This is a bug in vggsearch {__version__}. Please report it to those from whom you have vggsearch, with the "
    "lines above and the command."
)
GONE = "The current folder was deleted. Change to another one: cd"
LESS_MEMORY = (
    "Memory ran out. Close other programs, raise the limit (ulimit -v), or use fewer --workers or a smaller "
    "--batch-size."
)
WAYS_OUT = {
    errno.ENOSPC: "Free disk space, then run the same command again.",
    errno.EDQUOT: "Free disk space, then run the same command again.",
    errno.EFBIG: "Raise the limit of the size of files: ulimit -f unlimited",
    errno.EMFILE: "Raise the limit of open files: ulimit -n 1024",
    errno.EAGAIN: "Raise the limit of processes (ulimit -u), or use fewer --workers.",
}
# How native libraries report that memory ran out: C++, Linux, PyTorch, OpenCV, Python's threads, the loader.
MEMORY_TEXTS = (
    "bad_alloc",
    "bad allocation",
    "cannot allocate memory",
    "can't allocate memory",
    "insufficient memory",
    "out of memory",
    "can't start new thread",
    "failed to map segment",
)


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn an error into one line and exit status 1, or 2 for wrong usage; tell what to do about a bug.

    click prints the line. What a terminal would act on is escaped, since a message may quote any argument.
    """
    try:
        yield
    except click.ClickException as error:
        lines = error.message.split("\n")  # the help of a group has several
        error.message = "\n".join(map(one_line, lines))  # type: ignore[misc] # click declares it final
        raise
    except (click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except OptionError as error:
        raise click.UsageError(_told(error.for_shell())) from error
    except Exception as error:
        told = explanation(error)
        if told is None:
            error.add_note(BUG)
            raise
        raise click.ClickException(_told(told)) from error


def _told(text: str) -> str:
    """Return a message as one line; in a deleted folder, relative paths lead nowhere, which is then the cause."""
    return one_line(text if current_folder() is not None or GONE in text else f"{text} {GONE}")


def explanation(error: Exception) -> str | None:
    """Return one line about an error that can be foreseen; None for a bug."""
    if isinstance(error, VggsearchError):
        return error.for_shell() + _of_limit(error)
    if any(map(_is_of_memory, _chain(error))):
        return LESS_MEMORY
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, UnicodeEncodeError):
        return _of_encoding(error)
    return _of_package(error) if isinstance(error, ImportError | SyntaxError) else None


def _of_limit(error: VggsearchError) -> str:
    """Return what to add about a package that could not be loaded where memory is limited, "" for other errors."""
    limit = address_space()
    if limit is None or not isinstance(error, InstallationError) or error.__cause__ is None:
        return ""
    return f". Or the limit of {decimal(limit)} of memory is too low for it: ulimit -v unlimited"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if isinstance(error, SystemError) and address_space() is not None:
        return True  # a library that lacks memory while it is loaded may fail without telling why
    text = str(error).lower()
    return any(each in text for each in MEMORY_TEXTS)


def _of_system(error: OSError) -> str:
    if error.filename is None and current_folder() is None:
        return GONE
    where = [] if error.filename is None else [f"{os.fsdecode(error.filename)}:"]
    what = error.strerror or str(error)
    return " ".join([*where, f"{what}.", WAYS_OUT.get(error.errno or 0, "")]).strip()


def _of_encoding(error: UnicodeEncodeError) -> str | None:
    """Return what to do about a name that the encoding of this system lacks; None for one that UTF-8 lacks."""
    if error.encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        return None
    return (
        f"{error.object} cannot be written in the encoding of this system, {error.encoding}. Set a locale with "
        "UTF-8, such as LC_ALL=C.UTF-8, or PYTHONUTF8=1."
    )


def _of_package(error: ImportError | SyntaxError) -> str | None:
    """Return what to do about a package of others that cannot be imported; None for a module of vggsearch."""
    place = error.filename if isinstance(error, SyntaxError) else error.name
    if place is not None and "vggsearch" in re.split(r"[./\\\\]", place):
        return None
    reason = next(filter(None, str(error).splitlines()), type(error).__name__)
    return (
        f"A package that vggsearch needs cannot be imported: {reason}. Install all of them again: "
        f"pip install --force-reinstall {distribution()}"
    )
