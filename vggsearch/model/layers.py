"""Where the network is cut: pool1 ... pool5, fc6, fc7 (both after ReLU), and sums such as pool4+pool5."""

from vggsearch.defaults import EMBEDDING
from vggsearch.errors import OptionError
from vggsearch.model.vgg import Module, modules

MAP_LAYERS = ("pool1", "pool2", "pool3", "pool4", "pool5")
CONNECTED_LAYERS = ("fc6", "fc7")
DEEPEST = "pool5"  # of the convolutions; local features are the map before it
LAYERS = MAP_LAYERS + CONNECTED_LAYERS


def parts(layer: str) -> tuple[str, ...]:
    """Split a sum into its layers: "pool4+pool5" -> ("pool4", "pool5").

    Raises OptionError for an unknown layer, or one named twice.
    """
    named = tuple(part.strip() for part in layer.split("+"))
    for part in named:
        if part not in LAYERS:
            known = ", ".join(LAYERS)
            raise OptionError(f"There is no layer {part!r}. Choose one of {known}, or a sum: pool4+pool5.")
    if len(set(named)) < len(named):
        raise OptionError(f"The sum {layer} names a layer twice.")
    return named


def has_connected(layer: str) -> bool:
    """Say whether fc6 or fc7 is in the sum, which fixes the input size and needs the classifier's weights."""
    return any(part in CONNECTED_LAYERS for part in parts(layer))


def has_maps(layer: str) -> bool:
    """Say whether a pooled map is in the sum, so that the pooling matters."""
    return any(part in MAP_LAYERS for part in parts(layer))


def needed_modules(model: str, layer: str) -> tuple[Module, ...]:
    """Return the steps up to the deepest layer of the sum; nothing beyond it is built or loaded."""
    steps = modules(model)
    wanted = set(parts(layer))
    last = max(position for position, step in enumerate(steps) if step.name in wanted)
    return steps[: last + 1]


def check_size(layer: str, size: int) -> None:
    """Raise OptionError where the network cannot take a square of `size` pixels for this layer."""
    if has_connected(layer) and size != EMBEDDING.connected_size:
        fixed = EMBEDDING.connected_size
        raise OptionError(
            f"{layer} takes pictures of {fixed} x {fixed} pixels, not {size}: its weights were trained on the "
            f"7 x 7 map that {fixed} gives. Leave --size out, or choose a pool layer."
        )
    if not EMBEDDING.smallest_size <= size <= EMBEDDING.largest_size:
        low, high = EMBEDDING.smallest_size, EMBEDDING.largest_size
        raise OptionError(f"The size must be {low} to {high} pixels, not {size}.")
