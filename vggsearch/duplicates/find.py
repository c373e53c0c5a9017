"""One run of the search for duplicates over an index, from its photos to groups."""

import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.calibration import LabelledPairs
from vggsearch.duplicates.calibration_pairs import (
    CalibrationPairs,
    Embed,
    copies_of,
    read_calibration_pairs,
    write_calibration_pairs,
)
from vggsearch.duplicates.classify import ClassifiedPairs, classify_pairs
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.grouping import GroupBuilder
from vggsearch.duplicates.options import DuplicateOptions
from vggsearch.duplicates.pairs import unrelated_pairs
from vggsearch.duplicates.results import Group, Pair
from vggsearch.duplicates.verification import MATCHED_BY, KeypointMatcher
from vggsearch.errors import IndexNotWritable, Stopped
from vggsearch.progress import SILENT, Monitor
from vggsearch.store.decisions import decisions_of

log = logging.getLogger(__name__)


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
    found: ClassifiedPairs
    was_compared: bool
    is_against: bool
    seconds: float

    def in_review_order(self) -> tuple[Group, ...]:
        """Return the groups, that with the least sure member first: what a person should look at."""
        return tuple(sorted(self.groups, key=lambda group: min(member.confidence for member in group.members)))


def duplicates(
    collection: Collection, options: DuplicateOptions, embed: Embed, monitor: Monitor
) -> DuplicatesReport:
    """Return the duplicates in a collection. Raises Stopped, with the report of the pairs compared until then."""
    started = time.monotonic()
    directory = collection.store.directory
    matcher = (
        KeypointMatcher(directory, collection.file, collection.key)
        if options.confirm and collection.is_there
        else None
    )
    judged = decisions_of(directory).pairs()

    def known() -> CalibrationPairs | None:
        return _known(collection, matcher, embed, monitor) if matcher is not None else None

    found = classify_pairs(collection, options, judged, matcher, known, monitor)
    builder = GroupBuilder(collection, found, options, matcher, monitor if found.is_whole else SILENT)
    try:
        groups, pairs = builder.groups(), builder.pairs()
    finally:
        if matcher is not None:
            matcher.keep()  # which photos have the same pixels
    report = DuplicatesReport(
        groups,
        pairs,
        len(collection),
        len(collection.blank),
        found,
        was_compared=matcher is not None,
        is_against=collection.others is not None,
        seconds=time.monotonic() - started,
    )
    if not found.is_whole:
        raise Stopped(report=report)
    return report


def _known(collection: Collection, matcher: KeypointMatcher, embed: Embed, monitor: Monitor) -> CalibrationPairs:
    """Return what a calibration learns from: what was kept, unless photos, spec or whitening have changed much."""
    made_of = _made_of(collection)
    kept = read_calibration_pairs(collection.store.directory, made_of)
    if kept is not None:
        return kept
    others = unrelated_pairs(collection)
    matcher.match(others, "comparing unrelated pairs", monitor)
    compared = np.array([pair for pair in others if matcher.inliers(pair) >= 0], np.int64).reshape(-1, 2)
    inliers = tuple(matcher.inliers((first, second)) for first, second in compared.tolist())
    rows = collection.own_contents.tolist()
    copies = copies_of(
        collection.root or Path(),
        collection.searcher.paths,
        rows,
        embed,
        lambda embedding, row: float(collection.searcher.index.similarities(embedding, np.array([row]))[0]),
        monitor,
    )
    pairs = CalibrationPairs(copies, LabelledPairs(tuple(collection.similarities(compared).tolist()), inliers))
    try:
        write_calibration_pairs(collection.store.directory, pairs, made_of)
    except IndexNotWritable as error:
        log.warning("%s What the calibration learns from is not kept.", error)
    return pairs


def _made_of(collection: Collection) -> str:
    """Name what a calibration depends on: the spec, the whitening, how pairs are compared, and roughly how many."""
    side = collection.store.manifest.search
    whitening = asdict(side.whitening) if side is not None and side.whitening is not None else None
    facts = [
        asdict(collection.store.spec),
        whitening,
        MATCHED_BY,
        len(collection).bit_length(),
        DUPLICATES.copied_photos,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
