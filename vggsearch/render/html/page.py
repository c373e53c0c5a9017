"""Write the page of duplicates group by group, so that memory does not grow with their number."""

import hashlib
import html
import json
import os
import re
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TextIO

from vggsearch.duplicates.results import Group
from vggsearch.errors import shell_word
from vggsearch.photos.decoder_pool import Decoders, default_workers
from vggsearch.photos.thumbnails import in_order
from vggsearch.photos.walk import one_line
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.render.duplicates import summary
from vggsearch.render.html.group_data import address, group_values
from vggsearch.render.html.thumbnail_data import thumbnail_values
from vggsearch.system.outputs import check_replaceable, naming

STYLES = ("shared.css", "page.css")
SCRIPTS = (  # in this order, as none may use a class or a constant of a later one while it starts
    "elements.js",
    "cards.js",
    "overlay.js",
    "list.js",
    "marks.js",
    "pictures.js",
    "compare.js",
    "page.js",
)
START = '<!doctype html>\n<html lang="en">\n<meta name="generator" content="vggsearch">\n'
GROUPS, PICTURES = "<!-- groups -->\n", "<!-- pictures -->\n"


@dataclass(frozen=True)
class PageFacts:
    """What is shown above the groups: a title, and rows of name and value.

    `decide` are the words of the command that records decisions; each mark adds its option and photos to them.
    `remove` are those of the command that plans the removal of what is shown, None if there is none.
    """

    title: str = "Duplicates"
    rows: tuple[tuple[str, str], ...] = ()
    decide: tuple[str, ...] = ("vggsearch", "dups", "decide")
    remove: tuple[str, ...] | None = None


def write_page(
    path: Path,
    groups: Sequence[Group],
    root: Path,
    facts: PageFacts = PageFacts(),
    *,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> None:
    """Write groups of duplicates, whose photos are below `root`, as a page at `path`.

    For a photo that cannot be read, the reason is shown. The page is written completely or not at all. Raises
    OptionError if `path` is another kind of file, which is left unchanged; OSError if the page cannot be written;
    Stopped.
    """
    check_replaceable(path, START)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    with unfinished.open("xb"):
        pass  # a file of this name is not overwritten
    try:
        with naming(path), unfinished.open("w", encoding="utf-8", newline="\n") as file:
            _write(file, groups, root, _link(root, path), facts, Monitor(progress, stop))
        unfinished.replace(path)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def _write(
    file: TextIO,
    groups: Sequence[Group],
    root: Path,
    link: str,
    facts: PageFacts,
    monitor: Monitor,
) -> None:
    before, between, after = _frame(groups, facts)
    file.write(before)
    _write_data(file, "facts", _facts_values(root, facts))
    file.write('<script type="application/json" id="groups-data">[')
    for number, group in enumerate(groups):
        file.write(("," if number else "") + "\n" + _json(group_values(group, link)))
    file.write("]</script>\n")
    file.write(between)
    done, total = 0, sum(1 + len(group.members) for group in groups)
    with Decoders(min(default_workers(), total)) as decoders:
        made = in_order(lambda group: thumbnail_values(group, root, decoders), groups)
        for group, shown in zip(groups, made, strict=True):
            _write_data(file, f"pictures-{group.number}", shown)
            done += len(shown)
            monitor.step("writing the page", done, total)
    file.write(after)


def _write_data(file: TextIO, name: str, values: object) -> None:
    file.write(f'<script type="application/json" id="{name}">{_json(values)}</script>\n')


def _frame(groups: Sequence[Group], facts: PageFacts) -> tuple[str, str, str]:
    """Return the text before the groups, between the groups and their thumbnails, and after the thumbnails."""
    style, script = "".join(map(_asset, STYLES)), _script()
    rows = "".join(f"<div><dt>{_escaped(name)}<dd>{_escaped(value)}</div>" for name, value in facts.rows)
    page = Template(_asset("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        title=_escaped(facts.title),
        summary=_escaped(summary(groups)),
        facts=f"<dl>{rows}</dl>" if rows else "",
    )
    before, rest = page.split(GROUPS)
    between, after = rest.split(PICTURES)
    return START + before, between, after


def _script() -> str:
    """Return the modules as one script: beside a page that is a file, a browser loads no module."""
    modules = "\n".join(map(_asset, SCRIPTS))
    without_imports = re.sub(r"^import .*\n|^export ", "", modules, flags=re.MULTILINE)
    return f'(() => {{\n"use strict";\n{without_imports}}})();\n'


def _policy(style: str, script: str) -> str:
    """Return the content security policy: this style and script, pictures embedded or on this disk."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data: file:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _escaped(text: str) -> str:
    return html.escape(one_line(text))


def _json(values: object) -> str:
    """Return JSON that cannot end its script block or start a comment."""
    return json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")


def _facts_values(root: Path, facts: PageFacts) -> dict[str, str | None]:
    folder = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    remove = None if facts.remove is None else " ".join(map(shell_word, facts.remove))
    return {"decide": " ".join(map(shell_word, facts.decide)), "remove": remove, "folder": folder}


def _link(root: Path, path: Path) -> str:
    """Return the URL of the photo folder, relative to the page, so that both can be moved together."""
    try:
        return f"./{address(Path(os.path.relpath(root.resolve(), path.resolve().parent)).as_posix())}"
    except ValueError:  # on another drive
        return root.resolve().as_uri()
