"""What the wheels of both distributions hold, and that they work where nothing else is installed."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pillow_heif
import pytest

import vggsearch
from tests.fakes import FakeEngine, save_photo
from vggsearch.image_index import ImageIndex
from vggsearch.model.weights import PACKAGED_FILES

ROOT = Path(__file__).parent.parent
BARE = ROOT / "tests" / "helpers" / "bare"
DEVELOPMENT_TOOLS = {"pytest", "ruff", "mypy", "hypothesis", "hatchling"}


def run_bare(*words: str, status: int = 0) -> str:
    """Run Python without the other dependencies of vggsearch; return what it prints, or its last error line."""
    path = os.pathsep.join(map(str, (BARE, ROOT)))
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": path}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr.splitlines()[-1] if status else done.stdout


def build(flavour: str, kind: str, folder: Path) -> Path:
    """Build the wheel or the sdist of a flavour into a folder; return it."""
    tree = ROOT
    if flavour == "cpu":
        tree = folder / "tree"
        subprocess.run([sys.executable, ROOT / "packaging" / "cpu.py", tree], check=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder / kind)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (built,) = (folder / kind).iterdir()
    return built


@pytest.mark.parametrize(("flavour", "name"), [("gpu", "vggsearch"), ("cpu", "vggsearch_cpu")])
def test_a_wheel_holds_the_package_its_weights_and_its_notices_and_nothing_else(
    flavour: str, name: str, tmp_path: Path
) -> None:
    wheel = build(flavour, "wheel", tmp_path)
    assert wheel.name.startswith(f"{name}-{vggsearch.__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        names = {info.filename: info.file_size for info in archive.infolist()}
    assert names["vggsearch/model/weights/vgg16_conv_imagenet1k_v1.fp16.safetensors"] == 29_431_816
    assert {f"vggsearch/model/weights/{path.name}" for path in PACKAGED_FILES.values()} <= set(names)
    assert "vggsearch/py.typed" in names
    folders = (ROOT / "vggsearch" / "render" / "html" / "assets", ROOT / "vggsearch" / "serve" / "web")
    assert {str(path.relative_to(ROOT)) for folder in folders for path in folder.iterdir()} <= set(names)
    notices = {Path(name).name for name in names if "/licenses/" in name}
    assert notices == {"LICENSE", "NOTICE"}
    assert {name.split("/")[0] for name in names} == {"vggsearch", f"{name}-{vggsearch.__version__}.dist-info"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "vggsearch").rglob("*.py")}
    assert modules <= set(names)


def project_of_the_cpu_tree(folder: Path) -> dict[str, Any]:
    subprocess.run([sys.executable, ROOT / "packaging" / "cpu.py", folder], check=True)
    return project_in(folder)


def project_in(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def test_vggsearch_cpu_differs_by_what_gpus_need_and_is_the_same_for_the_rest(tmp_path: Path) -> None:
    ours, theirs = project_in(ROOT), project_of_the_cpu_tree(tmp_path / "tree")
    assert theirs["name"] == "vggsearch-cpu"
    left_out = set(ours["dependencies"]) - set(theirs["dependencies"])
    added = set(theirs["dependencies"]) - set(ours["dependencies"])
    assert sorted(each.partition(">")[0] for each in left_out) == ["faiss-cpu", "faiss-gpu", "torch", "torchvision"]
    assert added == {next(each for each in left_out if each.startswith("faiss-cpu")).partition(";")[0]}
    extras = ours["optional-dependencies"]
    assert theirs["optional-dependencies"] == {
        name: extras[name] for name in ("eval", "lance", "postgres", "ray", "web")
    }
    differing = {key for key in ours if ours[key] != theirs.get(key)}
    assert differing == {"name", "description", "dependencies", "optional-dependencies"}


PRINT_DISTRIBUTIONS = "from importlib.metadata import *; print(*(each.name for each in distributions()))"
PRINT_MISSING = """
from importlib.metadata import PackageNotFoundError, requires, version
from pip._vendor.packaging.requirements import Requirement
for each in map(Requirement, requires("vggsearch")):
    if each.marker is None or each.marker.evaluate({"extra": ""}):
        try:
            if not each.specifier.contains(version(each.name), prereleases=True):
                print(each)
        except PackageNotFoundError:
            print(each)
