"""How many photos each choice of a filter would leave, with all other filters as they are."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vggsearch.query.filters import SHAPES, parse_filter
from vggsearch.serve.jobs import Values
from vggsearch.serve.library import Library, Photos

Mask = NDArray[np.bool_]
SIDES = (500, 1000, 2000, 4000, 8000)  # pixels of the longer side that a filter can ask for


def counts(library: Library, rules: list[str], named: Mapping[str, str]) -> Values:
    """Return how many photos pass, and how many would with another choice of each filter in `named`, for JSON.

    Choices that no photo passes are left out. Raises OptionError for a filter that is none.
    """
    filters = [parse_filter(text) for text in (*rules, *named.values())]
    photos, masks = library.masks(filters)
    names = [*(str(place) for place in range(len(rules))), *named]

    def without(kind: str) -> Mask:
        found = [mask for name, mask in zip(names, masks, strict=True) if name != kind]
        passing: Mask = np.logical_and.reduce([np.ones(len(photos), bool), *found])
        return passing

    return {
        "total": int(without("").sum()),
        "folders": _folders(photos, without("folder")),
        "years": _years(photos, without("taken")),
        "sizes": _sizes(photos, without("size")),
        "orientations": _orientations(photos, without("orientation")),
    }


def _folders(photos: Photos, mask: Mask) -> list[Values]:
    """Return the folders with photos, or with folders that have some, and how many are there and below."""
    found = Counter[str]()
    for place, count in enumerate(np.bincount(photos.folders[mask]).tolist()):
        name = photos.folder_names[place]
        while name and count:
            found[name] += count
            name = name.rpartition("/")[0]
    return [{"path": name, "count": found[name]} for name in sorted(found)]


def _years(photos: Photos, mask: Mask) -> list[Values]:
    """Return the years in which photos were taken, the newest first."""
    taken = photos.columns["taken"][mask]
    years, found = np.unique(taken[~np.isnat(taken)].astype("datetime64[Y]").astype(int) + 1970, return_counts=True)
    pairs = zip(years.tolist(), found.tolist(), strict=True)
    return [{"year": year, "count": count} for year, count in reversed(list(pairs))]


def _sizes(photos: Photos, mask: Mask) -> list[Values]:
    longer = np.maximum(photos.columns["width"], photos.columns["height"])[mask]
    found = ((side, int((longer >= side).sum())) for side in SIDES)
    return [{"min_side": side, "count": count} for side, count in found if count]


def _orientations(photos: Photos, mask: Mask) -> list[Values]:
    width, height = (photos.columns[name][mask] for name in ("width", "height"))
    found = ((name, int(has_shape(width, height).sum())) for name, has_shape in SHAPES.items())
    return [{"orientation": name, "count": count} for name, count in found if count]
