"""Find and load the weights of a VGG: a file of the user, the packaged file, torchvision's cache or download."""

import hashlib
import logging
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggsearch.errors import SpecMismatch, Spelled, WeightsError, option
from vggsearch.installation import require_torch
from vggsearch.model.layers import has_connected, needed_modules
from vggsearch.model.vgg import Module

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from safetensors import safe_open

    Tensors = Mapping[str, NDArray[np.float32]]

PACKAGED = Path(__file__).parent / "weights" / "vgg16_conv_imagenet1k_v1.fp16.safetensors"
PACKAGED_MODEL = "vgg16"
NORM_EPSILON = 1e-5  # torch.nn.BatchNorm2d's, with which the published weights were trained

ANOTHER_INDEX = Spelled("create another index", "create another index with --index FOLDER")
FORMATS = "Weights are a .safetensors file, or a .pth of torchvision."
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
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightsFile:
    """A weights file and the sha256 of its bytes.

    >>> spec, weights = EmbeddingOptions().resolve()
    >>> weights.sha256 == spec.weights_sha256
    True
    """

    path: Path
    sha256: str


@dataclass(frozen=True)
class Kernel:
    """Weights of one module, float32: `weight` (out, in, 3, 3) or (out, in), `bias` (out,)."""

    weight: "NDArray[np.float32]"
    bias: "NDArray[np.float32]"


def find_weights(model: str, layer: str, named: Path | None = None) -> WeightsFile:
    """Return the weights for `layer` of `model`: the file `named` by the user if any.

    Raises WeightsError if they cannot be had, with the name of the file, its size and where to put it; and
    InstallationError if that takes PyTorch, which is not installed.
    """
    if named is not None:
        if not named.is_file():
            raise WeightsError(f"{named} is not a file. {FORMATS}")
        return _hashed(named)
    if model == PACKAGED_MODEL and not has_connected(layer):
        return _hashed(PACKAGED)
    return _hashed(_torchvision_file(model))


def find_again(model: str, layer: str, sha256: str, named: Path | None, remembered: Path | None) -> WeightsFile:
    """Return the weights with which an index was made, identified by their `sha256`.

    Raises SpecMismatch if the `named` file, or those that can be found, differ.
    """
    if named is None and remembered is not None and remembered.is_file():
        found = _hashed(remembered)
        if found.sha256 == sha256:
            return found
    found = find_weights(model, layer, named)
    if found.sha256 != sha256:
        where = f" ({remembered})" if remembered is not None else ""
        raise SpecMismatch(
            f"The index was made with weights {sha256[:12]}{where}; {found.path} is {found.sha256[:12]}. "
            "Give the file that the index was made with by ",
            option("weights", "FILE"),
            ", or ",
            ANOTHER_INDEX,
            ".",
        )
    return found


def load_weights(file: WeightsFile, model: str, layer: str) -> dict[str, Kernel]:
    """Return the kernels that `layer` of `model` needs, by module name (conv1_1 ... fc7), and no others.

    Batch normalisation is folded into the preceding convolution, since in evaluation it is a fixed scale and shift.
    Raises WeightsError if a tensor is missing, has the wrong shape, or is not finite.
    """
    needed = [module for module in needed_modules(model, layer) if module.kind != "pool"]
    tensors = _read_tensors(file.path, {key for module in needed for key in module.shapes})
    return {module.name: _kernel(file.path, model, module, tensors) for module in needed}


def _kernel(path: Path, model: str, module: Module, tensors: "Tensors") -> Kernel:
    import numpy as np

    for key, shape in module.shapes.items():
        if key not in tensors:
            raise WeightsError(f"{path} has no tensor {key}, which {model} needs for {module.name}.")
        if tensors[key].shape != shape:
            held = tensors[key].shape
            raise WeightsError(f"{path}: {key} has shape {held}, {model} needs {shape}. Is it for another network?")
        if not np.isfinite(tensors[key]).all():
            raise WeightsError(f"{path}: {key} contains NaN or infinity, so {module.name} cannot be used.")
    weight, bias = tensors[f"{module.key}.weight"], tensors[f"{module.key}.bias"]
    if not module.norm_key:
        return Kernel(weight, bias)
    gain, shift, mean, variance = (
        tensors[f"{module.norm_key}.{name}"].astype(np.float64)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + NORM_EPSILON)
    folded = weight * scale[:, None, None, None]
    return Kernel(folded.astype(np.float32), ((bias - mean) * scale + shift).astype(np.float32))


def _read_tensors(path: Path, wanted: set[str]) -> "Tensors":
    """Return the wanted tensors of a file as float32, without those that are missing."""
    try:
        with path.open("rb") as file:
            has_its_header = file.read(9)[8:] == b"{"
        has_its_name = path.suffix == ".safetensors" and not zipfile.is_zipfile(path)
        return (_read_safetensors if has_its_header or has_its_name else _read_torch)(path, wanted)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_safetensors(path: Path, wanted: set[str]) -> "Tensors":
    """Read the wanted tensors of a .safetensors file. Raises WeightsError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {key: _read_tensor(path, file, key) for key in wanted.intersection(file.keys())}
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


def _read_torch(path: Path, wanted: set[str]) -> "Tensors":
    """Read a .pth as tensors only: weights_only rejects a pickle that would run code.

    Raises WeightsError if it is damaged, and InstallationError without PyTorch.
    """
    require_torch(f"{path} is not a .safetensors file; reading a .pth")
    import torch

    try:
        # Given a path, torch decides by its suffix. Memory-mapped, only the wanted tensors are read from the disk.
        if zipfile.is_zipfile(path) and path.suffix != ".safetensors":
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        else:
            with path.open("rb") as file:
                loaded = torch.load(file, map_location="cpu", weights_only=True)
    except UNPICKLING_ERRORS as error:
        raise WeightsError(
            f"{path} is damaged, truncated, or contains more than tensors ({type(error).__name__}). {FORMATS}"
        ) from error
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path} contains a {type(loaded).__name__}, not tensors by name.")
    tensors = {key: loaded[key] for key in wanted & set(loaded) if isinstance(loaded[key], torch.Tensor)}
    return {key: tensor.detach().float().numpy() for key, tensor in tensors.items()}


def _hashed(path: Path) -> WeightsFile:
    with path.open("rb") as file:
        return WeightsFile(path, hashlib.file_digest(file, "sha256").hexdigest())


def _torchvision_file(model: str) -> Path:
    """Return torchvision's ImageNet weights of `model` from its cache, after a download if they are missing."""
    require_torch(f"Loading torchvision's published weights of {model}, a .pth,")
    import torch
    from torchvision.models import get_model_weights

    published = get_model_weights(model)["IMAGENET1K_V1"]
    name = published.url.rsplit("/", 1)[-1]
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    size = f"{published.meta['_file_size']:,.0f} MB"
    log.info("downloading %s (%s) to %s", name, size, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = name.removesuffix(".pth").rsplit("-", 1)[-1]
        torch.hub.download_url_to_file(published.url, str(path), hash_prefix=digest, progress=False)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"{model} needs {name} ({size}), which could not be downloaded ({reason}). Put the file at {path}, or "
            "give its path by ",
            option("weights", "FILE"),
            ".",
        ) from error
    return path
