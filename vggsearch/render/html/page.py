"""Write the page of duplicates group by group, so that memory does not grow with their number."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TextIO

from vggsearch.duplicates.results import Group
from vggsearch.errors import shell_word
from vggsearch.photos.decoder_pool import Decoders, default_workers
from vggsearch.photos.thumbnails import in_order
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.render.duplicates import summary
from vggsearch.render.html.files import asset, content_policy, escaped, link_to, new_page
from vggsearch.render.html.group_data import group_values
from vggsearch.render.html.thumbnail_data import thumbnail_values

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
    with new_page(path) as file:
        _write(file, groups, root, link_to(root, path), facts, Monitor(progress, stop))


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
    style, script = "".join(map(asset, STYLES)), _script()
    rows = "".join(f"<div><dt>{escaped(name)}<dd>{escaped(value)}</div>" for name, value in facts.rows)
    page = Template(asset("page.html")).substitute(
        policy=content_policy(style, script),
        style=style,
        script=script,
        title=escaped(facts.title),
        summary=escaped(summary(groups)),
        facts=f"<dl>{rows}</dl>" if rows else "",
    )
    before, rest = page.split(GROUPS)
    between, after = rest.split(PICTURES)
    return before, between, after


def _script() -> str:
    """Return the modules as one script: beside a page that is a file, a browser loads no module."""
    modules = "\n".join(map(asset, SCRIPTS))
    without_imports = re.sub(r"^import .*\n|^export ", "", modules, flags=re.MULTILINE)
    return f'(() => {{\n"use strict";\n{without_imports}}})();\n'


def _json(values: object) -> str:
    """Return JSON that cannot end its script block or start a comment."""
    return json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")


def _facts_values(root: Path, facts: PageFacts) -> dict[str, str | None]:
    folder = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    remove = None if facts.remove is None else " ".join(map(shell_word, facts.remove))
    return {"decide": " ".join(map(shell_word, facts.decide)), "remove": remove, "folder": folder}
