"""One run of the search for duplicates over an index, from its photos to groups."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.calibration import Known
from vggsearch.duplicates.calibration_pairs import KnownPairs, copies_of, read_known_pairs, write_known_pairs
from vggsearch.duplicates.classify import Found, find_pairs
from vggsearch.duplicates.collection import Pool
from vggsearch.duplicates.decisions import DECISIONS, read_decisions
from vggsearch.duplicates.grouping import Arranger
from vggsearch.duplicates.options import DuplicateOptions
from vggsearch.duplicates.pairs import unrelated_pairs
from vggsearch.duplicates.results import Group, Pair
from vggsearch.duplicates.verification import MADE_BY, Checks
from vggsearch.errors import IndexNotWritable
from vggsearch.knn.all_pairs import Stop
from vggsearch.knn.build import Tell

log = logging.getLogger(__name__)

Embed = Callable[[Sequence[Image.Image]], NDArray[np.float32]]


@dataclass(frozen=True)
class DuplicatesReport:
    """The duplicates among `photos` photos, of which `blank` are left out, as groups and as pairs.

    `found` says how they were chosen. `was_compared` is false where the photos were not there, so that similarity
    alone decided; `is_against` says that what is kept is another index's, named by its whole path.
    """

    groups: tuple[Group, ...]
    pairs: tuple[Pair, ...]
    photos: int
    blank: int
    found: Found
    was_compared: bool
    is_against: bool
    seconds: float

    def in_review_order(self) -> tuple[Group, ...]:
        """Return the groups, that with the least sure member first: what a person should look at."""
        return tuple(sorted(self.groups, key=lambda group: min(member.confidence for member in group.members)))


def duplicates(
    pool: Pool, options: DuplicateOptions, embed: Embed, tell: Tell, stop: Stop | None = None
) -> DuplicatesReport | None:
    """Return the duplicates in a pool; None where it was stopped before anything was compared."""
    started = time.monotonic()
    directory = pool.store.directory
    checks = Checks(directory, pool.file, pool.key) if options.verify and pool.is_there else None
    judged = read_decisions(directory / DECISIONS).pairs()

    def known() -> KnownPairs | None:
        return _known(pool, checks, embed, tell) if checks is not None else None

    found = find_pairs(pool, options, judged, checks, known, tell, stop)
    if found is None:
        return None
    arranger = Arranger(pool, found, options, checks)
    groups, pairs = arranger.groups(), arranger.pairs()
    if checks is not None:
        checks.keep()  # which photos have the same pixels
    return DuplicatesReport(
        groups, pairs, len(pool), len(pool.blank), found,
        was_compared=checks is not None, is_against=pool.others is not None, seconds=time.monotonic() - started,
    )  # fmt: skip


def _known(pool: Pool, checks: Checks, embed: Embed, tell: Tell) -> KnownPairs:
    """Return what a calibration learns from: what was kept, unless photos, spec or whitening have changed much."""
    made_of = _made_of(pool)
    kept = read_known_pairs(pool.store.directory, made_of)
    if kept is not None:
        return kept
    others = unrelated_pairs(pool)
    checks.ask(others, lambda done, total: tell("comparing unrelated pairs", done, total))
    compared = np.array([pair for pair in others if checks.inliers(pair) >= 0], np.int64).reshape(-1, 2)
    inliers = tuple(checks.inliers((first, second)) for first, second in compared.tolist())
    rows = pool.own_contents.tolist()
    copies = copies_of(
        pool.root or Path(), pool.searcher.paths, rows, embed,
        lambda embedding, row: float(pool.searcher.index.similarities(embedding, np.array([row]))[0]),
        lambda done, total: tell("making edited copies", done, total),
    )  # fmt: skip
    pairs = KnownPairs(copies, Known(tuple(pool.similarities(compared).tolist()), inliers))
    try:
        write_known_pairs(pool.store.directory, pairs, made_of)
    except IndexNotWritable as error:
        log.warning("%s What the calibration learns from is not kept.", error)
    return pairs


def _made_of(pool: Pool) -> str:
    """Name what a calibration depends on: the spec, the whitening, how pairs are compared, and roughly how many."""
    side = pool.store.manifest.search
    whitening = asdict(side.whitening) if side is not None and side.whitening is not None else None
    facts = [asdict(pool.store.spec), whitening, MADE_BY, len(pool).bit_length(), DUPLICATES.copied_photos]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
