"""Write the source tree of vggsearch-cpu: this one, with another name and without what only GPUs need.

The tree can be built and installed, in editable mode too, since its packages are links to those here. Running this
needs nothing but Python.
"""

import argparse
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAME = "vggsearch-cpu"
GPU_PACKAGES = ("faiss-gpu", "torch", "torchvision")
LINKED = ("docs", "examples", "indexes", "packaging", "tests", "vggsearch")
COPIED = ("*.md", "LICENSE", "NOTICE", "Makefile", "mkdocs.yml")
LEFT_OUT = (  # extras of vggsearch alone: the tests run PyTorch, too
    "dev",
    "docs",
    "nvimagecodec-cuda12",
    "nvimagecodec-cuda13",
)


def cpu_project(project: dict[str, Any]) -> dict[str, Any]:
    """Return the [project] table of vggsearch-cpu, made from that of vggsearch."""
    extras = {name: packages for name, packages in project["optional-dependencies"].items() if name not in LEFT_OUT}
    return project | {
        "name": NAME,
        "description": f"{project['description']} For machines without a GPU: needs no PyTorch.",
        "dependencies": cpu_dependencies(project["dependencies"]),
        "optional-dependencies": extras,
    }


def cpu_dependencies(dependencies: list[str]) -> list[str]:
    """Leave out what only GPUs need, and take faiss-cpu on every platform."""
    kept = [each for each in dependencies if re.split(r"[^\w-]", each)[0] not in GPU_PACKAGES]
    return [each.partition(";")[0] if each.startswith("faiss-cpu") else each for each in kept]


def as_toml(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the lines of a table whose values are texts, lists of texts, and tables: JSON writes the first two."""
    values = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if values:
        yield f"[{'.'.join(path)}]"
    for key, value in values.items():
        yield f"{key} = {json.dumps(value)}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from as_toml(value, (*path, key))


def write(folder: Path) -> None:
    """Write the tree to a folder, which is emptied first."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kept = {
        "build-system": config["build-system"],
        "project": cpu_project(config["project"]),
        "tool": {"hatch": config["tool"]["hatch"]},
    }
    text = "\n".join(["# Written by packaging/cpu.py from the pyproject.toml of vggsearch.", *as_toml(kept), ""])
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    for pattern in COPIED:
        for file in ROOT.glob(pattern):
            shutil.copy(file, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the source tree of vggsearch-cpu.")
    parser.add_argument("folder", type=Path, help="where to write it; what is there is deleted")
    write(parser.parse_args().folder)
