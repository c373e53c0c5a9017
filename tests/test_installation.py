"""What an environment without PyTorch can do and what it reports, and what two distributions in one report."""

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from vggsearch.cli import cli
from vggsearch.errors import InstallationError
from vggsearch.evaluation import throughput
from vggsearch.knn import faiss_import
from vggsearch.model.engine import EngineOptions
from vggsearch.model.loading import choose_engine, load_engine
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.model.weights import WeightsFile, find_weights, load_weights
from vggsearch.system.gpus import cuda_gpus
from vggsearch.system.installation import check_distributions, distribution, has_torch, require_torch

WAY_OUT = (
    " needs PyTorch. Install vggsearch in place of vggsearch-cpu: "
    "pip uninstall vggsearch-cpu faiss-cpu; pip install vggsearch"
)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide PyTorch: importing None is an ImportError."""
    for name in ("torch", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what makes importlib.metadata report these distributions of vggsearch and FAISS, and no others."""
    real = importlib.metadata.version

    def install(*names: str) -> None:
        def version(name: str) -> str:
            if name.startswith(("vggsearch", "faiss")) and name not in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return "1.0" if name in names else real(name)

        monkeypatch.setattr(importlib.metadata, "version", version)
        check_distributions.cache_clear()
        faiss_import.faiss.cache_clear()

    return install


@pytest.fixture(autouse=True)
def fresh() -> None:
    check_distributions.cache_clear()
    faiss_import.faiss.cache_clear()


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """Return the message of the InstallationError that a call raises, in Python's spelling and the shell's."""
    with pytest.raises(InstallationError) as refused:
        call()
    for message in (str(refused.value), refused.value.for_shell()):
        assert message.isprintable()
    return str(refused.value), refused.value.for_shell()


def test_pytorch_is_required_only_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_torch()
    require_torch("anything")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not has_torch()
    assert refusal(lambda: require_torch("Reading a.pth"))[0] == "Reading a.pth" + WAY_OUT


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize(
    ("options", "python", "shell"),
    [
        (EngineOptions("torch"), "engine='torch'", "--engine torch"),
        (EngineOptions(device="cuda"), "device='cuda'", "--device cuda"),
        (EngineOptions(device="mps"), "device='mps'", "--device mps"),
        (EngineOptions(decode="gpu"), "decode='gpu'", "--decode gpu"),
    ],
)
def test_an_option_that_needs_pytorch_reports_what_to_install(
    options: EngineOptions, python: str, shell: str
) -> None:
    spec, weights = EmbeddingOptions(layer="pool1", size=32).resolve()
    assert refusal(lambda: load_engine(spec, weights, options)) == (python + WAY_OUT, shell + WAY_OUT)


@pytest.mark.usefixtures("without_torch")
def test_without_pytorch_auto_is_openvino_even_beside_a_gpu() -> None:
    cuda_gpus.cache_clear()
    assert cuda_gpus() == ()
    assert choose_engine(EngineOptions()) == "openvino"


@pytest.mark.usefixtures("without_torch")
def test_with_no_backend_at_all_openvino_is_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "OpenVINO is not installed: pip install openvino" in refusal(lambda: choose_engine(EngineOptions()))[0]


@pytest.mark.usefixtures("without_torch")
def test_a_pth_reports_what_reads_it(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"PK\3\4 an archive of torch.save")
    message, _ = refusal(lambda: load_weights(WeightsFile(tmp_path / "mine.pth", ""), "vgg16", "pool1"))
    assert message == f"{tmp_path / 'mine.pth'} is not a .safetensors file; reading a .pth" + WAY_OUT


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize(("model", "layer"), [("vgg19", "pool5"), ("vgg16", "fc7")])
def test_weights_that_are_not_packaged_report_what_loads_them(model: str, layer: str) -> None:
    message, _ = refusal(lambda: find_weights(model, layer))
    assert message == f"Loading torchvision's published weights of {model}, a .pth," + WAY_OUT


@pytest.mark.usefixtures("without_torch")
def test_the_command_line_shows_it_as_one_line(photos: Path) -> None:
    done = CliRunner().invoke(cli, ["index", str(photos), "--engine", "torch", "--index", str(photos.parent / "x")])
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == "Error: --engine torch" + WAY_OUT


@pytest.mark.network
@pytest.mark.usefixtures("without_torch")
def test_without_pytorch_the_backends_are_compared_with_openvino_in_fp32(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "COMPARE_S", 0.01)
    spec, weights = EmbeddingOptions(layer="pool1", size=32).resolve()
    reports = throughput.compare(spec, weights, photos)
    assert (reports[0].engine, reports[0].precision, reports[0].worst_cosine) == ("openvino", "fp32", 1.0)
    assert {report.engine for report in reports} == {"openvino"}
    assert any(report.precision == "int8" for report in reports)


def test_both_distributions_in_one_environment_are_an_error_that_names_both(pretend: Callable[..., None]) -> None:
    pretend("vggsearch", "vggsearch-cpu", "faiss-cpu", "faiss-gpu")
    for call in (check_distributions, faiss_import.faiss):
        message, _ = refusal(call)
        assert message.startswith("vggsearch and vggsearch-cpu are both installed")
        assert "pip uninstall vggsearch vggsearch-cpu faiss-cpu faiss-gpu" in message


@pytest.mark.parametrize(
    "words",
    [
        ["index", "photos"],
        ["query", "a.jpg"],
        ["dups"],
        ["dups", "undo", "journal"],
        ["info"],
        ["build"],
        ["verify"],
        ["bench"],
        ["eval", "copies"],
        ["model"],
    ],
    ids=" ".join,
)
def test_every_command_reports_both_distributions_and_help_does_not_look(
    words: list[str], pretend: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "journal"):
        (tmp_path / name).touch()
    pretend("vggsearch", "vggsearch-cpu")
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("Error: vggsearch and vggsearch-cpu are both installed")
    assert CliRunner().invoke(cli, [*words, "--help"]).exit_code == 0


@pytest.mark.parametrize("name", ["vggsearch", "vggsearch-cpu"])
def test_one_distribution_is_right_whichever_it_is(name: str, pretend: Callable[..., None]) -> None:
    pretend(name, "faiss-cpu")
    check_distributions()
    assert distribution() == name
    assert faiss_import.faiss().IndexFlatIP(2).d == 2


def test_two_faiss_packages_are_an_error_that_names_both_and_what_to_install(pretend: Callable[..., None]) -> None:
    pretend("vggsearch-cpu", "faiss-cpu", "faiss-gpu")
    message, _ = refusal(faiss_import.faiss)
    assert "faiss-cpu and faiss-gpu" in message
    assert message.endswith("pip install vggsearch-cpu")


def test_a_checkout_that_is_not_installed_counts_as_vggsearch(pretend: Callable[..., None]) -> None:
    pretend()
    check_distributions()
    assert distribution() == "vggsearch"


def test_help_does_not_import_what_looks_for_distributions() -> None:
    code = "import sys; from vggsearch.cli import cli\ntry: cli(['dups', '--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "importlib.metadata" not in done.stdout.split()
