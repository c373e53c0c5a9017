"""CUDA GPUs as the driver lists them, without importing PyTorch, which takes seconds."""

import ctypes
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

DRIVERS = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
LONGEST_NAME = 256  # bytes


@cache
def cuda_gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that the installed PyTorch can use, in the order of their numbers."""
    needed = _cuda_version_of_torch()
    if needed is None or sys.platform not in DRIVERS:
        return ()
    try:
        driver = ctypes.CDLL(DRIVERS[sys.platform])
    except OSError:
        return ()
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    results = driver.cuInit(0), driver.cuDriverGetVersion(ctypes.byref(version))
    if any(results) or version.value < 1000 * needed or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_name(driver, number) for number in range(count.value))


def _cuda_version_of_torch() -> int | None:
    """Return the major version of CUDA that PyTorch was built for; None if it is not installed, or built without.

    A driver runs everything that was built for its own major version or an earlier one.
    """
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    text = Path(spec.submodule_search_locations[0], "version.py").read_text(encoding="utf-8")
    built = re.search(r"^cuda\b.*?= *['\"](\d+)", text, re.MULTILINE)
    return int(built[1]) if built else None


def _name(driver: ctypes.CDLL, number: int) -> str:
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(LONGEST_NAME)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, LONGEST_NAME, device)
    return name.value.decode("utf-8", "replace")


def open_context(number: int) -> None:
    """Begin to use a GPU, which takes a few tenths of a second; PyTorch continues with it.

    Call it in a thread while PyTorch is being imported. Errors are left for PyTorch to find again.
    """
    driver = ctypes.CDLL(DRIVERS[sys.platform])
    device, context = ctypes.c_int(0), ctypes.c_void_p()
    if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), number) == 0:
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
