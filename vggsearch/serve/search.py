"""Searches of many clients at once: those that embeddings alone decide go through the network together."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread

from vggsearch.defaults import SEARCH, SERVE
from vggsearch.image_index import ImageIndex
from vggsearch.photos.inputs import Box, ImageLike
from vggsearch.query.options import Answer, QueryOptions
from vggsearch.serve.answers import busy


@dataclass(frozen=True)
class Wish:
    """The options of a search, those of ImageIndex.query_many; equal ones can go together."""

    count: int | None = None
    min_similarity: float | None = None
    rerank: bool = True
    crop: Box | None = None
    containing: bool = False
    filters: tuple[str, ...] = ()
    exclude_same_folder: bool = False
    minus: tuple[ImageLike, ...] = field(default=(), hash=False)

    def options(self) -> QueryOptions:
        """Return them parsed. Raises OptionError."""
        return QueryOptions.of(
            self.count,
            self.min_similarity,
            self.rerank,
            self.crop,
            self.containing,
            self.filters,
            self.exclude_same_folder,
            self.minus,
        )


@dataclass(frozen=True, eq=False)
class _Search:
    images: tuple[ImageLike, ...]
    wish: Wish
    is_plain: bool
    answer: "Future[Answer]" = field(default_factory=Future)


class Searches:
    """A bounded queue of searches, and the threads that do them, in order."""

    def __init__(self, indexes: Sequence[ImageIndex]) -> None:
        self._first, self._others = indexes[0], indexes[1:]
        self._changed = Condition()
        self._waiting: deque[_Search] = deque()
        self._is_open = True
        self.done = self.batches = 0  # searches, and batches of them that went through the network together
        self._threads = [Thread(target=self._work, name=f"search {at}") for at in range(SERVE.searchers)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Finish the searches that have begun; the others fail."""
        with self._changed:
            self._is_open = False
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for search in left:
            if search.answer.set_running_or_notify_cancel():
                search.answer.set_exception(busy("The server is being stopped."))
        for thread in self._threads:
            thread.join()

    @property
    def waiting(self) -> int:
        """The number of searches that no thread has begun."""
        return len(self._waiting)

    def submit(self, images: Sequence[ImageLike], wish: Wish) -> "Future[Answer]":
        """Queue a search. Raises OptionError for its options, and Problem if too many wait."""
        search = _Search(tuple(images), wish, wish.options().is_plain)
        with self._changed:
            if not self._is_open or len(self._waiting) >= SERVE.waiting:
                raise busy("Too many searches are waiting. Try again in a moment.")
            self._waiting.append(search)
            self._changed.notify_all()
        return search.answer

    def _work(self) -> None:
        while batch := self._next():
            running = [search for search in batch if search.answer.set_running_or_notify_cancel()]
            if running:
                self._answer(running)
                with self._changed:
                    self.batches += 1
                    self.done += len(running)

    def _next(self) -> list[_Search]:
        """Wait for searches that can go together; none once it is closed."""
        with self._changed:
            while not self._waiting:
                if not self._is_open:
                    return []
                self._changed.wait()
            first = self._waiting.popleft()
            if not first.is_plain:
                return [first]
            self._wait_for_others()
            return [first, *self._take_like(first)]

    def _wait_for_others(self) -> None:
        end = time.monotonic() + SERVE.batch_seconds
        while self._is_open and len(self._waiting) < SEARCH.at_once:
            left = end - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                break

    def _take_like(self, first: _Search) -> list[_Search]:
        """Take the searches with the same options off the queue, in order; the others stay where they are."""
        taken, left = list[_Search](), deque[_Search]()
        for search in self._waiting:
            is_like = search.is_plain and search.wish == first.wish and len(taken) < SEARCH.at_once - 1
            (taken if is_like else left).append(search)
        self._waiting = left
        return taken

    def _answer(self, batch: Sequence[_Search]) -> None:
        wish = batch[0].wish
        try:
            answers = self._first.query_many(
                (
                    search.images for search in batch
                ),  # whose number is unknown: the network for many, already loaded
                wish.count,
                min_similarity=wish.min_similarity,
                rerank=wish.rerank,
                crop=wish.crop,
                containing=wish.containing,
                filters=wish.filters,
                exclude_same_folder=wish.exclude_same_folder,
                minus=wish.minus,
                also_in=self._others,
            )
            for search, answer in zip(batch, answers, strict=True):
                search.answer.set_result(answer)
        except Exception as error:  # noqa: BLE001 - whoever waits for the answer raises it
            for search in batch:
                if not search.answer.done():
                    search.answer.set_exception(error)
