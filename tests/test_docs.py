"""What the documents show runs: their commands, their Python, the examples in --help. Their links lead somewhere.

Most of it runs in this process with the fake engine; marked `slow`, all of it runs as a user would run it.
"""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from help_pages import commands, help_text
from make_picture import IMAGES, MOST_BYTES, credits_page

import vggsearch
from tests.fakes import FakeEngine
from tests.helpers.calibration import calibrated_with
from tests.helpers.documents import (
    ROOT,
    Command,
    Document,
    add_three_photos,
    documents,
    lay_out,
    masked,
    with_last_journal,
)
from vggsearch.cli import cli
from vggsearch.image_index import ImageIndex

BIN = Path(sys.executable).parent
README = Document("README.md")
DOCUMENTS = documents()
# Document -> how many commands and Python blocks it shows at least, so that none is lost unnoticed.
COMMANDS = {
    "README.md": 3,
    "docs/choosing.md": 11,
    "docs/cluster.md": 4,
    "docs/duplicates.md": 10,
    "docs/embeddings.md": 3,
    "docs/index.md": 7,
    "docs/learning.md": 1,
    "docs/quality.md": 2,
    "docs/queries.md": 25,
}
PYTHON = {"README.md": 1, "docs/cluster.md": 1, "docs/embeddings.md": 6, "docs/python.md": 9, "docs/queries.md": 1}
SHORT_MEASUREMENTS = ("DECODE_S", "FORWARD_S", "END_TO_END_S", "LIMIT_S", "COMPARE_S")
SOME_PHOTOS = ("chelsea", "coffee")
FEWER_COPIES = ("--sample", "1", "--edits", "half,crop50")  # the last of two options counts
README_SIZE = 8_000  # bytes


@pytest.fixture
def fake_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the network by the fake engine wherever one is loaded, and the weights that it does not need."""
    from vggsearch.cli import bench  # noqa: F401 - so that all that load an engine are there to be patched
    from vggsearch.evaluation import throughput
    from vggsearch.model import loading, weights

    load = loading.load_engine
    for name, module in list(sys.modules.items()):
        if name.startswith("vggsearch.") and getattr(module, "load_engine", None) is load:
            monkeypatch.setattr(module, "load_engine", lambda spec, *_: FakeEngine(spec.dim))
    monkeypatch.setattr("vggsearch.image_index.check_weights", lambda *_: None)
    (tmp_path / "weights.pth").write_bytes(b"no network reads this")
    monkeypatch.setattr(weights, "_torchvision_file", lambda _model: tmp_path / "weights.pth")
    for name in SHORT_MEASUREMENTS:
        monkeypatch.setattr(throughput, name, 0.02)
    monkeypatch.setattr(throughput, "MADE_PHOTOS", 4)


@pytest.fixture(scope="module", autouse=True)
def few_edited_copies() -> Iterator[None]:
    with calibrated_with(3):
        yield


@pytest.fixture(scope="module")
def indexed_by_fake(sample_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few sample photos and their index, by the fake engine."""
    folder = tmp_path_factory.mktemp("documents")
    lay_out(folder, sample_photos, SOME_PHOTOS)
    add_three_photos(folder, sample_photos)
    with ImageIndex.create(folder / "indexes" / "photos", engine=FakeEngine()) as index:
        index.update(folder / "photos")
        index.duplicates()  # what it compares is kept in the index, so that the documents need not do it again
    return folder


