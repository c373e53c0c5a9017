"""MkDocs hooks: add the documents at the root of the repository to the site, and the files that documents link to.

Links in the repository are relative to the file they are in, as GitHub shows them. In the site, ARCHITECTURE.md
becomes architecture.md, and a linked script such as examples/find_copies.py becomes files/examples/find_copies.py.
"""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {f"{name}.md": f"{name.lower()}.md" for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")}
LINK = re.compile(r"(\]\(|(?:href|src)=\")([^)\s\"#:]+)((?:#[^)\s\"]*)?[)\"])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root documents as pages, and the files that any document links to."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    sources = [path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md")]
    linked = {target for source in (*sources, *PAGES) for target in linked_files(source)}
    for target in sorted(linked):
        path = ROOT / target
        files.append(File.generated(config, place_in_site(target), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Rewrite the relative links of a page to where their targets are in the site."""
    here = page.file.src_uri
    source = next((name for name, target in PAGES.items() if target == here), f"docs/{here}")

    def rewritten(link: re.Match[str]) -> str:
        target = place_in_site(in_repository(source, link[2]))
        return f"{link[1]}{os.path.relpath(target, PurePosixPath(here).parent)}{link[3]}"

    return LINK.sub(rewritten, markdown)


def linked_files(source: str) -> set[str]:
    """Return the files outside docs/ that a document links to and that are no page of the site."""
    text = (ROOT / source).read_text(encoding="utf-8")
    targets = {in_repository(source, link[1]) for link in LINK.findall(text)}
    outside = {target for target in targets if not target.startswith("docs/") and target not in PAGES}
    return {target for target in outside if (ROOT / target).is_file()}


def in_repository(source: str, link: str) -> str:
    """Return where a relative link of `source` leads, from the root of the repository."""
    return os.path.normpath(PurePosixPath(source).parent / link).replace(os.sep, "/")


def place_in_site(target: str) -> str:
    """Return where the site has a file of the repository.

    >>> place_in_site("docs/quality.md"), place_in_site("ARCHITECTURE.md"), place_in_site("examples/find_copies.py")
    ('quality.md', 'architecture.md', 'files/examples/find_copies.py')
    """
    if target in PAGES:
        return PAGES[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else f"files/{target}"
