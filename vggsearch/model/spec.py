"""What an embedding is made of. Two embeddings may be compared only where these agree."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from vggsearch.defaults import EMBEDDING, POOLINGS, RESIZES
from vggsearch.errors import OptionError, SpecMismatch
from vggsearch.model.layers import CONNECTED_LAYERS, canonical, check_size, has_connected, has_maps, parts
from vggsearch.model.vgg import describe, modules
from vggsearch.model.weights import WeightsFile, find_weights


@dataclass(frozen=True)
class EmbeddingSpec:
    """One kind of embedding: network, cut, pooling, input, and the very weights.

    `size` is the side of the square input in pixels; `weights_sha256` is the hash of the weights file.
    """

    model: str
    layer: str
    pooling: str
    size: int
    resize: str
    weights_sha256: str

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
        check_size(self.layer, self.size)

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
            f"{self.model} {self.layer} {self.pooling}, {self.size} {self.resize}, "
            f"weights {self.weights_sha256[:8]} ({self.dim} numbers each)"
        )


@dataclass(frozen=True)
class EmbeddingOptions:
    """What a person asked for; None where they did not, so that an index's own spec or the default serves.

    `weights` names a file (.safetensors, or a torchvision .pth) to load the network from.
    """

    model: str | None = None
    layer: str | None = None
    pooling: str | None = None
    size: int | None = None
    resize: str | None = None
    weights: Path | None = None

    def resolve(self) -> tuple[EmbeddingSpec, WeightsFile]:
        """Fill in the defaults and find the weights. Raises OptionError or WeightsError."""
        layer = self.layer or EMBEDDING.layer
        model = self.model or EMBEDDING.model
        size = EMBEDDING.connected_size if has_connected(layer) else EMBEDDING.map_size
        spec = EmbeddingSpec(
            model=model,
            layer=canonical(layer),
            pooling=self.pooling or (EMBEDDING.map_pooling if has_maps(layer) else "flat"),
            size=self.size if self.size is not None else size,
            resize=self.resize or EMBEDDING.resize,
            weights_sha256="",
        )
        weights = find_weights(model, layer, self.weights)
        return replace(spec, weights_sha256=weights.sha256), weights

    def check(self, spec: EmbeddingSpec, where: str) -> None:
        """Raise SpecMismatch where anything asked for is not what the index at `where` holds."""
        layer = canonical(self.layer) if self.layer is not None else None
        wanted = asdict(replace(self, layer=layer, weights=None))
        differing = {
            name: value for name, value in wanted.items() if value not in (None, getattr(spec, name, None))
        }
        if not differing:
            return
        asked = ", ".join(f"{name} {value}" for name, value in differing.items())
        held = ", ".join(f"{name} {getattr(spec, name)}" for name in differing)
        raise SpecMismatch(
            f"{where} holds embeddings of {held}; you asked for {asked}. The two cannot be compared: leave the "
            f"option out to use what the index holds ({spec}), or make another index with --index."
        )


def spec_from_json(values: dict[str, object]) -> EmbeddingSpec:
    """Return the spec a manifest holds. Raises KeyError, TypeError or OptionError where it is damaged."""
    names = {field.name for field in fields(EmbeddingSpec)}
    if set(values) != names:
        raise KeyError(f"embedding has {sorted(values)}, not {sorted(names)}")
    size = values["size"]
    if not isinstance(size, int):
        raise TypeError(f"size is {size!r}, not a number")
    texts = {name: str(values[name]) for name in names - {"size"}}
    return EmbeddingSpec(size=size, **texts)


def _check_name(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OptionError(f"There is no {option} {value!r}. Choose one of {', '.join(known)}.")