@pytest.fixture(scope="module")
def indexed_for_real(sample_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by the real network."""
    folder = tmp_path_factory.mktemp("documents")
    lay_out(folder, sample_photos, SOME_PHOTOS)
    add_three_photos(folder, sample_photos)
    with ImageIndex.create(folder / "indexes" / "photos") as index:
        index.update(folder / "photos")
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("VGGSEARCH_INDEX", raising=False)
    monkeypatch.setenv("PATH", f"{BIN}:/usr/bin:/bin")
    return folder


def copied(source: Path, folder: Path, document: Document) -> None:
    """Fill the current directory. The README starts without an index."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    if document == README:
        shutil.rmtree(folder / "indexes")


def run_here(words: list[str], folder: Path, standard_input: str | None) -> None:
    given = (folder / standard_input).read_bytes() if standard_input else b""
    words = [*with_last_journal(words, folder), *(FEWER_COPIES if words[:2] == ["eval", "copies"] else ())]
    result = CliRunner().invoke(cli, words, prog_name="vggsearch", input=given)
    assert result.exit_code == 0, f"vggsearch {' '.join(words)}\n{result.output}"


def run_as_a_user_does(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = " ".join(with_last_journal(line.split(" "), folder))
    done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True)  # noqa: S602
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done


def test_every_document_with_examples_is_run() -> None:
    assert {document.name for document in DOCUMENTS if document.commands} == set(COMMANDS)
    assert {document.name for document in DOCUMENTS if document.python} == set(PYTHON)


@pytest.mark.parametrize("name", COMMANDS)
def test_documented_commands_run_in_order(
    name: str, workplace: Path, fake_network: None, indexed_by_fake: Path
) -> None:
    document = Document(name)
    assert len(document.commands) >= COMMANDS[name]
    copied(indexed_by_fake, workplace, document)
    for command in document.commands:
        for words in command.words:
            run_here(words, workplace, command.standard_input)


@pytest.mark.parametrize("name", PYTHON)
def test_documented_python_runs_in_order(
    name: str, workplace: Path, fake_network: None, indexed_by_fake: Path
) -> None:
    document = Document(name)
    assert len(document.python) >= PYTHON[name]
    copied(indexed_by_fake, workplace, document)
    for block in document.python:
        shown = io.StringIO()
        with redirect_stdout(shown):
            exec(compile(block, name, "exec"), {"__name__": "__main__"})  # noqa: S102 - our own documents
        assert shown.getvalue(), f"This block prints nothing:\n{block}"


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.decoders
def test_the_commands_of_the_readme_show_what_it_says(workplace: Path, sample_photos: Path) -> None:
    lay_out(workplace, sample_photos)
    assert len(README.commands) == COMMANDS["README.md"]
    for command in README.commands:
        done = run_as_a_user_does(command.line, workplace)
        shown = {masked(line) for line in (done.stdout + done.stderr).splitlines()}
        assert {masked(line) for line in command.output if line not in ("", "...")} <= shown, command.line


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.decoders
@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {README.name}))  # of which the test above runs all
def test_documented_commands_run_for_real(
    name: str, workplace: Path, indexed_for_real: Path, random_classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = Document(name)
    copied(indexed_for_real, workplace, document)
    monkeypatch.setenv("TORCH_HOME", str(random_classifier))
    for command in document.commands:
        run_as_a_user_does(command.line, workplace)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.decoders
@pytest.mark.parametrize("name", PYTHON)
def test_documented_python_runs_for_real(name: str, workplace: Path, indexed_for_real: Path) -> None:
    document = Document(name)
    copied(indexed_for_real, workplace, document)
    for block in document.python:
        done = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        assert done.stdout, block


@pytest.fixture(scope="module")
def random_classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put a whole VGG16 where torchvision keeps its downloads; random, since the real one is 528 MB away."""
    torch = pytest.importorskip("torch", reason="vggsearch-cpu has no torch, which reads torchvision's weights")
    from torchvision.models import vgg16

    home = tmp_path_factory.mktemp("torch")
    file = home / "hub" / "checkpoints" / "vgg16-397923af.pth"
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(vgg16(weights=None).state_dict(), file)
    yield home
    file.unlink()


def test_the_readme_is_short() -> None:
    assert len(README.text.encode()) <= README_SIZE


def test_the_pictures_are_small_and_credited() -> None:
    assert all(picture.stat().st_size <= MOST_BYTES for picture in IMAGES.glob("*.webp"))
    assert (IMAGES / "credits.md").read_text(encoding="utf-8") == credits_page()


def test_generated_pages_are_current() -> None:
    command = [str(BIN / "cog"), "--check", "-I", "docs", "docs/cli.md"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nWrite them again: make docs"


@pytest.mark.parametrize("words", list(commands(cli)), ids=" ".join)
def test_every_command_has_help_with_an_example_that_it_accepts(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_text(words)
    lines = text.partition("Example:")[2].partition("\n\n")[0].splitlines()
    examples = [re.split(r"\s{2,}", line.strip())[0] for line in lines if line.strip().startswith("vggsearch")]
    assert examples, text
    assert all(example.startswith(" ".join(("vggsearch", *words))) for example in examples)
    monkeypatch.setattr(click.Command, "invoke", lambda *_: None)  # parse, and do nothing
    for given in (part for example in examples for part in Command(example).words):
        result = CliRunner().invoke(cli, given)
        assert result.exit_code == 0, f"{given}\n{result.output}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.name))
def test_links_between_documents_lead_somewhere(document: Document) -> None:
    for path, anchor in document.links:
        target = (ROOT / document.name).parent / path if path else ROOT / document.name
        assert target.exists(), f"{document.name}: {path}"
        if anchor:
            name = target.resolve().relative_to(ROOT).as_posix()
            assert anchor in Document(name).anchors, f"{document.name}: {path}#{anchor}"


def test_the_python_reference_has_every_public_name() -> None:
    shown = re.findall(r"^::: vggsearch\.(\w+)$", Document("docs/reference.md").text, re.MULTILINE)
    assert sorted(shown) == sorted(set(vggsearch.__all__) - {"__version__"})


@pytest.mark.slow
def test_the_documentation_site_builds_without_warnings(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None:
        pytest.skip("needs pip install 'vggsearch[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not external_resources(tmp_path / "site")


def external_resources(site: Path) -> set[str]:
    """Return what the pages of a site load from the network: scripts, styles, pictures and fonts."""
    loaded = re.compile(r"<(?:script|img|iframe)\b[^>]* src=[\"']?(https?:[^\"'>\s]+)")
    styles = re.compile(r"<link\b[^>]*stylesheet[^>]* href=[\"']?(https?:[^\"'>\s]+)")
    pages = [page.read_text(encoding="utf-8") for page in site.rglob("*.html")]
    return {address for page in pages for each in (loaded, styles) for address in each.findall(page)}
