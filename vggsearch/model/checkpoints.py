"""Read tensors from checkpoints: .safetensors, what torch.save writes, and TorchScript. No code in a file runs."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard

from vggsearch.errors import WeightsError
from vggsearch.system.installation import require_torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from safetensors import safe_open
    from torch import Tensor

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]  # of tensors, by name

FORMATS = (
    "Weights are a .safetensors file, or a .pth of torchvision or of a training: tensors by name, with or without "
    "a wrapper such as state_dict."
)
NUMPY_FLOATS = ("F16", "F32", "F64")  # as named in the header of a .safetensors file
UNPICKLING_ERRORS = (  # raised by torch.load for files that are damaged, truncated, or not pickles
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    NotImplementedError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
INSIDE_MODULES = ("_modules", "_parameters", "_buffers")  # attributes of torch.nn.Module that hold its tensors
LONGEST_NAME = 500  # characters; deeper tensors belong to no VGG


def read_tensors(path: Path, choose: Callable[[Shapes], Mapping[str, str]]) -> "dict[str, NDArray[np.float32]]":
    """Return tensors of a file as float32. `choose` maps the wanted names to those in the file, given all shapes.

    The names of tensors in nested dicts are joined by dots: `state_dict.features.0.weight`. Raises WeightsError for
    a file that is damaged or none of FORMATS, InstallationError if it takes PyTorch, and what `choose` raises.
    """
    try:
        with path.open("rb") as file:
            has_its_header = file.read(9)[8:] == b"{"
        has_its_name = path.suffix == ".safetensors" and not zipfile.is_zipfile(path)
        return (_read_safetensors if has_its_header or has_its_name else _read_torch)(path, choose)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_safetensors(
    path: Path, choose: Callable[[Shapes], Mapping[str, str]]
) -> "dict[str, NDArray[np.float32]]":
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no dict)
            return {key: _read_tensor(path, file, name) for key, name in choose(shapes).items()}
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged or truncated ({error}). Copy it again.") from error


def _read_tensor(path: Path, file: "safe_open", key: str) -> "NDArray[np.float32]":
    """Return one tensor as float32. Raises WeightsError for a number format that NumPy does not support."""
    import numpy as np

    dtype = file.get_slice(key).get_dtype()  # type: ignore[no-untyped-call]
    if dtype not in NUMPY_FLOATS:
        raise WeightsError(f"{path} contains {dtype} tensors. Save them as float16 or float32.")
    stored: NDArray[np.floating] = file.get_tensor(key)  # type: ignore[no-untyped-call]
    return stored.astype(np.float32)


def _read_torch(path: Path, choose: Callable[[Shapes], Mapping[str, str]]) -> "dict[str, NDArray[np.float32]]":
    require_torch(f"{path} is not a .safetensors file; reading a .pth")
    try:
        loaded = _load(path)
    except UNPICKLING_ERRORS as error:
        raise WeightsError(
            f"{path} is damaged, truncated, or contains more than tensors ({type(error).__name__}). {FORMATS}"
        ) from error
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path} contains a {type(loaded).__name__}, not tensors by name. {FORMATS}")
    tensors = _tensors_in(loaded)
    chosen = choose({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    return {key: tensors[name].detach().float().numpy() for key, name in chosen.items()}


def _load(path: Path) -> object:
    """Unpickle what torch.save wrote, or the attributes of a TorchScript archive. Raises UNPICKLING_ERRORS."""
    import torch

    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    if _is_torchscript(path):
        return _load_zip(_without_code(path))
    if path.suffix != ".safetensors":  # memory-mapped, only the wanted tensors are read from the disk
        return _load_zip(path, mmap=True)
    with path.open("rb") as file:  # given a path, torch decides by its suffix
        return _load_zip(file)


def _load_zip(file: Path | BinaryIO, **options: Any) -> object:
    """Unpickle only tensors and plain data; every other class or function is replaced by Inert, so no code runs."""
    from torch import load
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    others = get_unsafe_globals_in_checkpoint(file)
    if not isinstance(file, Path):
        file.seek(0)
    with safe_globals([(InertNumpy if name.startswith("numpy.") else Inert, name) for name in others]):
        return load(file, map_location="cpu", weights_only=True, **options)


class Inert:
    """Stands for any class or function that is not loaded, such as a Namespace of options, and keeps only its data.

    An instance is an OrderedDict, since that is what torch.load fills with items and with attributes.
    """

    def __new__(cls, *_: object) -> Any:
        """Do nothing with what the class or function would be called with."""
        return OrderedDict()


class InertNumpy:
    """Stands for the classes and functions of numpy, which is given a state that is no dict, and keeps nothing."""

    def __init__(self, *_: object) -> None:
        """Do nothing with what the class or function would be called with."""

    def __setstate__(self, _: object) -> None:
        """Do nothing with the state."""


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())


def _without_code(path: Path) -> BinaryIO:
    """Return a TorchScript archive without code and constants: then it is what torch.save writes.

    torch.jit.load is not used, since it runs the code of the archive. Only what is stored without compression is
    kept, as PyTorch stores it, so that memory is bounded by the size of the file.
    """
    kept = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(kept, "w") as copy:
        for entry in archive.infolist():
            is_code = entry.filename.partition("/")[2].startswith(("code/", "constants"))
            if not is_code and entry.compress_type == zipfile.ZIP_STORED:
                copy.writestr(entry.filename, archive.read(entry))
    kept.seek(0)
    return kept


def _tensors_in(loaded: dict[Any, object]) -> "dict[str, Tensor]":
    """Return the floating-point tensors in nested dicts and modules, names joined by dots; each dict only once."""
    found: dict[str, Tensor] = {}
    waiting, seen = [("", loaded)], {id(loaded)}
    while waiting:
        prefix, mapping = waiting.pop()
        attributes = vars(mapping) if isinstance(mapping, OrderedDict) else {}
        for key, value in (*mapping.items(), *attributes.items()):
            if not isinstance(key, str) or len(prefix) + len(key) > LONGEST_NAME:
                continue
            if _is_usable(value):
                found[prefix + key] = value
            elif isinstance(value, dict) and id(value) not in seen:
                seen.add(id(value))
                waiting.append((prefix if key in INSIDE_MODULES else f"{prefix}{key}.", value))
    return found


def _is_usable(value: object) -> "TypeGuard[Tensor]":
    """Return whether this is a tensor of floating-point numbers in memory, neither sparse nor without content."""
    import torch

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return False
    return value.is_floating_point() and value.device.type == "cpu"
