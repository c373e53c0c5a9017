"""The OpenVINO backend: the fastest on a CPU, and without torch.

`import openvino` also imports its model converter, which reports that to Google Analytics and creates a folder in
the home directory, unless the user has opted out. OpenVINO does without the converter if it cannot be imported. So
the first import is here, where it cannot; programs that need the converter can still import `openvino.tools.ovc`.
"""

import sys
from importlib import import_module

CONVERTER = "openvino.tools.ovc"


def _import_without_converter() -> None:
    # Python refuses to import what is None here.
    sys.modules[CONVERTER] = None  # type: ignore[assignment]
    try:
        import_module("openvino")
    finally:
        del sys.modules[CONVERTER]


if "openvino" not in sys.modules:
    _import_without_converter()
