"""Pages as files: written completely or not at all, their texts escaped, nothing fetched from elsewhere."""

import hashlib
import html
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from vggsearch.photos.addresses import address_of, is_address
from vggsearch.photos.walk import one_line
from vggsearch.system.outputs import check_replaceable, naming

START = '<!doctype html>\n<html lang="en">\n<meta name="generator" content="vggsearch">\n'


@contextmanager
def new_page(path: Path) -> Iterator[TextIO]:
    """Open a page for writing, its start already written; it takes its name when it is complete.

    Raises OptionError if `path` is another kind of file, which is left unchanged; OSError if the page cannot be
    written.
    """
    check_replaceable(path, START)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    with unfinished.open("xb"):
        pass  # a file of this name is not overwritten
    try:
        with naming(path), unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.write(START)
            yield file
        unfinished.replace(path)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def content_policy(style: str, script: str = "") -> str:
    """Return the content security policy: this style and script, pictures embedded or on this disk."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data: file:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def asset(name: str) -> str:
    """Return a file of the package."""
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def escaped(text: str) -> str:
    """Return text for HTML, in which nothing acts on its reader."""
    return html.escape(one_line(text))


def link_to(root: Path, path: Path) -> str:
    """Return the URL of the photo folder, relative to the page, so that both can be moved together."""
    if is_address(root):
        return quote(address_of(root), safe=":/")
    try:
        return f"./{address(Path(os.path.relpath(root.resolve(), path.resolve().parent)).as_posix())}"
    except ValueError:  # on another drive
        return root.resolve().as_uri()


def address(path: str) -> str:
    """Return a path as a part of a URL, its bytes escaped, so that none is read as a scheme or a query."""
    return quote(os.fsencode(path))
