"""ARCHITECTURE.md's table of rooms is the rule; this holds the code to it."""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vggsearch"
LOUD = {"print", "exit", "quit", "breakpoint", "input"}


@dataclass(frozen=True)
class Room:
    name: str
    may_import: frozenset[str]
    vendors: frozenset[str]


def rooms_in_the_document() -> list[Room]:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.split("## Rooms")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|([^|]*)\|$", table, re.MULTILINE)
    return [Room(name, frozenset(words(allowed)), frozenset(words(vendors))) for name, allowed, vendors in rows]


def words(cell: str) -> list[str]:
    return [word.strip() for word in cell.split(",") if word.strip()]


ROOMS = {room.name: room for room in rooms_in_the_document()}
VENDORS = frozenset().union(*(room.vendors for room in ROOMS.values()))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def source_files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if room_of(path) not in ("__init__", "__main__")]


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


def test_every_room_in_the_folder_is_in_the_table_and_the_other_way_round() -> None:
    assert {room_of(path) for path in source_files()} == set(ROOMS)


def test_the_table_lets_a_room_import_only_rooms_before_it() -> None:
    order = list(ROOMS)
    for room in ROOMS.values():
        assert room.may_import <= set(order[: order.index(room.name)]), room.name


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    room = ROOMS[room_of(path)]
    modules = imported_modules(path)
    own = {
        name.split(".")[1] for name in modules if name.startswith("vggsearch.") and name != "vggsearch.__version__"
    }
    assert own - {room.name} <= room.may_import
    assert {name.split(".")[0] for name in modules} & VENDORS <= room.vendors


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_the_table_allows_nothing_that_is_not_used(room: str) -> None:
    modules = set().union(*(imported_modules(path) for path in source_files() if room_of(path) == room))
    own = {name.split(".")[1] for name in modules if name.startswith("vggsearch.")}
    assert ROOMS[room].may_import <= own
    assert ROOMS[room].vendors <= {name.split(".")[0] for name in modules}


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_room_below_the_command_line_prints_exits_or_reads_the_environment(path: Path) -> None:
    if room_of(path) == "cli":
        return
    forbidden = {"sys.exit", "sys.stdout", "sys.stderr", "os.environ", "os.getenv"}
    if path == PACKAGE / "knn" / "faiss_import.py":
        forbidden -= {"os.environ"}  # OpenMP can be told nowhere else how to wait
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
