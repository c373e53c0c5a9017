"""All that answers requests: made once for a server, and closed when it ends."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from vggsearch.defaults import SERVE
from vggsearch.errors import VggsearchError
from vggsearch.image_index import ImageIndex
from vggsearch.photos.decoder_pool import default_workers
from vggsearch.serve.answers import Problem
from vggsearch.serve.guard import Access
from vggsearch.serve.jobs import Jobs
from vggsearch.serve.library import IndexLibrary, Library
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

ONLY_PUBLISHED = (
    "This server searches what is published. Duplicates, comparisons, the map and changes need the index and its "
    "photos: vggsearch serve --index DIRECTORY."
)
log = logging.getLogger(__name__)


class Service:
    """Photos that are searched and looked at, and what works on them: all that needs no index."""

    file_manager: FileManager | None = None
    actions: Sequence[str] = ()
    unfinished_jobs = 0

    def __init__(self, library: Library, access: Access) -> None:
        self.access, self.metrics, self.library = access, Metrics(), library
        self.searches = Searches(library.answers)
        self.queries = Queries(library)
        self.originals = Originals(library)
        self.pictures = PictureCache(SERVE.thumbnail_bytes)
        self.decoding = ThreadPoolExecutor(default_workers(), thread_name_prefix="picture")

    def warm_up(self) -> None:
        """Load the network and start the decoder processes, so that the first search does not wait for them."""
        Thread(target=self._load, name="warm up", daemon=True).start()

    def _load(self) -> None:
        try:
            self.library.warm_up()
        except (VggsearchError, Problem) as error:  # each search will say so, too
            log.warning("%s", error)

    def stop_jobs(self) -> None:
        """Ask all jobs to end early."""

    def close(self) -> None:
        """End all work: what has begun is finished or stopped in good order."""
        self.searches.close()
        self.decoding.shutdown(cancel_futures=True)
        self.library.close()
        self.pictures.close()


class IndexService(Service):
    """The indexes that are served, and what works on them.

    `move_to` is the only folder that duplicates may be moved to, and `file_manager` shows where photos lie; there
    may be none of either.
    """

    library: IndexLibrary

    def __init__(
        self,
        indexes: Sequence[ImageIndex],
        access: Access,
        move_to: Path | None = None,
        file_manager: FileManager | None = None,
    ) -> None:
        library = IndexLibrary(indexes)
        super().__init__(library, access)
        self.file_manager = file_manager
        self.jobs = Jobs()
        self.reports = Reports(library, self.jobs, can_start=access.can_change)
        self.maps = Maps(library, self.jobs)
        self.removals = Removals(library, self.reports, self.jobs, move_to)
        self.actions = self.removals.actions
        self.comparing = ThreadPoolExecutor(1, thread_name_prefix="compare")  # each takes all CPUs

    @property
    def unfinished_jobs(self) -> int:  # type: ignore[override] # read only
        """The number of jobs that have not ended."""
        return self.jobs.running

    def warm_up(self) -> None:
        """Do the same as Service. Where visitors may not have duplicates searched for, they are now."""
        if not self.access.can_change:
            self.reports.prepare()
        super().warm_up()

    def stop_jobs(self) -> None:
        """Ask all jobs to end early."""
        self.jobs.stop_all()

    def close(self) -> None:
        """End all work: what has begun is finished or stopped in good order."""
        self.jobs.close()
        self.comparing.shutdown(cancel_futures=True)
        super().close()


async def service_of(request: Request) -> Service:  # async, since FastAPI runs others in a thread
    """Return the service that answers a request."""
    service = request.app.state.service
    assert isinstance(service, Service)  # noqa: S101 - see app.py
    return service


async def indexes_of(request: Request) -> IndexService:
    """Return the service of indexes that answers a request. Raises Problem if what is published is served."""
    service = await service_of(request)
    if not isinstance(service, IndexService):
        raise Problem(HTTPStatus.FORBIDDEN, ONLY_PUBLISHED)
    return service


async def in_pool(pool: Executor | None, work: Callable[[], Made]) -> Made:
    """Return what a function returns that blocks, run in a pool of threads; None is that of the event loop."""
    return await asyncio.get_running_loop().run_in_executor(pool, work)


Served = Annotated[Service, Depends(service_of)]
ServedIndexes = Annotated[IndexService, Depends(indexes_of)]
