"""Arrange duplicates in groups: which photo to keep in each, why, and what lies where in it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from vggsearch.duplicates.classify import ClassifiedPairs
from vggsearch.duplicates.collection import Collection
from vggsearch.duplicates.keep_policy import RatedPhoto, keep_rules, quality_of, ranked, reason
from vggsearch.duplicates.options import DuplicateOptions
from vggsearch.duplicates.pairs import CandidatePairs
from vggsearch.duplicates.results import Group, Kind, Member, Pair, keepers
from vggsearch.duplicates.verification import KeypointMatcher
from vggsearch.knn.edges import Edges
from vggsearch.matching.alignment import Alignment, inverted
from vggsearch.progress import SILENT, Monitor

EQUAL = ("exact", "same picture")
SAME = 0.995  # similarity from which two photos of one size may have the same pixels


class GroupBuilder:
    """Makes groups and pairs of what was found among the photos of a pool."""

    def __init__(
        self,
        collection: Collection,
        found: ClassifiedPairs,
        options: DuplicateOptions,
        matcher: KeypointMatcher | None,
        monitor: Monitor = SILENT,
    ) -> None:
        self._monitor = monitor
        self._collection, self._found, self._options, self._matcher = collection, found, options, matcher
        self._policy = keep_rules(options.keep)
        self._copies = self._exact_copies()
        self._contents = sorted({*self._copies, *_rows(found.duplicates), *_rows(found.similar)})
        rows = [row for content in self._contents for row in self._rows_of(content)]
        self._photos = collection.photos([*rows, *self._contents])
        self._candidates = {row: self._candidate(row) for row in rows}
        self._rank = {row: rank for rank, row in enumerate(self._ranked(rows))}
        self._best = {
            content: min(self._rows_of(content), key=self._rank.__getitem__) for content in self._contents
        }

    def groups(self) -> tuple[Group, ...]:
        """Return the groups by the path of what is kept. A photo is in one at most, but for similar ones."""
        kept = self._keepers(self._found.duplicates)
        places = {pair: place for place, pair in enumerate(self._found.duplicates.pairs())}
        members: dict[int, list[Member]] = defaultdict(list)
        for content, keeper in kept.items():
            rows = [row for row in self._rows_of(content) if row != self._best[keeper]]
            pair = (min(content, keeper), max(content, keeper))
            members[keeper] += (
                self._copies_of(rows, keeper) if content == keeper else self._led(rows, keeper, places[pair])
            )
        for content, keeper, place in self._similar(kept):
            members[keeper].append(self._similar_member(self._best[content], keeper, place))
        groups = [
            Group(0, self._photos[self._best[keeper]], tuple(sorted(each, key=_most_similar_first)))
            for keeper, each in members.items()
            if len(each) + 1 >= self._options.min_size
        ]
        groups.sort(key=lambda group: group.keeper.path)
        return tuple(replace(group, number=number) for number, group in enumerate(groups, start=1))

    def pairs(self) -> tuple[Pair, ...]:
        """Return the pairs: exact copies, each with the best of them; then all others, most similar first."""
        found = [
            Pair(self._photos[row], self._photos[self._best[content]], "exact", 1.0, 1.0, None)
            for content in self._copies
            for row in self._rows_of(content)
            if row != self._best[content]
        ]
        tiers: tuple[tuple[CandidatePairs, Kind | None], ...] = (
            (self._found.duplicates, None),
            (self._found.similar, "similar"),
        )
        for pairs, kind in tiers:
            for place, pair in enumerate(pairs.pairs()):
                (first, second), alignment = self._aligned(pair)
                known = kind or self._kind(pairs, place)
                values = self._similarity(pairs, place, known), self._confidence(pairs, place, known)
                found.append(
                    Pair(
                        self._photos[self._best[first]], self._photos[self._best[second]], known, *values, alignment
                    )
                )
        return tuple(found)

    def _exact_copies(self) -> dict[int, list[int]]:
        """Return the rows of each content that is there several times: with others, here and there.

        Where folders matter, those of a content in one folder.
        """
        own = len(self._collection)
        by_folder = self._options.by_folder and self._collection.others is None
        if by_folder and self._options.across_folders:
            return {}  # they are pairs, each of two folders
        contents = self._collection.copies if by_folder else self._collection.contents
        of: dict[int, list[int]] = defaultdict(list)
        several = np.flatnonzero(np.bincount(contents, minlength=len(contents)) > 1)
        for row in np.flatnonzero(np.isin(contents, np.setdiff1d(several, self._collection.blank))).tolist():
            of[int(contents[row])].append(row)
        if self._collection.others is not None:
            return {content: rows for content, rows in of.items() if rows[0] < own <= rows[-1]}
        return of

    def _rows_of(self, content: int) -> list[int]:
        return self._copies.get(content, [content])

    def _candidate(self, row: int) -> RatedPhoto:
        return RatedPhoto(self._photos[row], quality_of(self._photos[row], self._collection.file(row)))

    def _ranked(self, rows: list[int]) -> list[int]:
        """Return rows, what to keep first: others' photos, protected ones, then as the wishes say."""
        order = ranked([self._candidates[row] for row in rows], self._policy)
        return sorted(
            (rows[place] for place in order),
            key=lambda row: (row < len(self._collection), not self._is_protected(row)),
        )

    def _is_protected(self, row: int) -> bool:
        path = PurePosixPath(self._photos[row].path)
        return row >= len(self._collection) or any(path.is_relative_to(folder) for folder in self._options.protect)

    def _keepers(self, pairs: CandidatePairs) -> dict[int, int]:
        """Return the content that is kept for each."""
        contents = np.array(self._contents, np.int64)
        first, second = (np.searchsorted(contents, side).astype(np.int32) for side in (pairs.first, pairs.second))
        ranks = np.argsort(np.argsort([self._rank[self._best[content]] for content in self._contents]))
        edges = Edges(len(contents), None, 0.0, first, second, pairs.raised.astype(np.float32))
        return dict(zip(self._contents, contents[keepers(ranks, edges)].tolist(), strict=True))

    def _copies_of(self, rows: list[int], keeper: int) -> list[Member]:
        return [self._member(row, keeper, "exact", 1.0, 1.0) for row in rows]

    def _led(self, rows: list[int], keeper: int, place: int) -> list[Member]:
        """Return the photos of one content, a duplicate of the keeper's, as members."""
        pairs = self._found.duplicates
        kind = self._kind(pairs, place)
        values = self._similarity(pairs, place, kind), self._confidence(pairs, place, kind)
        return [self._member(row, keeper, kind, *values, pairs.pair(place)) for row in rows]

    def _similar(self, kept: dict[int, int]) -> Iterable[tuple[int, int, int]]:
        """Yield what is similar to a keeper: the content, the keeper, and the place of their pair."""
        for place, pair in enumerate(self._found.similar.pairs()):
            first, second = pair
            if kept[first] == first and kept[second] == second:
                keeper, other = sorted(pair, key=lambda content: self._rank[self._best[content]])
                yield other, keeper, place

    def _similar_member(self, row: int, keeper: int, place: int) -> Member:
        pairs = self._found.similar
        values = self._similarity(pairs, place, "similar"), self._confidence(pairs, place, "similar")
        return self._member(row, keeper, "similar", *values, pairs.pair(place))

    def _member(
        self,
        row: int,
        keeper: int,
        kind: Kind,
        similarity: float,
        confidence: float,
        pair: tuple[int, int] | None = None,
    ) -> Member:
        (_, found), alignment = self._aligned(pair) if pair is not None else ((0, 0), None)
        return Member(
            self._photos[row],
            kind,
            similarity,
            confidence,
            alignment,
            reason(self._candidates[self._best[keeper]], self._candidates[row], self._policy),
            "only similar" if kind == "similar" else "protected" if self._is_protected(row) else None,
            "keeper" if found == keeper else "member",
        )

    def _aligned(self, pair: tuple[int, int]) -> tuple[tuple[int, int], Alignment | None]:
        """Return two contents and where in the second the first lies: the one that shows more comes second."""
        known = self._matcher.known(pair) if self._matcher is not None else None
        rows, alignment = known if known is not None else (pair, None)
        if alignment is None:
            return pair, None
        return (rows, alignment) if alignment.scale <= 1 else (rows[::-1], inverted(alignment))

    def _kind(self, pairs: CandidatePairs, place: int) -> Kind:
        """Return whether two photos have the same pixels, which are read only where they may, or are near."""
        first, second = (self._photos[row] for row in pairs.pair(place))
        if first.sha256 == second.sha256:
            return "exact"
        may_be = (first.width, first.height) == (second.width, second.height) and pairs.similarity[place] >= SAME
        self._monitor.check()
        if may_be and self._matcher is not None and self._matcher.are_same_picture(pairs.pair(place)):
            return "same picture"
        return "near"

    def _similarity(self, pairs: CandidatePairs, place: int, kind: Kind) -> float:
        return 1.0 if kind in EQUAL else round(min(float(pairs.raised[place]), 0.9999), 4)

    def _confidence(self, pairs: CandidatePairs, place: int, kind: Kind) -> float:
        return 1.0 if kind in EQUAL else round(float(pairs.confidence[place]), 4)


def _rows(pairs: CandidatePairs) -> set[int]:
    return {*pairs.first.tolist(), *pairs.second.tolist()}


def _most_similar_first(member: Member) -> tuple[float, str]:
    return -member.similarity, member.photo.path
