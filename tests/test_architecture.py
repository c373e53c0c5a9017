"""Hold the code to the table of packages in ARCHITECTURE.md: who imports whom, and which third-party libraries."""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "vggsearch"
LOUD = {"print", "exit", "quit", "breakpoint", "input"}


@dataclass(frozen=True)
class Package:
    name: str
    may_import: frozenset[str]
    vendors: frozenset[str]


def packages_in_the_document() -> list[Package]:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.split("## Packages")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|([^|]*)\|$", table, re.MULTILINE)
    return [Package(name, frozenset(words(allowed)), frozenset(words(vendors))) for name, allowed, vendors in rows]


def words(cell: str) -> list[str]:
    return [word.strip() for word in cell.split(",") if word.strip()]


PACKAGES = {package.name: package for package in packages_in_the_document()}
VENDORS = frozenset().union(*(package.vendors for package in PACKAGES.values()))


def package_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def source_files() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if package_of(path) not in ("__init__", "__main__")]


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute here"
            found.add(node.module or "")
            if node.module == "vggsearch":
                found.update(f"vggsearch.{alias.name}" for alias in node.names)
    return found


def test_the_table_lists_exactly_the_packages_there_are() -> None:
    assert {package_of(path) for path in source_files()} == set(PACKAGES)


def test_the_table_lets_a_package_import_only_packages_above_it() -> None:
    order = list(PACKAGES)
    for package in PACKAGES.values():
        assert package.may_import <= set(order[: order.index(package.name)]), package.name


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_package_imports_only_what_the_table_allows(path: Path) -> None:
    package = PACKAGES[package_of(path)]
    modules = imported_modules(path)
    own = {
        name.split(".")[1] for name in modules if name.startswith("vggsearch.") and name != "vggsearch.__version__"
    }
    assert own - {package.name} <= package.may_import
    assert {name.split(".")[0] for name in modules} & VENDORS <= package.vendors


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_the_table_allows_nothing_that_is_not_used(package: str) -> None:
    modules = set().union(*(imported_modules(path) for path in source_files() if package_of(path) == package))
    own = {name.split(".")[1] for name in modules if name.startswith("vggsearch.")}
    assert PACKAGES[package].may_import <= own
    assert PACKAGES[package].vendors <= {name.split(".")[0] for name in modules}


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_command_line_prints_exits_or_reads_the_environment(path: Path) -> None:
    if package_of(path) == "cli":
        return
    forbidden = {"sys.exit", "sys.stdout", "sys.stderr", "os.environ", "os.getenv"}
    if path == SOURCE / "knn" / "faiss_import.py":
        forbidden -= {"os.environ"}  # OpenMP takes its wait policy from nowhere else
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in LOUD, f"{path.name}:{node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            touched = f"{node.value.id}.{node.attr}"
            assert touched not in forbidden, touched


def test_help_is_instant_because_nothing_heavy_is_imported() -> None:
    code = "import sys, vggsearch, vggsearch.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "torchvision", "faiss", "pyarrow", "PIL", "numpy", "rich"}.isdisjoint(done.stdout.split())


# Who may decode an image file, or read what it says of itself, and why. All others ask a decoder process.
DECODE = {
    "photos/decode.py": "is called by those below",
    "photos/decoder_worker.py": "is the decoder process",
    "photos/pixel_hash.py": "is called by the decoder process",
    "duplicates/calibration_pairs.py": "reads edited copies that it has made in memory",
    "model/torch_engine/jpeg_decoders.py": "is the decoder of a GPU process",
}
DECODERS = {"decode", "load_image", "jpeg_quality"}  # of photos.decode
READERS = {"imread", "imdecode", "decode_jpeg", "decode_image", "read_image", "open_heif", "read_heif", "draft"}


def decoding_in(path: Path) -> set[str]:
    """Return what a module names that decodes image files."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    imported = {
        alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "vggsearch.photos.decode"
        for alias in node.names
    }
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    opened = {
        f"{node.value.id}.open"
        for node in nodes
        if isinstance(node, ast.Attribute) and node.attr == "open" and isinstance(node.value, ast.Name)
    }
    whole = {"photos.decode"} if "vggsearch.photos.decode" in imported_names(nodes) else set()
    return imported & DECODERS | attributes & READERS | opened & {"Image.open", "PIL.open"} | whole


def imported_names(nodes: list[ast.AST]) -> set[str]:
    return {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


def test_only_decoder_processes_decode_what_a_stranger_may_have_made() -> None:
    found = {path.relative_to(SOURCE).as_posix(): decoding_in(path) for path in source_files()}
    assert {name for name, names in found.items() if names} == set(DECODE)
