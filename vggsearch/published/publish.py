"""Publish an index: make a table in a database equal to it, by what changed since the last time."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vggsearch.errors import AGAIN, PublishError, SpecMismatch, Stopped, option
from vggsearch.progress import Monitor
from vggsearch.published.rows import photos_of
from vggsearch.published.state import PublishedPart, State
from vggsearch.published.table import Table, Writer
from vggsearch.query.snapshot import Snapshot
from vggsearch.store.manifest import Part

MOST_LOST = 0.5  # of the published photos; more are hardly those of another state of the same index

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishReport:
    """What `publish` did: how many photos were `added` or replaced, and `removed`.

    `place` is the URL without what is secret in it. `is_new` is whether all vectors were written to a new table.

    >>> report = index.publish("postgresql://localhost/photos")  # doctest: +SKIP
    >>> report.photos, report.added  # doctest: +SKIP
    (4, 4)
    """

    place: str
    photos: int
    added: int
    removed: int
    is_new: bool
    seconds: float


def publish(state: Snapshot, table: Table, monitor: Monitor, *, replace: bool) -> PublishReport:
    """Make the photos at `table` those of an index, in one step that readers see.

    Raises SpecMismatch if embeddings of another spec are published there, and PublishError if most of the photos
    there are not in the index, unless `replace`.
    """
    started = time.monotonic()
    now = state_of(state)
    with _unchanged_if_stopped(table), table.writing() as writer:
        before = State.of(writer.record, table.shown, with_parts=True) if writer.record is not None else None
        if before is not None and before.spec != now.spec and not replace:
            raise SpecMismatch(
                f"{table.shown} holds embeddings of {before.spec}, the index of {now.spec}. Publish to another "
                "name, or replace what is there: ",
                option("replace"),
                ".",
            )
        work = _Work(state, now, writer, monitor, table.shown, replace)
        done = work.changes(before) if before is not None and before.is_on_one_scale_with(now) else None
        added, removed = done if done is not None else work.everything(before)
    return PublishReport(table.shown, now.rows, added, removed, done is None, time.monotonic() - started)


@contextmanager
def _unchanged_if_stopped(table: Table) -> Iterator[None]:
    try:
        yield
    except Stopped as stopped:
        raise Stopped(f"Stopped early; {table.shown} is as it was. ", AGAIN) from stopped


def state_of(state: Snapshot) -> State:
    """Return what is to be published of an index."""
    store, whitening = state.store, state.query_searcher.index.whitening
    parts = {}
    for part in store.manifest.parts:
        live = np.zeros(part.rows, bool)
        live[store.live_rows(part)] = True
        parts[part.name] = PublishedPart(part.sha256, live)
    dim = whitening.dim if whitening is not None else store.spec.dim
    return State(store.spec, whitening, store.manifest.fingerprint, len(store), dim, parts)


@dataclass
class _Work:
    """One publish of the state `now`."""

    state: Snapshot
    now: State
    writer: Writer
    monitor: Monitor
    place: str
    replace: bool
    done: int = 0

    def everything(self, before: State | None) -> tuple[int, int]:
        """Write all photos to a new table; return how many were added and removed."""
        self.writer.begin(self.now.dim)
        self.writer.add(self._photos(list(self.now.parts)))
        lost = self.writer.lost()
        self._check_lost(lost, before)
        self._commit()
        return self.now.rows, lost

    def changes(self, before: State) -> tuple[int, int] | None:
        """Add and remove what changed; return how many. None if the table is not as it was published."""
        if before.fingerprint == self.now.fingerprint and self.writer.count() == self.now.rows:
            return 0, 0
        kept, renewed = _compared(before, self.now)
        removed = sum(self._remove_dead(before, name) for name in kept)
        added = self.writer.add(self._photos(renewed))
        if self.writer.count() != self.now.rows:  # of parts that were merged, since some photos were removed, too
            gone = self.writer.keep_only(self._paths())
            self._check_lost(gone, before)
            removed += gone
        if self.writer.count() != self.now.rows:
            log.warning("%s was changed by another program: all photos are published again.", self.place)
            return None
        self._commit()
        return added, removed

    def _commit(self) -> None:
        self.monitor.step("building the index there", self.now.rows, self.now.rows)
        self.writer.commit(self.now)

    def _remove_dead(self, before: State, name: str) -> int:
        """Remove the photos of a part whose rows died since."""
        died = before.parts[name].live & ~self.now.parts[name].live
        if not died.any():
            return 0
        paths = self.state.store.columns_of(self._part(name), ["path"]).column("path")
        return self.writer.remove(paths.take(pa.array(np.flatnonzero(died))).to_pylist())

    def _part(self, name: str) -> Part:
        return next(part for part in self.state.store.manifest.parts if part.name == name)

    def _photos(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the live photos of parts, in blocks."""
        wanted, start = set(names), 0
        total = sum(int(self.now.parts[name].live.sum()) for name in wanted)
        for part in self.state.store.manifest.parts:
            if part.name in wanted:
                for block in photos_of(self.state, part, start, self.now.dim):
                    self.monitor.step("publishing", self.done, total)
                    yield block
                    self.done += len(block)
            start += int(self.now.parts[part.name].live.sum())

    def _paths(self) -> Iterator[list[str]]:
        """Yield the paths of all live photos, part by part."""
        return (self.state.store.column(part, "path") for part in self.state.store.manifest.parts)

    def _check_lost(self, lost: int, before: State | None) -> None:
        if before is None or self.replace or lost <= MOST_LOST * before.rows:
            return
        raise PublishError(
            f"{lost:,} of the {before.rows:,} photos in {self.place} are not in the index: is it another one? "
            "Nothing was changed there. Publish to another name, or replace what is there: ",
            option("replace"),
            ".",
        )


def _compared(before: State, now: State) -> tuple[list[str], list[str]]:
    """Return the parts of which at most rows died, and those that are new or have other rows."""
    kept = [
        name
        for name, part in now.parts.items()
        if (old := before.parts.get(name)) is not None
        and old.sha256 == part.sha256
        and len(old.live) == len(part.live)
        and not (part.live & ~old.live).any()
    ]
    return kept, [name for name in now.parts if name not in kept]
