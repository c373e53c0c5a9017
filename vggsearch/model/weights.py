"""Find and load the weights of a network: a file of the user, the packaged one, torchvision's cache or download."""

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vggsearch.errors import SpecMismatch, Spelled, WeightsError, option
from vggsearch.model.checkpoints import FORMATS, Shapes, read_tensors
from vggsearch.model.layers import has_connected, needed_modules
from vggsearch.model.modules import Module
from vggsearch.model.networks import network
from vggsearch.system.installation import require_torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[np.float32]]

PACKAGED = Path(__file__).parent / "weights" / "vgg16_conv_imagenet1k_v1.fp16.safetensors"
PACKAGED_FILES = {  # without fc6 and fc7, by model
    "vgg16": PACKAGED,
    "vgg16_half": PACKAGED.with_name("vgg16_half_conv_imagenet1k_v1.fp16.safetensors"),
}

ANOTHER_INDEX = Spelled("create another index", "create another index with --index FOLDER")
COUNTER = ".num_batches_tracked"  # of a batch normalisation: counts steps of training
NAME_SHOWN = 60  # characters of a name in a message

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
    """Weights of one module, float32: `weight` (out, in, kernel, kernel) or (out, in), `bias` (out,)."""

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
    if model in PACKAGED_FILES and not has_connected(layer):
        return _hashed(PACKAGED_FILES[model])
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

    See `load_kernels`.
    """
    return load_kernels(file, model, needed_modules(model, layer))


def load_kernels(file: WeightsFile, model: str, modules: Sequence[Module]) -> dict[str, Kernel]:
    """Return the kernels of `modules`, which belong to `model`, by module name.

    Tensors may have any prefix, such as `module.` or `state_dict.model.`; see `_names_in`. Batch normalisation is
    folded into the preceding convolution, since in evaluation it is a fixed scale and shift. Raises WeightsError if
    a tensor is missing, has the wrong shape, or is not finite, and if several networks in the file fit.
    """
    tensors = read_tensors(file.path, partial(_names_in, file.path, model, modules))
    epsilon = network(model).norm_epsilon
    needed = (inner for module in modules for inner in module.weighted)
    return {module.name: _kernel(file.path, module, tensors, epsilon) for module in needed}


def _names_in(path: Path, model: str, needed: Sequence[Module], found: Shapes) -> dict[str, str]:
    """Return the name in the file of each needed tensor, by its name in torchvision's files.

    That is the name itself, or the same prefix for all of a network, with or without `features.`. A network with
    torchvision's names comes before others. Raises WeightsError.
    """
    wanted = {key: shape for module in needed for key, shape in module.shapes.items()}
    features = network(model).features
    networks = {
        stem: {key: _renamed(key, features, stem) for key in wanted}
        for stem in _stems(found, features, network(model).first)
    }
    fitting = [
        stem for stem, names in networks.items() if all(found.get(names[key]) == wanted[key] for key in wanted)
    ]
    if len(fitting) > 1 and fitting[0] != features:
        raise WeightsError(
            f"{path} contains several networks that fit {model}: {_listed(fitting)}. Save the tensors of the one "
            "you want to a file of their own."
        )
    closest = fitting[0] if fitting else max(networks, key=lambda stem: len(found.keys() & networks[stem].values()))
    _check_fit(path, model, needed, networks[closest], found)
    blocks = tuple(f"{closest}{module.name}." for module in needed if module.branches)
    _check_nothing_else(path, model, blocks, networks[closest].values(), found)
    return networks[closest]


def _stems(found: Shapes, features: str, first: str) -> list[str]:
    """Return what may stand before `first`, the name of the first convolution: `features` and then any other."""
    stems = (name.removesuffix(first) for name in found if name.endswith(first))
    return list(dict.fromkeys([features, *(stem for stem in stems if stem == "" or stem.endswith("."))]))


def _renamed(key: str, features: str, stem: str) -> str:
    """Return the name of a tensor in a network whose first convolution has `stem` in place of `features`.

    The classifier of a VGG is beside the features: of `model.features.module.` it is `model.classifier.`.
    """
    if key.startswith(features):
        return stem + key.removeprefix(features)
    before, found, _ = stem.rpartition(features)
    return (before if found else stem) + key


def _check_fit(path: Path, model: str, needed: Sequence[Module], names: Mapping[str, str], found: Shapes) -> None:
    """Raise WeightsError for a tensor that is missing, listing what was found, or that has another shape."""
    for module in needed:
        for key, shape in module.shapes.items():
            name = names[key]
            if name not in found:
                held = f"Among its {len(found):,} tensors are {_listed(found)}." if found else "It has no tensors."
                raise WeightsError(f"{path} has no tensor {name}, which {model} needs for {module.name}. {held}")
            if found[name] != shape:
                raise WeightsError(
                    f"{path}: {name} has shape {found[name]}, {model} needs {shape}. Is it for another network?"
                )


def _check_nothing_else(
    path: Path, model: str, blocks: tuple[str, ...], names: Collection[str], found: Shapes
) -> None:
    """Raise WeightsError for a tensor inside one of the `blocks`, given as prefixes, that `model` does not have.

    ResNet-34 has all blocks of ResNet-18 and more, with the same names and shapes, as ResNet-101 has of ResNet-50.
    """
    inside = (name for name in found if name.startswith(blocks) and not name.endswith(COUNTER))
    for name in inside:
        if name not in names:
            raise WeightsError(f"{path} is for another network: {model} has no tensor {_listed([name])}.")


def _listed(names: Iterable[str]) -> str:
    """Return the first names, quoted and shortened, since they come from the file."""
    shown = [repr(name if len(name) <= NAME_SHOWN else name[:NAME_SHOWN] + "...") for name in islice(names, 5)]
    return ", ".join(shown)


def _kernel(path: Path, module: Module, tensors: "Tensors", epsilon: float) -> Kernel:
    """Return the weights of a module. The batch normalisation, trained with this `epsilon`, is folded in."""
    import numpy as np

    for key in module.shapes:
        if not np.isfinite(tensors[key]).all():
            raise WeightsError(f"{path}: {key} contains NaN or infinity, so {module.name} cannot be used.")
    weight = tensors[f"{module.key}.weight"]
    bias = tensors[f"{module.key}.bias"] if module.has_bias else np.zeros(module.outputs, np.float32)
    if not module.norm_key:
        return Kernel(weight, bias)
    gain, shift, mean, variance = (
        tensors[f"{module.norm_key}.{name}"].astype(np.float64)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + epsilon)
    folded = weight * scale[:, None, None, None]
    return Kernel(folded.astype(np.float32), ((bias - mean) * scale + shift).astype(np.float32))


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
