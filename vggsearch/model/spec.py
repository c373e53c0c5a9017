"""How an embedding is computed. Two embeddings can be compared only if this is equal for both."""

import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from vggsearch.defaults import EMBEDDING, RESIZES
from vggsearch.errors import OptionError, SpecMismatch, option
from vggsearch.model.layers import (
    CELL_PIXELS,
    canonical,
    check_layer,
    check_size,
    has_cells,
    has_connected,
    has_maps,
    parts,
)
from vggsearch.model.networks import VECTOR_LAYERS, describe, network
from vggsearch.model.poolings import POOLINGS
from vggsearch.model.weights import ANOTHER_INDEX, WeightsFile, find_weights
from vggsearch.system.places import from_home

MOST_DIMENSIONS = 65_536  # of a network of the user's own: 128 kB per photo


OWN = (
    "own:"  # before the name of a network of the user's own, in place of a VGG variant; the layer is its dimensions
)


@dataclass(frozen=True)
class EmbeddingSpec:
    """How an embedding is computed: network, feature layer, pooling, input and weights.

    `sizes` are the sides, in pixels, of the square inputs whose embeddings are averaged, smallest first. With
    `mirror`, the mirror image of each is included in the average. `weights_sha256` is the hash of the weights file.

    >>> spec, weights = EmbeddingOptions(layer="pool5").resolve()
    >>> spec.dim
    512
    """

    model: str
    layer: str
    pooling: str
    sizes: tuple[int, ...]
    resize: str
    weights_sha256: str
    mirror: bool = False

    def __post_init__(self) -> None:
        """Raise OptionError if a value is unknown or two values cannot be combined."""
        if self.is_own:
            self._check_own()
            return
        check_layer(self.model, self.layer)
        _check_name("pooling", self.pooling, POOLINGS)
        _check_name("resize", self.resize, RESIZES)
        if not has_maps(self.layer) and self.pooling != "flat":
            raise OptionError(
                f"{self.layer} is a vector already, with nothing to pool by {self.pooling}. Leave out ",
                option("pooling", self.pooling),
                ".",
            )
        if self.sizes != tuple(sorted(set(self.sizes))) or not self.sizes:
            raise OptionError(f"Sizes must be unique, smallest first, not {self.sizes_text!r}.")
        for size in self.sizes:
            check_size(self.layer, size)
        if len(self.sizes) > 1 and has_maps(self.layer) and self.pooling == "flat":
            raise OptionError(
                f"Flat feature maps of the sizes {self.sizes_text} differ in length and cannot be averaged. Choose "
                "another pooling, or one size."
            )

    def _check_own(self) -> None:
        _check_name("resize", self.resize, RESIZES)
        is_number = self.layer.isascii() and self.layer.isdecimal()
        if not is_number or not 1 <= int(self.layer) <= MOST_DIMENSIONS:
            raise OptionError(f"An embedding has 1 to {MOST_DIMENSIONS:,} dimensions, not {self.layer}.")
        sizes = f"{EMBEDDING.smallest_size} to {EMBEDDING.largest_size}"
        if len(self.sizes) != 1 or not EMBEDDING.smallest_size <= self.size <= EMBEDDING.largest_size:
            raise OptionError(f"The size must be one of {sizes} pixels, not {self.sizes_text}.")

    @property
    def is_own(self) -> bool:
        """Whether the network is one of the user's own."""
        return self.model.startswith(OWN)

    @property
    def network(self) -> str:
        """The network as shown in messages: its model, or the name of one of the user's own."""
        return self.model.removeprefix(OWN)

    @property
    def has_cells(self) -> bool:
        """Whether the network has local features."""
        return not self.is_own and has_cells(self.model)

    @property
    def cells_a_side(self) -> int:
        """The number of cells of a photo in each direction, if the network has local features."""
        return self.size // CELL_PIXELS

    @property
    def size(self) -> int:
        """The largest size, in pixels: the side of the square to which a photo is resized."""
        return self.sizes[-1]

    @property
    def sizes_text(self) -> str:
        """The sizes as in the option: "192", "160+224"."""
        return sizes_text(self.sizes)

    @property
    def dim(self) -> int:
        """The number of dimensions of an embedding."""
        if self.is_own:
            return int(self.layer)
        shapes = {report.module.name: report.shape for report in describe(self.model, self.size)}
        total = 0
        for part in parts(self.layer):
            channels, *sides = shapes[part]
            is_flat = self.pooling == "flat" and part not in VECTOR_LAYERS
            total += channels * sides[0] * sides[1] if is_flat else channels
        return total

    def __str__(self) -> str:
        """Return it as shown in messages: vgg16 pool4+pool5 spoc, 192 squash (1024 dimensions)."""
        network = self.model if self.is_own else f"{self.model} {self.layer} {self.pooling}"
        return (
            f"{network}, {self.sizes_text} {self.resize}"
            f"{' mirror' if self.mirror else ''}, weights {self.weights_sha256[:8]} ({self.dim} dimensions)"
        )


