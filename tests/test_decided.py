"""The user's decisions by rows, against looking up each pair by its SHA-256 and paths."""

from collections.abc import Mapping

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vggsearch.duplicates.decided import VALUES, DecidedPairs
from vggsearch.store.decisions import Decision, Decisions, Judgement, Pair, PhotoId, pair_key

PHOTOS = st.tuples(st.sampled_from([letter * 64 for letter in "abc"]), st.sampled_from(["x", "y", "z z"]))
DECISIONS = st.lists(
    st.tuples(st.sampled_from(sorted(VALUES)), st.lists(PHOTOS, min_size=2, max_size=3, unique=True)), max_size=4
)


def decided(photos: list[PhotoId], decisions: Mapping[Pair, Judgement]) -> DecidedPairs:
    keys = np.array([sha256 for sha256, _ in photos], "S64")
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return DecidedPairs(keys, first[inverse], lambda row: photos[row][1], decisions)


@given(photos=st.lists(PHOTOS, min_size=1, max_size=9), made=DECISIONS)
def test_every_pair_of_rows_is_judged_as_its_photos_were(
    photos: list[PhotoId], made: list[tuple[Judgement, list[PhotoId]]]
) -> None:
    """The photos of another index may have the same bytes and path as one's own, so a photo can occur twice."""
    decisions = Decisions(
        tuple(Decision("", judgement, *zip(*each, strict=True)) for judgement, each in made)
    ).pairs()
    first, second = (rows.ravel() for rows in np.indices((len(photos), len(photos))))
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    wanted = [decisions.get(pair_key(photos[one], photos[other]), "undecided") for one, other in pairs]
    found = decided(photos, decisions)
    assert found.judgements(first, second).tolist() == [VALUES[judgement] for judgement in wanted]
    shas = [sha256 for sha256, _ in photos]
    assert sorted(found.same()) == [
        (one, other)
        for (one, other), judgement in zip(pairs, wanted, strict=True)
        if judgement == "same" and shas[one] != shas[other] and one < other
        if shas.index(shas[one]) == one and shas.index(shas[other]) == other
    ]
