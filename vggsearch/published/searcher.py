"""Search what is published: candidates come from there, similarities and ranks are computed here, exactly."""

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import ALIGN
from vggsearch.errors import OptionError, PublishError, Spelled
from vggsearch.knn.build import build_in_memory
from vggsearch.knn.vector_index import Selection, VectorIndex
from vggsearch.matching.evidence import SAME
from vggsearch.photos.inputs import ImageLike
from vggsearch.photos.perceptual_hash import BYTES, NO_HASH
from vggsearch.published.state import Stamp, State
from vggsearch.published.table import EXACT_ROWS, Found, Table, Wanted
from vggsearch.query.options import QueryOptions
from vggsearch.query.searcher import NONE_COMPARED, SPARE, Match, Searcher, Sought
from vggsearch.query.targets import Target, TargetView

REMEMBERED = 64  # filters whose photos were counted
TOLERANCE = 2e-3  # of a similarity in half precision; candidates are compared exactly afterwards
NO_ROWS = np.empty(0, np.int64)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedPhoto(os.PathLike[str]):
    """A query by a photo that is published: its vector is there, so neither the photo nor the network is needed."""

    path: str

    def __fspath__(self) -> str:
        """Return the path in the index."""
        return self.path


@dataclass(frozen=True, eq=False)
class Seen:
    """What is published now: its stamp, its state, and the whitening as an index without rows."""

    stamp: Stamp
    state: State
    index: VectorIndex


