"""Search an index for duplicates, from its photos to groups."""

import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

from vggsearch.defaults import DUPLICATES, PAIRS
from vggsearch.duplicates.calibration import LabelledPairs, likely_shares
from vggsearch.duplicates.calibration_pairs import (
    CalibrationPairs,
    Embed,
    compare_edited_copies,
    read_calibration_pairs,
    write_calibration_pairs,
)
from vggsearch.duplicates.classify import ClassifiedPairs, classify_pairs
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.confirmation import MATCHED_BY, KeypointMatcher
from vggsearch.duplicates.grouping import GroupBuilder
from vggsearch.duplicates.keep_policy import keep_rules, warn_of_unmatched
from vggsearch.duplicates.options import DuplicateOptions
from vggsearch.duplicates.pairs import CandidatePairs, unrelated_pairs
from vggsearch.duplicates.results import DUPLICATE_KINDS, Groups, Pairs
from vggsearch.duplicates.shown import restricted
from vggsearch.errors import ImageError, IndexNotWritable, Stopped
from vggsearch.photos.decoder_pool import Decoders, default_workers
from vggsearch.progress import SILENT, Monitor
from vggsearch.removal.interrupted import warn_of_interrupted
from vggsearch.store.contents import JOURNALS
from vggsearch.tables import Table, Tabular

log = logging.getLogger(__name__)

MOST_EXPECTED = 10_000  # copies in a folder for `recall_range`; of more, no other shares are likely


@dataclass(frozen=True)
class DuplicatesReport(Tabular):
    """The duplicates among `photos` photos, of which `blank` blank ones were excluded, as groups and as pairs.

    `classified` describes how the pairs were classified. `was_compared` is False if the photos themselves were not
    compared and similarity alone decided. `is_against` means that the keepers are photos of another index, named by
    their absolute path. `stale` are the photos that are left out because their file is gone or no longer the one
    that was indexed; `are_all_stale` says that this holds for every file looked at. `seconds` is the duration of
    the search, `directory` the index and `root` its photo folder, None if it is unknown.

    >>> report = index.duplicates()
    >>> len(report.groups), len(report.pairs), report.photos
    (1, 1, 4)
    >>> report.to_pandas()["path"].tolist()
    ['a.jpg', 'copy of a.jpg']
    """

    groups: Groups
    pairs: Pairs
    photos: int
    blank: int
    classified: ClassifiedPairs
    was_compared: bool
    is_against: bool
    stale: tuple[str, ...]
    are_all_stale: bool
    seconds: float
    directory: Path
    root: Path | None

    @property
    def recall_range(self) -> tuple[float, float] | None:
        """The shares, 0..1, of the edited copies in the folder between which those that are found likely lie.

        It is wide if there are few. None if no recall is known, see `classified`.
        """
        recall, calibration = self.classified.recall, self.classified.calibration
        if recall is None or calibration is None:
            return None
        members = chain.from_iterable(group.members for group in self.groups)
        edited = sum(member.kind in DUPLICATE_KINDS and member.kind != "exact" for member in members)
        among = min(max(1, round(edited / max(recall, 0.1))), MOST_EXPECTED)
        return likely_shares(round(recall * calibration.tried), calibration.tried, among)

    def to_arrow(self) -> Table:
        """Return one row per photo of each group; see Groups.to_arrow. `pairs.to_arrow()` has the pairs."""
        return self.groups.to_arrow()

    def _repr_html_(self) -> str:
        return self.groups._repr_html_()

    def in_review_order(self) -> Groups:
        """Return the groups in the order in which to review them, the least certain first."""
        return Groups(sorted(self.groups, key=lambda group: min(member.confidence for member in group.members)))


def duplicates(
    collection: Collection,
    options: DuplicateOptions,
    embed: Embed,
    monitor: Monitor,
    passing: frozenset[str] | None = None,
) -> DuplicatesReport:
    """Find the duplicates in a collection. `passing` are the photos that pass the filters, None without filters.

    Raises Stopped, with a report of the pairs compared so far.
    """
    with Decoders(min(default_workers(), len(collection))) as decoders:
        return _duplicates(collection, options, embed, decoders, monitor, passing)


