"""Every error vggsearch raises on purpose. Each message names the file, the numbers and the way out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SkipKind = Literal["not a picture", "broken", "too large", "unreadable", "link", "special file", "bad name"]


@dataclass(frozen=True, slots=True)
class Spelled:
    """A way out as Python and as the command line spell it: `moved=True` and `--moved`.

    It is a part of an error's message. `str()` of the error shows the first, the command line the second.
    """

    python: str
    shell: str

    def __str__(self) -> str:
        """Return it as Python spells it."""
        return self.python


def option(name: str, value: object = True) -> Spelled:
    """Return an option in both spellings: `option("moved")`, `option("min_similarity", 0.9)`.

    >>> option("moved"), option("engine", "torch").shell
    (Spelled(python='moved=True', shell='--moved'), '--engine torch')
    """
    flag = name.replace("_", "-")
    shell = {True: f"--{flag}", False: f"--no-{flag}"}.get(value) if isinstance(value, bool) else None
    return Spelled(f"{name}={value!r}", shell or f"--{flag} {value}")


def spelled(*parts: str | Spelled) -> Spelled:
    """Return a sentence in both spellings, from texts and what Python and the command line spell differently.

    >>> spelled("Pass ", option("moved"), ".")
    Spelled(python='Pass moved=True.', shell='Pass --moved.')
    """
    return Spelled("".join(map(str, parts)), "".join(p.shell if isinstance(p, Spelled) else p for p in parts))


class VggsearchError(Exception):
    """Base of all errors a user can act on; the command line prints it as one line and exits 1.

    Its arguments are the parts of the message: texts, and what Python and the command line spell differently.

    >>> error = VggsearchError("The photos moved: pass ", option("moved"), ".")
    >>> str(error), error.for_shell()
    ('The photos moved: pass moved=True.', 'The photos moved: pass --moved.')
    """

    def __init__(self, *parts: str | Spelled) -> None:
        super().__init__(*parts)
        self.parts = parts

    def __str__(self) -> str:
        """Return the message as a Python user reads it."""
        return spelled(*self.parts).python

    def for_shell(self) -> str:
        """Return the message as the command line shows it."""
        return spelled(*self.parts).shell


AGAIN = Spelled("The same call goes on from there.", "Run the same command to go on.")


class Stopped(VggsearchError):
    """The work ended early because `stop` asked it to. What was finished is kept; the same call goes on from there.

    `report` is what was done until then, of the type that the call returns, or None where nothing is worth showing.
    """

    def __init__(self, *parts: str | Spelled, report: object = None) -> None:
        super().__init__(*(parts or ("Stopped early; what was done is kept. ", AGAIN)))
        self.report = report


class OptionError(VggsearchError):
    """An option has no such value, or two options do not go together."""


class WeightsError(VggsearchError):
    """The network's weights are missing, damaged, or of another network."""


class SpecMismatch(VggsearchError):
    """Embeddings of two kinds would be mixed; the message names both."""


class PhotosError(VggsearchError):
    """The photo folder is missing, empty, or not the one the index was made from."""


class ImageError(VggsearchError):
    """A file that could not be used as a picture; `reason` and `kind` are those of photos.Skipped."""

    def __init__(self, reason: str, kind: SkipKind) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


class IndexMissing(VggsearchError):
    """There is no index where one was looked for, or more than one could be meant."""


class IndexExists(VggsearchError):
    """An index is already where a new one was to be created."""


REPAIR = Spelled("vggsearch.verify(INDEX, repair=True)", "vggsearch verify --repair")


class IndexDamaged(VggsearchError):
    """A file of the index is missing or does not hold what the manifest says: which `file`, and what is wrong."""

    def __init__(self, file: Path, problem: str, *way_out: str | Spelled) -> None:
        super().__init__(f"{file} {problem}. ", *(way_out or ("Repair the index: ", REPAIR)))
        self.file = file
        self.problem = problem


class VectorsDamaged(VggsearchError):
    """A vector that is searched holds what is not a number; the message names its row."""


class IndexNotReadable(VggsearchError):
    """A file of the index cannot be read now: no permission, or its disk is away. It may be whole."""


class IndexNotWritable(VggsearchError):
    """The disk is full or read-only, or permission is lacking. The index is as it was last committed."""


class IndexFormatError(VggsearchError):
    """The index was written in a format this version does not read."""


class IndexLocked(VggsearchError):
    """Another process is writing to the index."""


class DecisionsDamaged(VggsearchError):
    """A line of a file of decisions about duplicates cannot be read. Nothing is searched or decided without it."""

    def __init__(self, file: Path, line: int, problem: str) -> None:
        super().__init__(
            f"Line {line} of {file} cannot be read ({problem}). Correct that line; or ",
            REPAIR,
            " moves it to a file of its own and keeps all other decisions.",
        )
        self.file = file
        self.line = line
        self.problem = problem


class TruthError(VggsearchError):
    """The file that says which photos belong together cannot be read, or has nothing to find."""


class ActionRefused(VggsearchError):
    """A file that is left alone, as acting on it might lose a photo; the message names it and says why."""


class JournalError(VggsearchError):
    """The journal of a removal cannot be written or read: which `file`, the `problem`, and what was done."""

    def __init__(self, file: Path, problem: str, *way_out: str | Spelled) -> None:
        super().__init__(f"{file} {problem}. ", *way_out)
        self.file = file
        self.problem = problem


class InstallationError(VggsearchError):
    """The Python environment itself is wrong, for example two FAISS packages in one."""


class EngineError(VggsearchError):
    """What runs the network broke down; the message names every GPU and its reason."""
