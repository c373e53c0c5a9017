"""Build groups of duplicates: which photo to keep in each and why, and where its members lie in it."""

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from vggsearch.defaults import SURROUNDINGS
from vggsearch.duplicates.classify import ClassifiedPairs, may_show_the_same
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.confirmation import KeypointMatcher
from vggsearch.duplicates.keep_policy import (
    RatedPhoto,
    age,
    holds_video,
    keep_rules,
    quality_of,
    ranked,
    reason,
)
from vggsearch.duplicates.measured import Measured
from vggsearch.duplicates.options import DuplicateOptions
from vggsearch.duplicates.originals import Originals
from vggsearch.duplicates.pairs import CandidatePairs
from vggsearch.duplicates.results import Group, Kind, Member, Pair, keepers
from vggsearch.knn.edges import Edges
from vggsearch.matching.alignment import Alignment, inverted
from vggsearch.photos.decoder_pool import Decoders, default_workers
from vggsearch.photos.upright import Box
from vggsearch.progress import SILENT, Monitor

IDENTICAL_KINDS = ("exact", "same picture")
LEFT_ALONE: dict[Kind, str] = {
    "similar": "only similar",
    "contains": "not a copy of the whole",
    "RAW": "no copy, but what it was developed from",
}
KEPT = "you decided to keep it"
HAS_VIDEO = "it holds a video, the photo to keep does not"
SHOWS_MORE = "it shows some of the scene that the photo to keep does not"
REASONS: dict[Kind, str] = {
    "contains": "one of the two shows the other among other pictures",
    "RAW": "RAW file of the photo",
}


