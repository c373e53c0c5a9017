"""All that answers requests: made once for a server, and closed when it ends."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from vggsearch.defaults import SERVE
from vggsearch.errors import VggsearchError
from vggsearch.image_index import ImageIndex, decoders_of
from vggsearch.photos.decoder_pool import default_workers
from vggsearch.serve.guard import Access
from vggsearch.serve.jobs import Jobs
from vggsearch.serve.library import Library
from vggsearch.serve.maps import Maps
from vggsearch.serve.metrics import Metrics
from vggsearch.serve.originals import Originals
from vggsearch.serve.queries import Queries
from vggsearch.serve.removals import Removals
from vggsearch.serve.reports import Reports
from vggsearch.serve.reveal import FileManager
from vggsearch.serve.search import Searches
from vggsearch.serve.thumbnails import PictureCache

Made = TypeVar("Made")

log = logging.getLogger(__name__)


class Service:
    """The indexes that are served, and what works on them.

    `move_to` is the only folder that duplicates may be moved to, and `file_manager` shows where photos lie; there
    may be none of either.
    """

    def __init__(
        self,
        indexes: Sequence[ImageIndex],
        access: Access,
        move_to: Path | None = None,
        file_manager: FileManager | None = None,
    ) -> None:
        self.access, self.metrics, self.file_manager = access, Metrics(), file_manager
        self.library = Library(indexes)
        self.jobs = Jobs()
        self.searches = Searches(indexes)
        self.queries = Queries(self.library)
        self.reports = Reports(self.library, self.jobs, can_start=access.can_change)
        self.maps = Maps(self.library, self.jobs)
        self.removals = Removals(self.library, self.reports, self.jobs, move_to)
        self.originals = Originals(self.library)
        self.pictures = PictureCache(SERVE.thumbnail_bytes)
        self.comparing = ThreadPoolExecutor(1, thread_name_prefix="compare")  # each takes all CPUs
        self.decoding = ThreadPoolExecutor(default_workers(), thread_name_prefix="picture")

    def warm_up(self) -> None:
        """Load the network and start the decoder processes, so that the first search does not wait for them.

        Where visitors may not have duplicates searched for, they are now.
        """
        if not self.access.can_change:
            self.reports.prepare()
        Thread(target=self._load, name="warm up", daemon=True).start()

    def _load(self) -> None:
        first = self.library.indexes[0]
        try:
            decoders_of(first)
            self.library.photos()
            _ = first.engine
        except VggsearchError as error:  # each search will say so, too
            log.warning("%s", error)

    def close(self) -> None:
        """End all work: what has begun is finished or stopped in good order."""
        self.searches.close()
        self.jobs.close()
        self.comparing.shutdown(cancel_futures=True)
        self.decoding.shutdown(cancel_futures=True)
        self.library.close()
        self.pictures.close()


async def service_of(request: Request) -> Service:  # async, since FastAPI runs others in a thread
    """Return the service that answers a request."""
    service = request.app.state.service
    assert isinstance(service, Service)  # noqa: S101 - see app.py
    return service


async def in_pool(pool: Executor | None, work: Callable[[], Made]) -> Made:
    """Return what a function returns that blocks, run in a pool of threads; None is that of the event loop."""
    return await asyncio.get_running_loop().run_in_executor(pool, work)


Served = Annotated[Service, Depends(service_of)]
