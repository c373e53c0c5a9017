"""The errors that vggsearch raises. Each message names the file and the values involved, and how to proceed."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SkipKind = Literal["not a picture", "broken", "too large", "unreadable", "link", "special file", "bad name"]


@dataclass(frozen=True, slots=True)
class Spelled:
    """A part of an error message that differs between Python and the command line: `moved=True` and `--moved`.

    `str()` of the error shows the Python form, the command line the shell form.

    >>> moved = Spelled("moved=True", "--moved")
    >>> str(moved), moved.shell
    ('moved=True', '--moved')
    """

    python: str
    shell: str

    def __str__(self) -> str:
        """Return the Python form."""
        return self.python


def shell_word(value: object) -> str:
    """Quote a name for bash, zsh and ksh; invisible characters and bytes that are not UTF-8 as $'\\377'.

    >>> shell_word("a.jpg"), shell_word("my photos"), shell_word("a\\nb")
    ('a.jpg', "'my photos'", "$'a\\\\012b'")
    """
    text = str(value)
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_shell_character, text)) + "'"


def _shell_character(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    # In octal, which has at most three digits: after \xff, the next letter could be read as a digit.
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


def option(name: str, value: object = True) -> Spelled:
    """Return an option in both forms: `option("moved")`, `option("min_similarity", 0.9)`.

    >>> option("moved"), option("engine", "torch").shell
    (Spelled(python='moved=True', shell='--moved'), '--engine torch')
    """
    flag = name.replace("_", "-")
    shell = {True: f"--{flag}", False: f"--no-{flag}"}.get(value) if isinstance(value, bool) else None
    return Spelled(f"{name}={value!r}", shell or f"--{flag} {shell_word(value)}")


def spelled(*parts: str | Spelled) -> Spelled:
    """Join texts and the parts that differ between Python and the command line into one text in both forms.

    >>> spelled("Pass ", option("moved"), ".")
    Spelled(python='Pass moved=True.', shell='Pass --moved.')
    """
    return Spelled("".join(map(str, parts)), "".join(p.shell if isinstance(p, Spelled) else p for p in parts))


class VggsearchError(Exception):
    """Base of all errors a user can act on; the command line prints it as one line and exits 1.

    Its arguments are the parts of the message: texts, and parts that differ between Python and the command line.

    >>> from vggsearch.errors import option
    >>> error = VggsearchError("The photos moved: pass ", option("moved"), ".")
    >>> str(error), error.for_shell()
    ('The photos moved: pass moved=True.', 'The photos moved: pass --moved.')
    """

    def __init__(self, *parts: str | Spelled) -> None:
        super().__init__(*parts)
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to pickle and copy an error: without its __init__, which may take other arguments than `args`.

        An exception that cannot be unpickled leaves a multiprocessing.Pool waiting for ever.
        """
        return _restored, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        """Return the message in its Python form."""
        return spelled(*self.parts).python

    def for_shell(self) -> str:
        """Return the message in its command-line form."""
        return spelled(*self.parts).shell


def _restored(kind: type[VggsearchError], arguments: tuple[object, ...]) -> VggsearchError:
    return kind.__new__(kind, *arguments)


AGAIN = Spelled("Repeat the call to continue.", "Run the same command again to continue.")


class Stopped(VggsearchError):
    """The work ended early because `stop` returned True. Finished work is kept; repeat the call to continue.

    `report` describes the finished work, in the type that the call returns; None if there is nothing to report.

    >>> try:
    ...     index.verify(stop=lambda: True)
    ... except Stopped as stopped:
    ...     print(stopped.report)
    None
    """

    def __init__(self, *parts: str | Spelled, report: object = None) -> None:
        super().__init__(*(parts or ("Stopped early; finished work is kept. ", AGAIN)))
        self.report = report


class OptionError(VggsearchError):
    """An option has an invalid value, or two options cannot be combined."""


class InputError(OptionError):
    """An image is given in a form that is not supported, such as an array of another dtype or shape.

    >>> try:
    ...     index.query(5)
    ... except InputError as error:
    ...     print(error)
    An image is a path, the bytes of a file, an open file, a PIL image, an array or a tensor, not int.
    """


class WeightsError(VggsearchError):
    """The weights of the network are missing, damaged, or those of another network."""


class SpecMismatch(VggsearchError):
    """Embeddings that are not comparable would be mixed; the message describes both."""


