"""Searches of many clients at once: those that embeddings alone decide go through the network together."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread

from vggsearch.defaults import SEARCH, SERVE
from vggsearch.photos.inputs import ImageLike
from vggsearch.query.options import Answer, Images, QueryOptions
from vggsearch.serve.answers import busy


@dataclass(frozen=True, eq=False)
class _Search:
    images: tuple[ImageLike, ...]
    options: QueryOptions
    answer: "Future[Answer]" = field(default_factory=Future)

    def is_like(self, other: "_Search") -> bool:
        """Whether it can go through the network together with another one."""
        return self.options.is_plain and self.options == other.options


class Searches:
    """A bounded queue of searches, and the threads that do them, in order.

    `run` yields the answer to each of several queries with the same options.
    """

    def __init__(self, run: Callable[[Iterable[Images], QueryOptions], Iterator[Answer]]) -> None:
        self._run = run
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

    def submit(self, images: Sequence[ImageLike], options: QueryOptions) -> "Future[Answer]":
        """Queue a search. Raises Problem if too many wait."""
        search = _Search(tuple(images), options)
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
                with self._changed:  # before a client learns of it
                    self.batches += 1
                    self.done += len(running)
                self._answer(running)

    def _next(self) -> list[_Search]:
        """Wait for searches that can go together; none once it is closed."""
        with self._changed:
            while not self._waiting:
                if not self._is_open:
                    return []
                self._changed.wait()
            first = self._waiting.popleft()
            if not first.options.is_plain:
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
            is_taken = len(taken) < SEARCH.at_once - 1 and search.is_like(first)
            (taken if is_taken else left).append(search)
        self._waiting = left
        return taken

    def _answer(self, batch: Sequence[_Search]) -> None:
        try:
            queries = (search.images for search in batch)
            answers = self._run(queries, batch[0].options)
            for search, answer in zip(batch, answers, strict=True):
                search.answer.set_result(answer)
        except Exception as error:  # noqa: BLE001 - whoever waits for the answer raises it
            for search in batch:
                if not search.answer.done():
                    search.answer.set_exception(error)
