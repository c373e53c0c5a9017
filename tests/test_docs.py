"""What the README says is run: its Python, its commands, and its --help pages."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import vgg16

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    re.split(r"\s{2,}#", line.removeprefix("$ "))[0].strip()
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ vggsearch")
]


@pytest.fixture
def a_persons_folder(sample_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos in ./photos, a picture img.jpg beside them, a.jpg, b.jpg, and which photos belong together."""
    shutil.copytree(sample_photos, tmp_path / "photos")
    for name in ("img.jpg", "a.jpg", "b.jpg"):
        shutil.copy(sample_photos / "originals" / "coffee.jpg", tmp_path / name)
    photos = sorted(path.relative_to(tmp_path / "photos") for path in (tmp_path / "photos").rglob("*.jpg"))
    lines = [f"{path.as_posix()}\t{path.stem.split('_')[0]}" for path in photos]
    (tmp_path / "truth.tsv").write_text("\n".join(["path\tlabel", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VGGSEARCH_INDEX", raising=False)
    return tmp_path


@pytest.mark.network
def test_the_python_in_the_readme_runs_in_order(a_persons_folder: Path) -> None:
    assert len(PYTHON_BLOCKS) == 4
    for block in PYTHON_BLOCKS:
        done = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        assert done.stdout, block


@pytest.mark.network
def test_the_commands_in_the_readme_run_in_order(a_persons_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(COMMANDS) == 27
    monkeypatch.setenv("TORCH_HOME", str(a_persons_folder / "torch"))
    monkeypatch.setenv("PATH", f"{BIN}:/usr/bin:/bin")
    cache_random_classifier(a_persons_folder / "torch" / "hub" / "checkpoints" / "vgg16-397923af.pth")
    for command in COMMANDS:
        if "info" in command and "--index" not in command:
            command = command.replace("info", "info --index indexes/photos")
        done = subprocess.run(command, shell=True, capture_output=True, text=True)  # noqa: S602
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    (a_persons_folder / "torch" / "hub" / "checkpoints" / "vgg16-397923af.pth").unlink()


def cache_random_classifier(path: Path) -> None:
    """Put a whole VGG16 where torchvision keeps its downloads; random, since the real one is 528 MB away."""
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(vgg16(weights=None).state_dict(), path)


def test_the_help_pages_in_the_readme_are_those_of_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{BIN}:/usr/bin:/bin")
    done = subprocess.run([BIN / "cog", "--check", "README.md"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nWrite them again: make docs"


@pytest.mark.parametrize("document", sorted(path.name for path in ROOT.glob("*.md")))
def test_links_between_documents_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), f"{document}: {target}"