class GroupBuilder:
    """Builds groups and pairs from the classified pairs of a collection.

    `classified` are these pairs, with those that contain a photo apart from the duplicates.
    """

    def __init__(
        self,
        collection: Collection,
        classified: ClassifiedPairs,
        options: DuplicateOptions,
        matcher: KeypointMatcher | None,
        decoders: Decoders,
        monitor: Monitor = SILENT,
    ) -> None:
        self._decoders, self._monitor = decoders, monitor
        self._collection, self.classified, self._options = collection, classified, options
        self._matcher = matcher
        self._policy = keep_rules(options.keep)
        self._beyond: frozenset[tuple[int, int]] = frozenset()  # a photo, and one that lacks some of its scene
        self._copies = self._exact_copies()
        shown = classified.duplicates, classified.similar, classified.raw
        self._contents = sorted({*self._copies, *(row for pairs in shown for row in _rows(pairs))})
        rows = [row for content in self._contents for row in self._rows_of(content)]
        self._photos = collection.photos([*rows, *self._contents])
        with ThreadPoolExecutor(default_workers()) as threads:
            self._rated = dict(zip(rows, threads.map(self._rate, rows), strict=True))
        self._judge_originals()
        self._rank = {row: rank for rank, row in enumerate(self._ranked(rows))}
        self._best = {
            content: min(self._rows_of(content), key=self._rank.__getitem__) for content in self._contents
        }

    def groups(self) -> tuple[Group, ...]:
        """Return the groups, sorted by the path of the keeper.

        A photo is in at most one group, except that a keeper may also be a similar member of other groups.
        """
        kept = self._keepers(self.classified.duplicates)
        indices = {pair: index for index, pair in enumerate(self.classified.duplicates.pairs())}
        members: dict[int, list[Member]] = defaultdict(list)
        for content, keeper in kept.items():
            if content == keeper:
                members[keeper] += self._exact_members(self._copies_of_best(content), keeper)
            else:
                pair = (min(content, keeper), max(content, keeper))
                rows = [row for row in self._rows_of(content) if self._may_pair(row, self._best[keeper])]
                members[keeper] += self._duplicate_members(rows, keeper, indices[pair])
        for pairs, kind in self._related():
            for content, keeper, index in self._of_keepers(pairs, kept):
                if self._may_pair(self._best[content], self._best[keeper]):
                    members[keeper].append(self._related_member(pairs, kind, self._best[content], keeper, index))
        root = self._collection.root
        groups = [
            Group(0, self._photos[self._best[keeper]], tuple(sorted(each, key=_most_similar_first)), root)
            for keeper, each in members.items()
            if len(each) + 1 >= self._options.min_size
        ]
        groups.sort(key=lambda group: group.keeper.path)
        return tuple(replace(group, number=number) for number, group in enumerate(groups, start=1))

    def pairs(self) -> tuple[Pair, ...]:
        """Return the pairs: each exact copy with the best copy, then all other pairs, most similar first."""
        found = [
            Pair(self._photos[row], self._photos[self._best[content]], "exact", 1.0, 1.0, None)
            for content in self._copies
            for row in self._copies_of_best(content)
        ]
        tiers: tuple[tuple[CandidatePairs, Kind | None], ...] = (
            (self.classified.duplicates, None),
            (self.classified.similar, "similar"),
            (self.classified.contains, "contains"),
            (self.classified.raw, "RAW"),
        )
        for pairs, kind in tiers:
            for index, pair in enumerate(pairs.pairs()):
                (first, second), alignment = self._aligned(pair)
                its_kind = kind or self._kind(pairs, index)
                values = self._similarity(pairs, index, its_kind), self._confidence(pairs, index, its_kind)
                for one, other in self._row_pairs(first, second):
                    photos, copies = (
                        (self._photos[one], self._photos[other]),
                        map(self._named_copies, (first, second)),
                    )
                    found.append(Pair(*photos, its_kind, *values, alignment, *copies))
        return tuple(found)

    def _named_copies(self, content: int) -> tuple[str, ...]:
        """Return the paths of the exact copies of the best row; none across folders, where each makes its pairs."""
        if self._options.across_folders:
            return ()
        return tuple(self._photos[row].path for row in self._copies_of_best(content))

    def _row_pairs(self, first: int, second: int) -> list[tuple[int, int]]:
        """Return the pairs of rows that stand for a pair of contents: their best rows.

        Across folders, each row makes a pair with the best row of the other content in another folder, if there is
        one. So there are no more pairs than rows.
        """
        if not self._options.across_folders:
            return [(self._best[first], self._best[second])]
        ones, others = self._best_by_folder(first), self._best_by_folder(second)
        pairs = [(row, each) for row in self._rows_of(first) for each in self._first_allowed(row, others)]
        pairs += [(each, row) for row in self._rows_of(second) for each in self._first_allowed(row, ones)]
        return list(dict.fromkeys(pairs))

    def _best_by_folder(self, content: int) -> list[int]:
        """Return the best row of a content, and the best that is in another folder, if there is one."""
        best = self._best[content]
        others = [row for row in self._rows_of(content) if self._may_pair(row, best)]
        return [best, *sorted(others, key=self._rank.__getitem__)[:1]]

    def _first_allowed(self, row: int, others: list[int]) -> list[int]:
        """Return the first of some rows that may be a pair with `row`, in a list; an empty one if none may."""
        return [each for each in others if self._may_pair(row, each)][:1]

    def _exact_copies(self) -> dict[int, list[int]]:
        """Return the rows of each content that occurs several times, or, with another index, in both of them.

        Within folders, only copies in one folder count.
        """
        own = len(self._collection)
        by_folder = self._options.within_folder and self._collection.others is None
        contents = self._collection.contents_by_folder if by_folder else self._collection.contents
        rows_of: dict[int, list[int]] = defaultdict(list)
        repeated = np.flatnonzero(np.bincount(contents, minlength=len(contents)) > 1)
        for row in np.flatnonzero(np.isin(contents, np.setdiff1d(repeated, self._collection.blank))).tolist():
            if self._collection.is_current(row):
                rows_of[int(contents[row])].append(row)
        if self._collection.others is not None:
            return {content: rows for content, rows in rows_of.items() if rows[0] < own <= rows[-1]}
        return rows_of

    def _may_pair(self, row: int, other: int) -> bool:
        """Return whether two rows may be a pair: across folders, only if they are in different ones."""
        folders = self._collection.folders
        return not self._options.across_folders or bool(folders[row] != folders[other])

    def _rows_of(self, content: int) -> list[int]:
        return self._copies.get(content, [content])

    def _copies_of_best(self, content: int) -> list[int]:
        """Return the rows of a content that are copies of its best row, which the user has not denied.

        A hard link to the best is no copy of it.
        """
        best = self._best[content]
        is_one_file = self._collection.is_same_file
        rows = (row for row in self._rows_of(content) if not is_one_file(row, best))
        others = np.array([row for row in rows if self._may_pair(row, best)], np.int64)
        judgements = self._collection.decided.judgements(others, np.full(len(others), best))
        copies: list[int] = others[judgements != -1].tolist()
        return copies

    def _rate(self, row: int) -> RatedPhoto:
        photo, source = self._photos[row], self._collection.source(row)
        quality = quality_of(photo, lambda: self._decoders.jpeg_quality(source))
        has_video = holds_video(photo, lambda: self._decoders.holds_video(source))
        return RatedPhoto(photo, quality, holds_video=has_video)

    def _judge_originals(self) -> None:
        """Compare what duplicates show: rate which is the original, and set apart what contains a photo."""
        if self._matcher is None:
            return
        duplicates = self.classified.duplicates
        contents = self._collection.contents
        pairs = duplicates.subset(contents[duplicates.first] != contents[duplicates.second]).pairs()
        oldest = {content: self._oldest(self._rows_of(content)) for content in self._contents}
        measured = Measured(self._collection.store.directory)
        evidence = Originals(oldest, self._matcher, self._read, measured).compare(pairs, self._monitor)
        self._set_apart(evidence.contains)
        self._beyond = evidence.beyond
        lost, why = evidence.lost(), defaultdict[str, dict[str, str]](dict)
        share = {self._photos[row].sha256: value for row, value in lost.items()}
        for (better, worse), words in evidence.why.items():
            why[self._photos[better].sha256][self._photos[worse].sha256] = words
        for row, rated in self._rated.items():
            sha256 = rated.photo.sha256
            self._rated[row] = replace(rated, lost=share.get(sha256, 0.0), why=why[sha256])

    def _oldest(self, rows: list[int]) -> RatedPhoto:
        """Return the oldest of some exact copies: a content is as old as that, whichever of them comes first."""
        return min((self._rated[row] for row in rows), key=lambda each: age(each.photo))

    def _set_apart(self, contains: frozenset[tuple[int, int]]) -> None:
        """Take pairs out of the duplicates, except those that the user has marked as the same."""
        duplicates = self.classified.duplicates
        is_apart = np.array([pair in contains for pair in duplicates.pairs()], bool)
        is_apart &= self._collection.decided.judgements(duplicates.first, duplicates.second) != 1
        self.classified = replace(
            self.classified, duplicates=duplicates.subset(~is_apart), contains=duplicates.subset(is_apart)
        )

    def _read(self, row: int, part: Box | None) -> Image.Image:
        """Return a photo, reduced, or a part of it at full size. Raises ImageError."""
        source = self._collection.source(row)
        if part is None:
            return self._decoders.picture(source, SURROUNDINGS.pixels, of_longer=True)
        return self._decoders.picture(source, max(part[2:]), of_longer=True, crop=part)

    def _ranked(self, rows: list[int]) -> list[int]:
        """Sort rows by what to keep first: photos of the other index, those that the user keeps, protected ones.

        Then the keep rules decide.
        """
        order = ranked([self._rated[row] for row in rows], self._policy)
        return sorted(
            (rows[index] for index in order),
            key=lambda row: (row < len(self._collection), not self._is_kept(row), not self._is_protected(row)),
        )

    def _is_kept(self, row: int) -> bool:
        return row in self._collection.decided.kept

    def _is_protected(self, row: int) -> bool:
        path = PurePosixPath(self._photos[row].path)
        return row >= len(self._collection) or any(path.is_relative_to(folder) for folder in self._options.protect)

    def _keepers(self, pairs: CandidatePairs) -> dict[int, int]:
        """Return the content that is kept for each content."""
        pairs = pairs.subset(np.array([self._may_keep(*pair) for pair in pairs.pairs()], bool))
        contents = np.array(self._contents, np.int64)
        first, second = (np.searchsorted(contents, rows).astype(np.int32) for rows in (pairs.first, pairs.second))
        ranks = np.argsort(np.argsort([self._rank[self._best[content]] for content in self._contents]))
        edges = Edges(len(contents), None, 0.0, first, second, pairs.shown_similarity.astype(np.float32))
        return dict(zip(self._contents, contents[keepers(ranks, edges)].tolist(), strict=True))

    def _may_keep(self, first: int, second: int) -> bool:
        """Return whether the best row of two contents may be a pair with a row of the other content."""
        keeper, other = sorted((first, second), key=lambda content: self._rank[self._best[content]])
        return any(self._may_pair(row, self._best[keeper]) for row in self._rows_of(other))

    def _exact_members(self, rows: list[int], keeper: int) -> list[Member]:
        return [self._member(row, keeper, "exact", 1.0, 1.0) for row in rows]

    def _duplicate_members(self, rows: list[int], keeper: int, index: int) -> list[Member]:
        """Return the photos of one content as members; `index` is that of its pair with the keeper."""
        pairs = self.classified.duplicates
        kind = self._kind(pairs, index)
        values = self._similarity(pairs, index, kind), self._confidence(pairs, index, kind)
        return [self._member(row, keeper, kind, *values, pairs.pair(index)) for row in rows]

    def _related(self) -> tuple[tuple[CandidatePairs, Kind], ...]:
        """Return the pairs that are shown and are no duplicates."""
        similar, contains, raw = self.classified.similar, self.classified.contains, self.classified.raw
        is_apart = np.array([not self._are_named_as_one(*pair) for pair in raw.pairs()], bool)
        return (similar, "similar"), (contains, "contains"), (raw.subset(is_apart), "RAW")

    def _are_named_as_one(self, first: int, second: int) -> bool:
        """Return whether the names say that one is the RAW file of the other, as a camera writes both."""
        one, other = (PurePosixPath(self._photos[self._best[content]].path) for content in (first, second))
        return one.with_suffix("") == other.with_suffix("")

    def _of_keepers(self, pairs: CandidatePairs, kept: dict[int, int]) -> Iterable[tuple[int, int, int]]:
        """Yield what is related to a keeper and is kept: the content, the keeper, and the index of their pair.

        A RAW file is related to the photo, not the photo to the RAW file.
        """
        for index, pair in enumerate(pairs.pairs()):
            first, second = pair
            if kept[first] == first and kept[second] == second:
                keeper, other = sorted(pair, key=self._rank_as_keeper)
                yield other, keeper, index

    def _rank_as_keeper(self, content: int) -> tuple[bool, bool, int]:
        best = self._best[content]
        return best < len(self._collection), self._photos[best].is_raw, self._rank[best]

    def _related_member(self, pairs: CandidatePairs, kind: Kind, row: int, keeper: int, index: int) -> Member:
        values = self._similarity(pairs, index, kind), self._confidence(pairs, index, kind)
        return self._member(row, keeper, kind, *values, pairs.pair(index))

    def _member(
        self,
        row: int,
        keeper: int,
        kind: Kind,
        similarity: float,
        confidence: float,
        pair: tuple[int, int] | None = None,
    ) -> Member:
        (_, larger), alignment = self._aligned(pair) if pair is not None else ((0, 0), None)
        best = self._best[keeper]
        why = KEPT if self._is_kept(best) else reason(self._rated[best], self._rated[row], self._policy)
        return Member(
            self._photos[row],
            kind,
            similarity,
            confidence,
            alignment,
            REASONS.get(kind, why),
            self._left_alone(row, keeper, kind),
            "keeper" if larger == keeper else "member",
        )

    def _left_alone(self, row: int, keeper: int, kind: Kind) -> str | None:
        """Return why a member is not to be removed, None if it may be."""
        if kind in LEFT_ALONE:
            return LEFT_ALONE[kind]
        if self._is_kept(row):
            return KEPT
        if self._is_protected(row):
            return "protected"
        if self._rated[row].holds_video and not self._rated[self._best[keeper]].holds_video:
            return HAS_VIDEO
        if self._shows_more(row, keeper):
            return SHOWS_MORE
        if kind != "exact" and (self._photos[row].is_raw or self._photos[self._best[keeper]].is_raw):
            return "RAW files are only compared byte by byte"
        return None

    def _shows_more(self, row: int, keeper: int) -> bool:
        """Return whether a photo shows what the keeper lacks of the scene, unless the user called them the same."""
        if (int(self._collection.contents[row]), keeper) not in self._beyond:
            return False
        pair = np.array([row]), np.array([self._best[keeper]])
        return bool(self._collection.decided.judgements(*pair)[0] != 1)

    def _aligned(self, pair: tuple[int, int]) -> tuple[tuple[int, int], Alignment | None]:
        """Return two contents, the one that shows more second, and the position of the first in the second."""
        result = self._matcher.result(pair) if self._matcher is not None else None
        rows, alignment = result if result is not None else (pair, None)
        if alignment is None:
            return pair, None
        return (rows, alignment) if alignment.scale <= 1 else (rows[::-1], inverted(alignment))

    def _kind(self, pairs: CandidatePairs, index: int) -> Kind:
        """Return the kind of a pair of duplicates. Pixels are compared only if they may be the same."""
        first, second = (self._photos[row] for row in pairs.pair(index))
        if first.sha256 == second.sha256:
            return "exact"
        may_be_same = may_show_the_same(first, second, pairs.similarity[index])
        self._monitor.check()
        if may_be_same and self._matcher is not None and self._matcher.have_same_pixels(pairs.pair(index)):
            return "same picture"
        return "near"

    def _similarity(self, pairs: CandidatePairs, index: int, kind: Kind) -> float:
        return 1.0 if kind in IDENTICAL_KINDS else round(min(float(pairs.shown_similarity[index]), 0.9999), 4)

    def _confidence(self, pairs: CandidatePairs, index: int, kind: Kind) -> float:
        return 1.0 if kind in IDENTICAL_KINDS else round(float(pairs.confidence[index]), 4)


def _rows(pairs: CandidatePairs) -> set[int]:
    return {*pairs.first.tolist(), *pairs.second.tolist()}


def _most_similar_first(member: Member) -> tuple[float, str]:
    return -member.similarity, member.photo.path