"""


class Environment:
    """A new virtual environment, with nothing of this checkout or of the environment that runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, env=self.variables)

    def run(self, program: str, *words: str, status: int = 0) -> str:
        """Run a program of the environment outside the checkout; return what it prints, or its last error line."""
        command = [str(self.bin / program), *words]
        done = subprocess.run(
            command, cwd=self.folder.parent, capture_output=True, text=True, env=self.variables, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr.splitlines()[-1] if status else done.stdout

    def pip(self, *words: str) -> str:
        return self.run("python", "-m", "pip", "--disable-pip-version-check", *words)

    def vggsearch(self, *words: str, status: int = 0) -> str:
        return self.run("vggsearch", *words, status=status)

    def bytes_on_disk(self) -> int:
        done = subprocess.run(["du", "-sk", self.folder], check=True, capture_output=True, text=True)
        return int(done.stdout.split()[0]) * 1024

    def distributions(self) -> set[str]:
        return {name.lower() for name in self.run("python", "-c", PRINT_DISTRIBUTIONS).split()}


def use(environment: Environment) -> None:
    """Run the commands of an installed distribution on a few photos, one of which is a copy."""
    photos = environment.folder.parent / "photos"
    for seed in range(4):
        save_photo(photos / f"{seed}.jpg", seed)
    shutil.copy(photos / "0.jpg", photos / "copy.jpg")
    assert "Usage: vggsearch" in environment.vggsearch("--help")
    assert "5 photos" in environment.vggsearch("index", "photos")
    best = json.loads(environment.vggsearch("query", "photos/2.jpg", "-k", "1", "--format", "json"))
    assert best[0]["matches"][0]["path"] == "2.jpg"
    pairs = environment.vggsearch("dups", "--format", "paths").split()
    assert [Path(path).name for path in pairs] in (["0.jpg"], ["copy.jpg"])
    for words in (["build"], ["info"], ["verify"], ["model"]):
        assert environment.vggsearch(*words)


@pytest.mark.slow
def test_the_cpu_wheel_works_in_an_environment_of_its_own_and_takes_less_than_800_mb(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    before = environment.bytes_on_disk()
    environment.pip("install", "-c", str(ROOT / "constraints.txt"), str(build("cpu", "wheel", tmp_path)))
    assert environment.bytes_on_disk() - before < 800_000_000
    installed = environment.distributions()
    assert "vggsearch-cpu" in installed
    assert installed.isdisjoint(DEVELOPMENT_TOOLS | {"torch", "torchvision", "faiss-gpu", "vggsearch"})
    assert not [name for name in installed if name.startswith("nvidia")]
    use(environment)
    for number, words in enumerate(
        (["--engine", "torch"], ["--device", "cuda"], ["--decode", "gpu"], ["--model", "vgg19"])
    ):
        refusal = environment.vggsearch("index", "photos", "--index", f"other{number}", *words, status=1)
        assert refusal.startswith("Error: ")
        assert "needs PyTorch" in refusal


@pytest.mark.slow
def test_the_gpu_wheel_works_in_an_environment_of_its_own(tmp_path: Path) -> None:
    """Its dependencies are those of the environment that runs the tests: PyTorch and CUDA are 7 GB."""
    environment = Environment(tmp_path / "environment")
    (own,) = environment.folder.glob("lib/python*/site-packages")
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    environment.pip("install", "--no-deps", "--ignore-installed", str(build("gpu", "wheel", tmp_path)))
    missing = environment.run("python", "-c", PRINT_MISSING)
    assert not missing.split()
    where = environment.run("python", "-c", "import vggsearch; print(vggsearch.__file__)")
    assert Path(where.strip()).is_relative_to(own)
    use(environment)
    best = environment.vggsearch("query", "photos/2.jpg", "-k", "1", "--engine", "torch", "--format", "paths")
    assert best.strip().endswith("2.jpg")


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["gpu", "cpu"])
def test_a_source_distribution_builds_the_wheel_of_its_flavour(flavour: str, tmp_path: Path) -> None:
    with tarfile.open(build(flavour, "sdist", tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (tree,) = (tmp_path / "unpacked").iterdir()
    assert not [path for path in tree.rglob("*") if path.is_symlink()]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "again")]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (again,) = (tmp_path / "again").iterdir()
    direct = build(flavour, "wheel", tmp_path)
    assert again.name == direct.name
    with zipfile.ZipFile(again) as ours, zipfile.ZipFile(direct) as theirs:
        assert {each.filename: each.CRC for each in ours.infolist()} == {
            each.filename: each.CRC for each in theirs.infolist()
        }


@pytest.mark.slow
def test_the_tests_of_make_gpu_need_none_of_the_other_dependencies() -> None:
    assert "test_gpu.py" in run_bare(
        "-m", "pytest", "tests/test_gpu.py", "-p", "no:cacheprovider", "--collect-only"
    )


def test_the_bench_of_make_gpu_needs_none_of_them_either(photos: Path) -> None:
    code = """
import sys
from vggsearch.cli import cli
from vggsearch.evaluation import throughput
for name in ("DECODE_S", "FORWARD_S", "END_TO_END_S", "LIMIT_S"):
    setattr(throughput, name, 0.1)
cli(["bench", sys.argv[1], "--engine", "torch", "--device", "cpu", "--size", "32", "--format", "json"])
"""
    assert json.loads(run_bare("-c", code, str(photos)))["engine"] == "torch"


@pytest.mark.slow
def test_the_figures_of_make_gpu_need_none_of_them_either(tmp_path: Path) -> None:
    out = tmp_path / "build" / "figures.json"
    words = ("--small", "9", "--large", "2", "--runs", "1", "--no-bench", "--device", "cpu", "--out", str(out))
    printed = run_bare("benchmarks/gpu_indexing.py", *words)
    figures = json.loads(printed)
    assert json.loads(out.read_text()) == figures
    assert figures["faiss"] is False
    assert figures["network"]["photos_per_s"] > 0
    assert [folder["photos"] for folder in figures["folders"]] == [
        "9 photos of 500 x 375 pixels",
        "2 photos of 4000 x 3000 pixels",
    ]
    for folder in figures["folders"]:
        assert folder["decode_on_cpu_per_s"] > 0
        assert [len(run["engines"]) for run in folder["index"]] == [1]


def test_without_them_index_stores_all_embeddings_and_reports_that_faiss_is_missing(
    photos: Path, tmp_path: Path
) -> None:
    pillow_heif.register_heif_opener()
    save_photo(photos / "b.heic", 2)
    save_photo(photos / "c.avif", 3)
    words = ("-m", "vggsearch", "index", str(photos), "--index", str(tmp_path / "made"), "--layer", "pool3")
    error = run_bare(*words, "--size", "32", "--device", "cpu", status=1)
    assert error.startswith(
        "Error: The embeddings of 7 photos are stored, but their FAISS index was not built: FAISS"
    )
    with ImageIndex.open(tmp_path / "made", engine=FakeEngine(256)) as index:
        assert len(index) == 7
        assert [(each.path, each.kind, each.reason) for each in index.skipped()] == [
            ("b.heic", "unreadable", "HEIC needs pillow-heif: pip install pillow-heif")
        ]
        assert all(name.startswith("torch ") for name in index.info().made_by)
        assert index.update().indexed == 1
        assert len(index.query(photos / "c.avif", count=8).matches) == 8


@pytest.mark.slow
def test_a_source_distribution_is_whole_beside_the_tree_of_the_other(tmp_path: Path) -> None:
    """`make demo` and `make wheels` leave build/cpu, whose links lead back to the folders of the checkout."""
    tree = tmp_path / "checkout"
    without = shutil.ignore_patterns(".*", "build", "demo", "site", "dist", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=without, symlinks=True)
    shutil.copy(ROOT / ".gitignore", tree)
    names = [source_files(tree, tmp_path / "alone")]
    subprocess.run([sys.executable, tree / "packaging" / "cpu.py", tree / "build" / "cpu"], check=True)
    names.append(source_files(tree, tmp_path / "beside"))
    assert names[0] == names[1]
    assert {"vggsearch/errors.py", "tests/test_package.py", "docs/serve.md", "indexes/README.md"} <= names[0]


def source_files(tree: Path, folder: Path) -> set[str]:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (built,) = folder.iterdir()
    with tarfile.open(built) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}
