"""A network of the user's own behind an index: it works, and embeddings of two networks are never mixed."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from tests.fakes import FakeEngine
from vggsearch.cli import cli
from vggsearch.errors import OptionError, SpecMismatch
from vggsearch.image_index import ImageIndex
from vggsearch.model.own_engine import OwnEngine
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_network.py"


class Quarters(OwnEngine):
    """The mean colour of each quarter of a picture."""

    def __init__(self, version: str = "", dim: int = 12, size: int = 64) -> None:
        super().__init__("quarters", dim, version=version, size=size)

    def vectors(self, squares: NDArray[np.uint8]) -> NDArray[np.floating]:
        half = self.spec.size // 2
        cells = squares.reshape(len(squares), 2, half, 2, half, 3).astype(np.float64)
        return np.asarray(cells.mean(axis=(2, 4)).reshape(len(squares), -1) - 100)


@pytest.fixture
def own(photos: Path, tmp_path: Path) -> Path:
    """An index of six photos by a network of their own."""
    with ImageIndex.create(tmp_path / "own", engine=Quarters()) as made:
        made.update(photos)
    return tmp_path / "own"


def test_an_index_of_it_finds_photos_and_duplicates(own: Path, photos: Path) -> None:
    (photos / "copy.jpg").write_bytes((photos / "summer" / "1.jpg").read_bytes())
    with ImageIndex.open(own, engine=Quarters()) as index:
        assert index.update().reused == 1
        assert index.embeddings().shape == (7, 12)
        assert index.spec.dim == 12
        paths = {match.path for match in index.query(photos / "summer" / "1.jpg", count=2).matches}
        assert paths == {"copy.jpg", "summer/1.jpg"}
        assert [pair.kind for pair in index.duplicates().pairs] == ["exact"]


@pytest.mark.parametrize("other", [Quarters("2"), Quarters(size=32)])
def test_another_version_of_it_is_refused(own: Path, other: OwnEngine) -> None:
    with pytest.raises(SpecMismatch, match="cannot be compared"):
        ImageIndex.open(own, engine=other)


def test_an_index_of_a_vgg_is_refused(index: ImageIndex) -> None:
    with pytest.raises(SpecMismatch, match="cannot be compared"):
        ImageIndex.open(index.directory, engine=Quarters())


def test_without_it_the_index_answers_nothing(own: Path, photos: Path) -> None:
    with ImageIndex.open(own) as index, pytest.raises(SpecMismatch, match="a network of your own"):
        index.query(photos / "summer" / "1.jpg")
    done = CliRunner().invoke(cli, ["query", str(photos / "summer" / "1.jpg"), "--index", str(own)])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "own:quarters" in CliRunner().invoke(cli, ["info", "--index", str(own)]).stdout


def test_options_of_a_vgg_do_not_apply(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="describe a VGG"):
        ImageIndex.create(tmp_path / "x", EmbeddingOptions(layer="pool5"), engine=Quarters())
    assert not (tmp_path / "x").exists()


def test_it_has_no_local_features(own: Path) -> None:
    with ImageIndex.open(own, engine=Quarters()) as index, pytest.raises(OptionError, match="no local features"):
        index.update(local_features=True)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.ones((2, 11)), r"shape \(2, 11\) for 2 images, not \(2, 12\)"),
        (np.zeros((2, 12)), "zero, infinite or not a number"),
        (np.full((2, 12), np.nan), "zero, infinite or not a number"),
    ],
)
def test_what_is_no_embedding_is_an_error(
    returned: NDArray[np.float64], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Quarters()
    monkeypatch.setattr(engine, "vectors", lambda _: returned)
    with pytest.raises(OptionError, match=message):
        engine.embed(np.zeros((2, 64, 64, 3), np.uint8))


@pytest.mark.parametrize(("layer", "size"), [("0", 64), ("70000", 64), ("x", 64), ("12", 31), ("12", 2000)])
def test_a_spec_that_no_network_can_have_is_refused(layer: str, size: int) -> None:
    with pytest.raises(OptionError):
        EmbeddingSpec("own:x", layer, "flat", (size,), "squash", "0" * 64)


def test_other_engines_leave_the_spec_to_the_index(tmp_path: Path) -> None:
    with ImageIndex.create(tmp_path / "vgg", engine=FakeEngine()) as index:
        assert not index.spec.is_own


def test_the_example_takes_at_most_twenty_lines() -> None:
    tree = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    documentation = [
        node for node in statements if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    lines = {node.lineno for node in statements if node not in documentation}
    assert len(lines) <= 20, sorted(lines)


@pytest.mark.slow
def test_the_example_runs(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, EXAMPLE, "photos"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "summer/0.jpg 1.0"