class Published:
    """The state of a table, which is read again when another one is published. Threads share it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._last: Seen | None = None
        self._counts: OrderedDict[tuple[Stamp, Wanted], tuple[int, int]] = OrderedDict()
        self._changing = Lock()

    @property
    def last(self) -> Seen | None:
        """What was published when it was last looked at."""
        return self._last

    def now(self) -> Seen:
        """Return what is published now. Raises PublishError if nothing is."""
        stamp, last = self.table.stamp(), self._last
        if last is not None and last.stamp == stamp:
            return last
        record = self.table.record()
        if record is None:
            raise PublishError(
                f"Nothing is published in {self.table.shown}. Publish an index: ",
                Spelled("index.publish(URL)", "vggsearch publish URL"),
                ".",
            )
        state = State.of(record, self.table.shown)
        self._last = seen = Seen(record.stamp, state, build_in_memory([], 0, state.spec.dim, state.whitening))
        return seen

    def counts(self, seen: Seen, wanted: Wanted) -> tuple[int, int]:
        """Return how many photos are wanted, and how many of them are not blank; counted once."""
        key = seen.stamp, wanted
        with self._changing:
            if key in self._counts:
                return self._counts[key]
        counts = self.table.counts(seen.stamp, wanted)
        if wanted.filters and not counts[0]:
            texts = ", ".join(each.text for each in wanted.filters)
            log.warning("No photo of the %s in %s passes %s.", f"{seen.state.rows:,}", self.table.shown, texts)
        with self._changing:
            self._counts[key] = counts
            while len(self._counts) > REMEMBERED:
                self._counts.popitem(last=False)
        return counts


@dataclass(frozen=True)
class PublishedSearcher(Searcher):
    """Photos that are published, of which only the wanted ones are found. `paths` are not known here."""

    table: Table = field(kw_only=True)
    seen: Seen = field(kw_only=True)
    among: Wanted = field(kw_only=True)
    counts: tuple[int, int] = field(kw_only=True)

    def __len__(self) -> int:
        """Return the number of wanted photos."""
        return self.counts[0]

    def nearest_to_vectors(
        self,
        vectors: NDArray[np.float32],
        count: int | None,
        min_similarity: float | None,
        own_paths: Sequence[str | None],
        wanted: Selection | None,  # noqa: ARG002 - what is wanted is part of the searcher
        sought: Sequence[Sought | None],
    ) -> list[tuple[Match, ...]]:
        """Do the same as Searcher, on the candidates that the table finds."""
        return [
            self._over(self._candidates(vector, count, min_similarity, own_path)).nearest_to_vectors(
                vector[None], count, min_similarity, [own_path], None, [each]
            )[0]
            for vector, own_path, each in zip(vectors, own_paths, sought, strict=True)
        ]

    def itself(self, own_path: str | None, wanted: Selection | None = None) -> tuple[Match, ...]:  # noqa: ARG002
        """Return the match of a blank query with itself, if it is published and wanted."""
        found = self.table.at(self.seen.stamp, own_path, self.among).paths if own_path is not None else ()
        return tuple(Match(path, 1.0, confidence=SAME) for path in found)

    def _candidates(
        self, vector: NDArray[np.float32], count: int | None, min_similarity: float | None, own_path: str | None
    ) -> Found:
        stamp, among = self.seen.stamp, self.among
        if count is None:
            floor = -1.0 if min_similarity is None else min_similarity - TOLERANCE
            return self.table.above(stamp, vector, floor, among)
        least = min(count + SPARE, self.counts[1])
        found = self.table.nearest(stamp, vector, count + SPARE, among, exactly=self.counts[1] <= EXACT_ROWS)
        if len(found.paths) < least:
            found = self.table.nearest(stamp, vector, count + SPARE, among, exactly=True)
        if own_path is None or own_path in found.paths:
            return found
        return _joined(found, self.table.at(stamp, own_path, among))

    def _over(self, found: Found) -> Searcher:
        """Return the searcher over a few photos."""
        dim = self.seen.state.dim
        index = build_in_memory([found.vectors.reshape(-1, dim)], len(found.paths), dim)
        known = b"".join(NO_HASH if each is None else each for each in found.hashes)
        hashes = np.frombuffer(known, np.uint8).reshape(-1, BYTES)
        return Searcher(
            found.paths, index, NO_ROWS, hashes if self.seen.state.rows <= ALIGN.hashed_rows else NONE_COMPARED
        )


@dataclass(frozen=True)
class PublishedTarget(Target):
    """A published index, as queries search it."""

    published: Published

    def path_of(self, image: ImageLike) -> str | None:
        """Return the path of a published photo, or of a file below the photo folder; None for anything else."""
        return image.path if isinstance(image, PublishedPhoto) else super().path_of(image)

    def searcher(self, options: QueryOptions) -> Searcher:
        """Return the searcher for such a query."""
        return self._searcher(Wanted(options.filters))

    def searcher_for(self, images: Sequence[ImageLike], options: QueryOptions) -> PublishedSearcher:
        """Return the searcher for a query of these pictures."""
        return self._searcher(Wanted(options.filters, frozenset(self.folders_without(images, options))))

    def view(self, images: Sequence[ImageLike], options: QueryOptions, reference: Searcher | None) -> TargetView:  # noqa: ARG002
        """Return it as a query of these pictures sees it. Raises OptionError for what is not published."""
        if options.containing:
            raise OptionError("Local features are not published, which this search needs.")
        return self.view_with(self.searcher_for(images, options), self.own_path(images, options))

    def view_with(self, searcher: Searcher, own_path: str | None) -> TargetView:
        """Return it as a query sees it, with the searcher for it."""
        return TargetView(None, self, searcher, None, own_path, np.empty(0, object))

    def similarities_of_regions(self, parts: NDArray[np.float32]) -> dict[str, float]:  # noqa: ARG002
        """Return nothing: local features are not published."""
        return {}

    def _searcher(self, among: Wanted) -> PublishedSearcher:
        seen = self.published.now()
        counts = self.published.counts(seen, among)
        return PublishedSearcher(
            (), seen.index, NO_ROWS, table=self.published.table, seen=seen, among=among, counts=counts
        )


def _joined(one: Found, other: Found) -> Found:
    if not other.paths:
        return one
    return Found(
        [*one.paths, *other.paths], [*one.hashes, *other.hashes], np.concatenate([one.vectors, other.vectors])
    )
