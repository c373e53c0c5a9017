"""vggsearch: reverse image search and near-duplicates for your own photos, on your own machine.

>>> from vggsearch import ImageIndex
>>> with ImageIndex.for_photos("photos") as index:
...     report = index.update("photos")
...     result = index.query("photos/a.jpg", count=3)
>>> result.matches[0].path
'a.jpg'

The public names are listed in `__init__.pyi` and loaded when first used, so `import vggsearch` takes no time.
"""

from importlib import import_module
from pathlib import Path

__version__ = "0.1.0"


def _modules() -> dict[str, str]:
    """Return the module of each public name: the stub has a line `from MODULE import NAME as NAME` for each."""
    lines = Path(__file__).with_suffix(".pyi").read_text("utf-8").splitlines()
    words = (line.split() for line in lines if line.startswith("from "))
    return {name: module for _, module, _, name, *_ in words}


_MODULES = _modules()

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> object:
    """Load a public name."""
    if name not in _MODULES:
        raise AttributeError(f"module 'vggsearch' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    """List the public names too, for completion."""
    return sorted({*globals(), *__all__})
