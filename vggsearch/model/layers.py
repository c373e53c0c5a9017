"""Feature layers, all after a ReLU, and weighted sums of them such as 0.5*pool4+pool5."""

from collections.abc import Collection

from vggsearch.defaults import EMBEDDING
from vggsearch.errors import OptionError, option
from vggsearch.model.modules import Module
from vggsearch.model.networks import CONNECTED_LAYERS, VECTOR_LAYERS, modules, network

SMALLEST_FACTOR, LARGEST_FACTOR = 0.001, 1000.0  # beyond these, the smaller term vanishes in float16
CELL_PIXELS = 16  # the side of a cell of the local features


def parts(layer: str) -> tuple[str, ...]:
    """Split a sum into its layers: "0.5*pool4+pool5" -> ("pool4", "pool5").

    Raises OptionError for a repeated layer or an invalid factor; see `check_layer` for names.
    """
    return tuple(part for part, _ in _terms(layer))


def factors(layer: str) -> tuple[float, ...]:
    """Return the factor of each layer of a sum: "0.5*pool4+pool5" -> (0.5, 1.0). Raises as `parts` does."""
    return tuple(factor for _, factor in _terms(layer))


def canonical(layer: str) -> str:
    """Return the form in which a sum is stored: " 2.0 * pool4 + 1*pool5" -> "2*pool4+pool5".

    A single layer has no factor, since the embedding is normalised. Raises as `parts` does.
    """
    terms = _terms(layer)
    alone = len(terms) == 1
    return "+".join(part if alone or factor == 1 else f"{factor:g}*{part}" for part, factor in terms)


def _terms(layer: str) -> list[tuple[str, float]]:
    terms = [_term(text.strip()) for text in layer.split("+")]
    if len({part for part, _ in terms}) < len(terms):
        raise OptionError(f"{layer} contains a layer twice.")
    return terms


def _term(text: str) -> tuple[str, float]:
    """Split "0.5*pool4" into layer and factor, which is rounded to the six digits that are stored."""
    before, times, after = text.partition("*")
    part = (after if times else before).strip()
    try:
        factor = float(f"{float(before):g}") if times else 1.0
    except ValueError:
        factor = 0.0
    if not SMALLEST_FACTOR <= factor <= LARGEST_FACTOR:
        low, high = f"{SMALLEST_FACTOR:g}", f"{LARGEST_FACTOR:g}"
        raise OptionError(f"A factor must be a number from {low} to {high}, not {before.strip()!r} as in {text}.")
    return part, factor


def has_connected(layer: str) -> bool:
    """Return whether the sum contains fc6 or fc7, which limit the input size and need the classifier's weights."""
    return any(part in CONNECTED_LAYERS for part in parts(layer))


def has_maps(layer: str) -> bool:
    """Return whether the sum contains a feature map, so that the pooling matters."""
    return any(part not in VECTOR_LAYERS for part in parts(layer))


def check_layer(model: str, layer: str) -> None:
    """Raise OptionError for an unknown model, a layer that it does not have, or an invalid sum."""
    known = network(model).layers
    for part in parts(layer):
        if part not in known:
            raise OptionError(
                f"{model} has no layer {part!r}. Choose one of {', '.join(known)}, or a sum such as "
                f"0.5*{known[-3]}+{known[-2]}."
            )


def needed_modules(model: str, layer: str) -> tuple[Module, ...]:
    """Return the modules up to the deepest layer of the sum; later ones are neither built nor loaded.

    Raises OptionError as `check_layer` does.
    """
    check_layer(model, layer)
    return modules_to(model, parts(layer))


def modules_to(model: str, names: Collection[str]) -> tuple[Module, ...]:
    """Return the modules up to the deepest of those with these names."""
    steps = modules(model)
    last = max(position for position, step in enumerate(steps) if step.name in names)
    return steps[: last + 1]


def check_size(layer: str, size: int) -> None:
    """Raise OptionError if the layer does not support an input of `size` x `size` pixels."""
    least = EMBEDDING.trained_size
    if has_connected(layer) and size < least:
        raise OptionError(
            f"{layer} needs an input of at least {least} x {least} pixels, not {size}: its weights were trained on "
            "the 7 x 7 feature map of that size. Leave out ",
            option("size", size),
            ", or choose a pool layer.",
        )
    if not EMBEDDING.smallest_size <= size <= EMBEDDING.largest_size:
        low, high = EMBEDDING.smallest_size, EMBEDDING.largest_size
        raise OptionError(f"The size must be {low} to {high} pixels, not {size}.")


def has_cells(model: str) -> bool:
    """Return whether local features are made of a map of `model`."""
    return bool(network(model).cells)


def modules_before_cells(model: str) -> tuple[Module, ...]:
    """Return the modules up to the one whose map has the cells, the last convolution of a VGG; see `has_cells`."""
    return modules_to(model, [network(model).cells])
