"""Hide what a bare GPU machine lacks: every Python process with this folder in PYTHONPATH loads this at its start.

Left are torch, torchvision, safetensors, numpy, Pillow, pyarrow, click, filelock, OpenCV, threadpoolctl and pytest.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

HIDDEN = {"faiss", "openvino", "pillow_heif", "rich", "send2trash"}  # that vggsearch needs
HIDDEN |= {"cogapp", "duckdb", "hypothesis", "IPython", "pandas", "skimage", "sklearn"}  # that its other tests need


class Bare(PathFinder):
    """Finds all modules but those hidden."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        hidden = name.partition(".")[0] in HIDDEN
        return None if hidden else super().find_spec(name, path, target)


sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
