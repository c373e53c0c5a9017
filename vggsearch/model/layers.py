"""Feature layers: pool1 ... pool5, fc6, fc7 (both after ReLU), and weighted sums such as 0.5*pool4+pool5."""

from vggsearch.defaults import EMBEDDING
from vggsearch.errors import OptionError, option
from vggsearch.model.vgg import Module, modules

MAP_LAYERS = ("pool1", "pool2", "pool3", "pool4", "pool5")
CONNECTED_LAYERS = ("fc6", "fc7")
DEEPEST = "pool5"  # of the convolutional layers; local features are the feature map before it
LAYERS = MAP_LAYERS + CONNECTED_LAYERS
SMALLEST_FACTOR, LARGEST_FACTOR = 0.001, 1000.0  # beyond these, the smaller term vanishes in float16


def parts(layer: str) -> tuple[str, ...]:
    """Split a sum into its layers: "0.5*pool4+pool5" -> ("pool4", "pool5").

    Raises OptionError for an unknown layer, a repeated layer or an invalid factor.
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
    if part not in LAYERS:
        known = ", ".join(LAYERS)
        raise OptionError(f"Unknown layer {part!r}. Choose one of {known}, or a sum such as 0.5*pool4+pool5.")
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
    return any(part in MAP_LAYERS for part in parts(layer))


def needed_modules(model: str, layer: str) -> tuple[Module, ...]:
    """Return the modules up to the deepest layer of the sum; later ones are neither built nor loaded."""
    steps = modules(model)
    wanted = set(parts(layer))
    last = max(position for position, step in enumerate(steps) if step.name in wanted)
    return steps[: last + 1]


def check_size(layer: str, size: int) -> None:
    """Raise OptionError if the layer does not support an input of `size` x `size` pixels."""
    least = EMBEDDING.connected_size
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
