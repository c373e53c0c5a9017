"""What an embedding is made of. Two embeddings may be compared only where these agree."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from vggsearch.defaults import EMBEDDING, RESIZES
from vggsearch.errors import OptionError, SpecMismatch
from vggsearch.model.layers import CONNECTED_LAYERS, canonical, check_size, has_connected, has_maps, parts
from vggsearch.model.poolings import POOLINGS
from vggsearch.model.vgg import describe, modules
from vggsearch.model.weights import WeightsFile, find_weights


@dataclass(frozen=True)
class EmbeddingSpec:
    """One kind of embedding: network, cut, pooling, input, and the very weights.

    `sizes` are the sides, in pixels, of the squares whose embeddings are averaged, the smallest first. `mirror`
    says that the mirror image of each is averaged in. `weights_sha256` is the hash of the weights file.
    """

    model: str
    layer: str
    pooling: str
    sizes: tuple[int, ...]
    resize: str
    weights_sha256: str
    mirror: bool = False

    def __post_init__(self) -> None:
        """Raise OptionError where a value is unknown or two do not go together."""
        modules(self.model)
        parts(self.layer)
        _check_name("pooling", self.pooling, POOLINGS)
        _check_name("resize", self.resize, RESIZES)
        if not has_maps(self.layer) and self.pooling != "flat":
            raise OptionError(
                f"{self.layer} is one vector, there is no map to pool with {self.pooling}. Leave --pooling out."
            )
        if self.sizes != tuple(sorted(set(self.sizes))) or not self.sizes:
            raise OptionError(f"Sizes are named once each, the smallest first, not as {self.sizes_text!r}.")
        for size in self.sizes:
            check_size(self.layer, size)
        if len(self.sizes) > 1 and has_maps(self.layer) and self.pooling == "flat":
            raise OptionError(
                f"Maps of the sizes {self.sizes_text} differ in their cells, so that flat they cannot be averaged. "
                "Choose another --pooling, or one --size."
            )

    @property
    def size(self) -> int:
        """The largest size, in pixels: the side of the square that a photo is decoded to."""
        return self.sizes[-1]

    @property
    def sizes_text(self) -> str:
        """The sizes as a person names them: "192", "160+224"."""
        return sizes_text(self.sizes)

    @property
    def dim(self) -> int:
        """How many numbers an embedding has."""
        shapes = {report.module.name: report.shape for report in describe(self.model, self.size)}
        total = 0
        for part in parts(self.layer):
            channels, *sides = shapes[part]
            is_flat = self.pooling == "flat" and part not in CONNECTED_LAYERS
            total += channels * sides[0] * sides[1] if is_flat else channels
        return total

    def __str__(self) -> str:
        """Return it as messages name it: vgg16 pool4+pool5 spoc, 192 squash (1024 numbers each)."""
        return (
            f"{self.model} {self.layer} {self.pooling}, {self.sizes_text} {self.resize}"
            f"{' mirror' if self.mirror else ''}, weights {self.weights_sha256[:8]} ({self.dim} numbers each)"
        )


@dataclass(frozen=True)
class EmbeddingOptions:
    """What a person asked for; None where they did not, so that an index's own spec or the default serves.

    `size` is a number of pixels, or several as a sum: "160+224". `weights` names a file (.safetensors, or a
    torchvision .pth) to load the network from.
    """

    model: str | None = None
    layer: str | None = None
    pooling: str | None = None
    size: int | str | None = None
    resize: str | None = None
    weights: Path | None = None
    mirror: bool | None = None

    def resolve(self) -> tuple[EmbeddingSpec, WeightsFile]:
        """Fill in the defaults and find the weights. Raises OptionError or WeightsError."""
        layer = self.layer or EMBEDDING.layer
        model = self.model or EMBEDDING.model
        size = EMBEDDING.connected_size if has_connected(layer) else EMBEDDING.map_size
        spec = EmbeddingSpec(
            model=model,
            layer=canonical(layer),
            pooling=self.pooling or (EMBEDDING.map_pooling if has_maps(layer) else "flat"),
            sizes=parse_sizes(self.size if self.size is not None else size),
            resize=self.resize or EMBEDDING.resize,
            weights_sha256="",
            mirror=self.mirror if self.mirror is not None else EMBEDDING.mirror,
        )
        weights = find_weights(model, layer, self.weights)
        return replace(spec, weights_sha256=weights.sha256), weights

    def check(self, spec: EmbeddingSpec, where: str) -> None:
        """Raise SpecMismatch where anything asked for is not what the index at `where` holds."""
        asked = {
            "model": self.model,
            "layer": canonical(self.layer) if self.layer is not None else None,
            "pooling": self.pooling,
            "size": sizes_text(parse_sizes(self.size)) if self.size is not None else None,
            "resize": self.resize,
            "mirror": _on_off(self.mirror),
        }
        held = {**asdict(spec), "size": spec.sizes_text, "mirror": _on_off(spec.mirror)}
        differing = [name for name, value in asked.items() if value not in (None, held[name])]
        if not differing:
            return
        wanted, there = (", ".join(f"{name} {each[name]}" for name in differing) for each in (asked, held))
        raise SpecMismatch(
            f"{where} holds embeddings of {there}; you asked for {wanted}. The two cannot be compared: leave the "
            f"option out to use what the index holds ({spec}), or make another index with --index."
        )


def spec_from_json(values: dict[str, object]) -> EmbeddingSpec:
    """Return the spec a manifest holds. Raises KeyError, TypeError or OptionError where it is damaged."""
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
    """Read a number of pixels, or a sum in any order: "224+160" -> (160, 224).

    Raises OptionError for what is no number.
    """
    try:
        return tuple(sorted(int(side) for side in str(size).split("+")))
    except ValueError as error:
        raise OptionError(
            f"There is no size {size!r}. Name pixels, 192, or a sum of sizes to be averaged: 160+224."
        ) from error


def sizes_text(sizes: tuple[int, ...]) -> str:
    """Return sizes as a person names them: (160, 224) -> "160+224"."""
    return "+".join(str(size) for size in sizes)


def _on_off(is_on: bool | None) -> str | None:
    return None if is_on is None else "on" if is_on else "off"


def _check_name(option: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise OptionError(f"There is no {option} {value!r}. Choose one of {', '.join(known)}.")
