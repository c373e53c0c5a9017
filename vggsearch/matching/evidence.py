"""How likely it is that a photo is a copy of a query, from what was compared of the two.

A photo that was found is one of four things: a copy; another shot of the same scene; another frame of the same
view, such as one from a tripod or another page of a form; or unrelated. By Bayes' theorem, the likelihoods of the
evidence under each, and how many photos of each kind are expected, give the probability of a copy. There are as
many unrelated photos as were looked at, so the same evidence is worth less in a larger folder, and a confidence
means the same in each.

The likelihoods of copies and of other shots were counted on edited copies and on the views of UKBench, and those of
hashes of unrelated photos on 1.5 million pairs: `python benchmarks/evidence.py` counts them again. What did not
occur there (unrelated photos that match, hashes of theirs that differ in 80 bits or less) is assumed to be as rare
as the trend suggests, or less rare. Other frames were not counted: one in fifty other shots is taken for one, and
most of them are assumed to be told apart by their pixels.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from vggsearch.defaults import ALIGN
from vggsearch.matching.alignment import Alignment
from vggsearch.matching.keypoints import Keypoints
from vggsearch.matching.pixels import overlay

COPY = 0.99  # confidence from which a match is called a copy
SAME = 0.999  # confidence of a photo with the same embedding and hash, such as the query itself


class Found(Enum):
    """What the comparison of keypoints, and of the pixels where they match, has found."""

    NOTHING = "no alignment"
    OTHER = "aligned, with other content"
    DISPLACED = "aligned, with displaced parts"
    NEARLY = "aligned, with parts that are slightly displaced"
    FEW = "in place, with few keypoints"
    SOME = "in place, with some keypoints"
    MANY = "in place, with many keypoints"


@dataclass(frozen=True)
class Comparison:
    """The result of `compare_keypoints`: where the query lies in the photo, None if nowhere, and what was found."""

    alignment: Alignment | None
    found: Found


# The smallest number of differing bits in each bin.
BITS = (0, 17, 33, 49, 65, 81, 97)
# How many photos of each kind are expected, apart from the unrelated ones; and the probability of each bin, and of
# each result of the comparison, in the order of Found.
KINDS = {
    "copy": (
        1.0,
        (0.58, 0.035, 0.025, 0.027, 0.038, 0.06, 0.235),
        (0.012, 0.006, 0.008, 0.015, 0.013, 0.07, 0.87),
    ),
    "another shot": (
        1.0,
        (0.001, 0.002, 0.003, 0.003, 0.005, 0.03, 0.956),
        (0.36, 0.465, 0.16, 0.0125, 0.001, 0.0008, 0.0007),  # of 191 pairs, none lay in place
    ),
    "another frame": (
        0.02,
        (0.6, 0.2, 0.08, 0.05, 0.03, 0.02, 0.02),
        (0.05, 0.75, 0.03, 0.03, 0.01, 0.03, 0.1),
    ),
}
UNRELATED_BITS = (1e-8, 3e-8, 1e-7, 5e-7, 3e-6, 6.6e-4, 1.0)
UNRELATED_FOUND = (1.0, 2e-4, 2e-4, 5e-5, 2e-5, 3e-6, 1e-7)


def compare_keypoints(query: Keypoints, photo: Keypoints) -> Comparison:
    """Compare a query with a photo by keypoints and, where these match, by pixels."""
    laid = overlay(query, photo)
    if laid is None:
        return Comparison(None, Found.NOTHING)
    alignment, differs = laid.alignment, laid.difference
    if differs is None:
        return Comparison(alignment, Found.FEW)
    if laid.shows_other_content:
        return Comparison(alignment, Found.OTHER)
    if differs.shift > 1.2:
        return Comparison(alignment, Found.DISPLACED)
    if differs.shift > 0.6:
        return Comparison(alignment, Found.NEARLY)
    agreeing = alignment.inliers * differs.agreement
    return Comparison(alignment, Found.FEW if agreeing < 8 else Found.SOME if agreeing < 16 else Found.MANY)


def confidence(bits: int | None, found: Found | None, looked_at: int) -> float:
    """Return the probability, 0..1, that a photo is a copy of a query.

    `bits` is the number of bits in which their perceptual hashes differ, None if a hash is missing; `found` is the
    result of the comparison, None if they were not compared; `looked_at` is the number of photos searched.
    """
    (copy, *others), unrelated = _weights(bits, found, looked_at)
    return copy / (copy + sum(others) + unrelated)


def kinship(bits: int | None, found: Found | None, looked_at: int) -> float:
    """Return the probability, 0..1, that a photo is a copy of a query or another shot of the same scene."""
    kin, unrelated = _weights(bits, found, looked_at)
    return sum(kin) / (sum(kin) + unrelated)


def _weights(bits: int | None, found: Found | None, looked_at: int) -> tuple[list[float], float]:
    """Return how many photos of each kind, and how many unrelated ones, are expected with this evidence."""
    at = None if bits is None else int(np.searchsorted(BITS, bits, "right")) - 1
    place = None if found is None else list(Found).index(found)
    weights = [
        expected * (1 if at is None else of_bits[at]) * (1 if place is None else of_found[place])
        for expected, of_bits, of_found in KINDS.values()
    ]
    unrelated = looked_at * (1 if at is None else UNRELATED_BITS[at])
    if place is not None:  # only the most similar photos are compared
        unrelated = min(unrelated, ALIGN.candidates) * UNRELATED_FOUND[place]
    return weights, unrelated
