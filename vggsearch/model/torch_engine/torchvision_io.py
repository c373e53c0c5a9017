"""torchvision's image codecs without the rest of torchvision."""

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType

PACKAGE = "torchvision"


def torchvision_io() -> ModuleType:
    """Return the module torchvision.io. Raises ImportError without torchvision.

    torchvision loads its models when it is imported, and with them torch's compiler, which takes as long as torch
    itself, 1.3 to 3 s, at the start of every GPU process. Here, only its subpackage is run. Whoever imports
    torchvision later gets all of it.
    """
    spec = find_spec(PACKAGE)
    if spec is None or PACKAGE in sys.modules:
        return import_module(f"{PACKAGE}.io")
    sys.modules[PACKAGE] = module_from_spec(spec)
    try:
        return import_module(f"{PACKAGE}.io")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
