"""The commands and the Python that the documents show, and the folder they are run in."""

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Command:
    """A command line of a console block, and the output that is shown below it."""

    line: str
    output: tuple[str, ...] = ()

    @property
    def words(self) -> list[list[str]]:
        """Return the words of each command that `&&` joins, without `vggsearch`, pipes and `< FILE`."""
        alone = [re.split(r"\s[|<]\s", each)[0] for each in self.line.split("&&")]
        return [shlex.split(each)[1:] for each in alone]

    @property
    def standard_input(self) -> str | None:
        """Return the file after `<`."""
        found = re.search(r"\s<\s*(\S+)", self.line)
        return found[1] if found else None


@dataclass(frozen=True)
class Document:
    """A Markdown file. `commands` and `python` are what its blocks hold, in order."""

    name: str

    @property
    def text(self) -> str:
        return (ROOT / self.name).read_text(encoding="utf-8")

    @property
    def python(self) -> list[str]:
        return re.findall(r"```python\n(.*?)```", self.text, re.DOTALL)

    @property
    def commands(self) -> list[Command]:
        found: list[Command] = []
        for block in re.findall(r"```console\n(.*?)```", self.text, re.DOTALL):
            for entry in re.split(r"^\$ ", block, flags=re.MULTILINE):
                line, *output = entry.splitlines() or [""]
                if line.startswith("vggsearch"):
                    found.append(Command(re.split(r"\s{2,}#", line)[0].strip(), tuple(output)))
        return found

    @property
    def links(self) -> list[tuple[str, str]]:
        """Return each relative link as (path, anchor); the path is empty within the document."""
        without_code = re.sub(r"```.*?```|`[^`\n]*`", "", self.text, flags=re.DOTALL)
        targets = re.findall(r"\]\(([^)\s]+)\)", without_code)
        return [(path, anchor) for path, _, anchor in (each.partition("#") for each in targets) if ":" not in path]

    @property
    def anchors(self) -> set[str]:
        """Return the anchors of its headings, as GitHub and MkDocs make them."""
        without_code = re.sub(r"```.*?```", "", self.text, flags=re.DOTALL)
        headings = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
        return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def documents() -> list[Document]:
    """Return every document that a user or a contributor reads."""
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return [Document(path.relative_to(ROOT).as_posix()) for path in sorted(paths)]


def masked(line: str) -> str:
    """Return a line of output without what differs from run to run: numbers, and the spaces that align them."""
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.,]*", "N", line)).strip()


def lay_out(folder: Path, samples: Path, names: tuple[str, ...] = ("",)) -> None:
    """Write what the documents name: ./photos, ./phone, img.jpg, a.jpg, b.jpg and truth.tsv.

    `names` choose the sample photos by the beginning of their names.
    """
    for path in sorted(samples.rglob("*.jpg")):
        if path.name.startswith(names):
            target = folder / "photos" / path.relative_to(samples)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (folder / "phone").mkdir()
    shutil.copy(samples / "edited" / "coffee_half.jpg", folder / "phone" / "IMG_1.jpg")
    for name, sample in (("img.jpg", "coffee"), ("a.jpg", "coffee"), ("b.jpg", "chelsea")):
        shutil.copy(samples / "originals" / f"{sample}.jpg", folder / name)
    photos = sorted(path.relative_to(folder / "photos") for path in (folder / "photos").rglob("*.jpg"))
    lines = [f"{path.as_posix()}\t{path.stem.split('_')[0]}" for path in photos]
    (folder / "truth.tsv").write_text("\n".join(["path\tlabel", *lines]) + "\n")


def add_three_photos(folder: Path, samples: Path) -> None:
    """Add a.jpg, b.jpg and c.jpg to the photo folder, about which a document decides."""
    for name, sample in (("a.jpg", "brick"), ("b.jpg", "camera"), ("c.jpg", "rocket")):
        shutil.copy(samples / "originals" / f"{sample}.jpg", folder / "photos" / name)


def with_last_journal(words: list[str], folder: Path) -> list[str]:
    """Return a command's words with the newest journal in place of one that a document invents."""
    journals = sorted(folder.glob("indexes/*/journals/*.jsonl"))
    return [str(journals[-1]) if journals and "journals/" in word else word for word in words]