class PhotosError(VggsearchError):
    """The photo folder is missing, empty, or not the one the index was made from."""


class ImageError(VggsearchError):
    """A file that cannot be decoded as an image; `reason` and `kind` are those of photos.walk.Skipped.

    The message begins with `name`, the path of the file, where the caller may have named several.

    >>> try:
    ...     index.query("photos/notes.txt")
    ... except ImageError as error:
    ...     print(error.kind)
    not a picture
    """

    def __init__(self, reason: str, kind: SkipKind, name: str = "") -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason = reason
        self.kind = kind


class IndexMissing(VggsearchError):
    """No index was found, or several were found and it is unclear which one is meant."""


class IndexExists(VggsearchError):
    """The folder for a new index already contains one."""


UPDATE = Spelled("index.update()", "vggsearch index")
REPAIR = Spelled("vggsearch.verify(INDEX, repair=True)", "vggsearch verify --repair")


class IndexDamaged(VggsearchError):
    """A file of the index is missing or does not match the manifest: `file` is its path, `problem` the reason."""

    def __init__(self, file: Path, problem: str, *way_out: str | Spelled) -> None:
        super().__init__(f"{file} {problem}. ", *(way_out or ("Repair the index: ", REPAIR)))
        self.file = file
        self.problem = problem


class PathOutside(IndexDamaged):
    """A path in the index is none below the photo folder: absolute, or with `..`. No such index is opened."""


class IndexLinked(VggsearchError):
    """A symbolic link stands where the index has a folder or file of its own. It is not followed, nor removed."""

    def __init__(self, path: Path, target: Path) -> None:
        super().__init__(
            f"{path} is a symbolic link to {target}. vggsearch replaces and deletes the files of an index, so it "
            "follows no link there: replace the link by what it leads to."
        )
        self.path = path
        self.target = target


class VectorsDamaged(VggsearchError):
    """An indexed vector contains infinity or NaN; the message names its row."""


class IndexNotReadable(VggsearchError):
    """A file of the index cannot be read: no permission, or its disk is not mounted. It may be intact."""


class IndexNotWritable(VggsearchError):
    """The disk is full or read-only, or permission is denied. The index stays as it was last committed."""


class IndexFormatError(VggsearchError):
    """The index has a format that this version cannot read."""


class IndexLocked(VggsearchError):
    """Another process is writing to the index."""


class DecisionsDamaged(VggsearchError):
    """A line in a file of decisions about duplicates cannot be read. All other lines apply."""

    def __init__(self, file: Path, line: int, problem: str) -> None:
        super().__init__(
            f"Line {line} of {file} cannot be read ({problem}) and does not apply. Correct that line; or ",
            REPAIR,
            " moves it to a file of its own and keeps all other decisions.",
        )
        self.file = file
        self.line = line
        self.problem = problem


class ClusterError(VggsearchError):
    """The Ray cluster cannot be reached, has no room for workers, or its workers keep dying."""


class TruthError(VggsearchError):
    """The ground truth cannot be read, or no query has a relevant photo."""


class LearnedWorse(VggsearchError):
    """What was learned from labels finds less than the index does already, so it was not stored.

    `report` is the LearnReport with all figures.
    """

    def __init__(self, *parts: str | Spelled, report: object = None) -> None:
        super().__init__(*parts)
        self.report = report


class ActionRefused(VggsearchError):
    """A file was not removed, since that might lose a photo; the message names the file and the reason."""


class JournalError(VggsearchError):
    """The journal of a removal cannot be written or read. `file` is its path, `problem` the reason."""

    def __init__(self, file: Path, problem: str, *way_out: str | Spelled) -> None:
        super().__init__(f"{file} {problem}. ", *way_out)
        self.file = file
        self.problem = problem


class InstallationError(VggsearchError):
    """A required package is missing or conflicts with another, for example two FAISS packages."""


class ForkError(VggsearchError):
    """The process was forked after a network or FAISS had been used, and lacks their threads."""

    def __init__(self) -> None:
        super().__init__(
            "This process was forked after its parent had run the network or searched an index; both need threads, "
            'which a fork does not copy. Start processes with multiprocessing.get_context("spawn"), or fork before '
            "the first query."
        )


class PublishError(VggsearchError):
    """A published index cannot be reached, read or written; the message names its place without any password."""


class EngineError(VggsearchError):
    """All GPUs failed; the message names the reason of each."""