@dataclass(frozen=True)
class EmbeddingOptions:
    """How to compute embeddings. None means as the index does, or by default for a new index.

    `size` is a number of pixels, or a sum of several: "160+224". `weights` is the file to load the network from,
    .safetensors or a checkpoint of PyTorch.

    >>> EmbeddingOptions(model="vgg16", layer="pool5", size=224).size
    224
    """

    model: str | None = None
    layer: str | None = None
    pooling: str | None = None
    size: int | str | None = None
    resize: str | None = None
    weights: str | os.PathLike[str] | None = None
    mirror: bool | None = None

    @property
    def weights_file(self) -> Path | None:
        """The path of `weights`; a leading `~/` is the home folder.

        >>> EmbeddingOptions(weights="vgg16.pth").weights_file.name
        'vgg16.pth'
        """
        return from_home(self.weights) if self.weights is not None else None

    def resolve(self) -> tuple[EmbeddingSpec, WeightsFile]:
        """Fill in the defaults and find the weights. Raises OptionError, WeightsError or InstallationError."""
        model = self.model or EMBEDDING.model
        row = network(model)
        layer = self.layer or row.layer
        size = EMBEDDING.trained_size if has_connected(layer) else row.size
        spec = EmbeddingSpec(
            model=model,
            layer=canonical(layer),
            pooling=self.pooling or (EMBEDDING.map_pooling if has_maps(layer) else "flat"),
            sizes=parse_sizes(self.size if self.size is not None else size),
            resize=self.resize or EMBEDDING.resize,
            weights_sha256="",
            mirror=self.mirror if self.mirror is not None else EMBEDDING.mirror,
        )
        weights = find_weights(model, layer, self.weights_file)
        return replace(spec, weights_sha256=weights.sha256), weights

    def check(self, spec: EmbeddingSpec, where: str) -> None:
        """Raise SpecMismatch if an option differs from the `spec` of the index at `where`.

        Raises OptionError for an unknown model, or a layer that it does not have.
        """
        if self.layer is not None:
            check_layer(self.model or spec.model, self.layer)
        wanted = {
            "model": self.model,
            "layer": canonical(self.layer) if self.layer is not None else None,
            "pooling": self.pooling,
            "size": sizes_text(parse_sizes(self.size)) if self.size is not None else None,
            "resize": self.resize,
            "mirror": _on_off(self.mirror),
        }
        held = {**asdict(spec), "size": spec.sizes_text, "mirror": _on_off(spec.mirror)}
        differing = [name for name, value in wanted.items() if value not in (None, held[name])]
        if not differing:
            return
        options, there = (", ".join(f"{name} {each[name]}" for name in differing) for each in (wanted, held))
        raise SpecMismatch(
            f"{where} contains embeddings with {there}, which cannot be compared with {options}. Leave out the "
            f"option to use what the index contains ({spec}), or ",
            ANOTHER_INDEX,
            ".",
        )


def spec_from_json(values: dict[str, object]) -> EmbeddingSpec:
    """Return the spec stored in a manifest. Raises KeyError, TypeError or OptionError if it is damaged."""
    names = {field.name for field in fields(EmbeddingSpec)}
    if set(values) != names:
        raise KeyError(f"embedding has {sorted(values)}, not {sorted(names)}")
    sizes, mirror = values["sizes"], values["mirror"]
    if not isinstance(sizes, list | tuple) or not all(isinstance(size, int) for size in sizes):
        raise TypeError(f"sizes are {sizes!r}, not numbers")
    if not isinstance(mirror, bool):
        raise TypeError(f"mirror is {mirror!r}, not true or false")
    texts = {name: str(values[name]) for name in names - {"sizes", "mirror"}}
    return EmbeddingSpec(sizes=tuple(sizes), mirror=mirror, **texts)


def parse_sizes(size: int | str) -> tuple[int, ...]:
    """Parse a number of pixels, or a sum in any order: "224+160" -> (160, 224). Raises OptionError."""
    try:
        return tuple(sorted(int(side) for side in str(size).split("+")))
    except ValueError as error:
        raise OptionError(
            f"Invalid size {size!r}. Give a number of pixels, such as 192, or a sum of sizes to average: 160+224."
        ) from error


def sizes_text(sizes: tuple[int, ...]) -> str:
    """Return sizes as in the option: (160, 224) -> "160+224"."""
    return "+".join(str(size) for size in sizes)


def _on_off(is_on: bool | None) -> str | None:
    return None if is_on is None else "on" if is_on else "off"


def _check_name(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise OptionError(f"Unknown {name} {value!r}. Choose one of {', '.join(known)}.")