def _duplicates(
    collection: Collection,
    options: DuplicateOptions,
    embed: Embed,
    decoders: Decoders,
    monitor: Monitor,
    passing: frozenset[str] | None,
) -> DuplicatesReport:
    started = time.monotonic()
    directory = collection.store.directory
    warn_of_unmatched(keep_rules(options.keep), collection.searcher.paths)
    if collection.root is not None:
        warn_of_interrupted(directory / JOURNALS, collection.root)
    is_compared = options.confirm and collection.has_files
    matcher = KeypointMatcher(directory, collection, decoders) if is_compared else None

    def load_labelled() -> CalibrationPairs | None:
        return _labelled_pairs(collection, matcher, decoders, embed, monitor) if matcher is not None else None

    @cache
    def has_frames(row: int) -> bool:
        try:
            return decoders.has_frames(collection.source(row))
        except ImageError:
            return False

    try:
        found = classify_pairs(collection, options, matcher, load_labelled, has_frames, monitor)
        classified = _of_current(found, collection)
        shown = monitor if classified.is_complete else SILENT
        builder = GroupBuilder(collection, classified, options, matcher, decoders, shown)
        groups, pairs = restricted(builder.groups(), builder.pairs(), options, passing)
    finally:
        if matcher is not None:
            matcher.save()
    files = collection.files
    report = DuplicatesReport(
        groups,
        pairs,
        len(collection),
        len(collection.blank),
        builder.classified,
        was_compared=matcher is not None,
        is_against=collection.others is not None,
        stale=files.stale if files is not None else (),
        are_all_stale=files is not None and files.are_all_stale,
        seconds=time.monotonic() - started,
        directory=directory,
        root=collection.root,
    )
    if not classified.is_complete:
        raise Stopped(report=report)
    return report


def _of_current(classified: ClassifiedPairs, collection: Collection) -> ClassifiedPairs:
    """Leave out the pairs with a photo whose file is not the one that was indexed."""

    def current(pairs: CandidatePairs) -> CandidatePairs:
        rows = {*pairs.first.tolist(), *pairs.second.tolist()}
        stale = [row for row in rows if not collection.is_current(row)]
        return pairs.subset(~(np.isin(pairs.first, stale) | np.isin(pairs.second, stale)))

    return replace(
        classified,
        duplicates=current(classified.duplicates),
        similar=current(classified.similar),
        raw=current(classified.raw),
    )


def _labelled_pairs(
    collection: Collection, matcher: KeypointMatcher, decoders: Decoders, embed: Embed, monitor: Monitor
) -> CalibrationPairs:
    """Return the labelled pairs for the calibration: the stored ones unless they are outdated, else new ones."""
    source = _source_of(collection)
    stored = read_calibration_pairs(collection.store.directory, source)
    if stored is not None:
        return stored
    others = unrelated_pairs(collection)
    matcher.match(others, "comparing unrelated pairs", monitor)
    compared = np.array([pair for pair in others if matcher.inliers(pair) >= 0], np.int64).reshape(-1, 2)
    inliers = tuple(matcher.inliers((first, second)) for first, second in compared.tolist())
    copies = compare_edited_copies(
        collection,
        matcher,
        decoders,
        embed,
        lambda embedding, row: float(collection.searcher.index.similarities(embedding, np.array([row]))[0]),
        monitor,
    )
    pairs = CalibrationPairs(copies, LabelledPairs(tuple(collection.similarities(compared).tolist()), inliers))
    try:
        write_calibration_pairs(collection.store.directory, pairs, source)
    except IndexNotWritable as error:
        log.warning("%s The pairs for the calibration were not stored.", error)
    return pairs


def _source_of(collection: Collection) -> str:
    """Return a hash of what a calibration depends on: spec, whitening, matcher, rough number of photos."""
    search = collection.store.manifest.search
    whitening = asdict(search.whitening) if search is not None and search.whitening is not None else None
    facts = [
        asdict(collection.store.spec),
        whitening,
        MATCHED_BY,
        len(collection).bit_length(),
        DUPLICATES.copied_photos,
        DUPLICATES.copies,
        DUPLICATES.edits,
        PAIRS.hash_bits,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
