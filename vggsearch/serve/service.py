"""All that answers requests: made once for a server, and closed when it ends."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Annotated

from fastapi import Depends, Request

from vggsearch.defaults import SERVE
from vggsearch.errors import VggsearchError
from vggsearch.image_index import ImageIndex, decoders_of
from vggsearch.matching.recent import Recent
from vggsearch.photos.decoder_pool import Source, default_workers
from vggsearch.serve.guard import Access
from vggsearch.serve.jobs import Jobs
from vggsearch.serve.library import Library, Located
from vggsearch.serve.maps import Maps
from vggsearch.serve.metrics import Metrics
from vggsearch.serve.queries import Queries
from vggsearch.serve.removals import Removals
from vggsearch.serve.reports import Reports
from vggsearch.serve.search import Searches
from vggsearch.serve.thumbnails import PictureCache

log = logging.getLogger(__name__)


class Service:
    """The indexes that are served, and what works on them.

    `move_to` is the only folder that duplicates may be moved to, None for none.
    """

    def __init__(self, indexes: Sequence[ImageIndex], access: Access, move_to: Path | None = None) -> None:
        self.access, self.metrics = access, Metrics()
        self.library = Library(indexes)
        self.jobs = Jobs()
        self.searches = Searches(indexes)
        self.queries = Queries(self.library)
        self.reports = Reports(self.library, self.jobs)
        self.maps = Maps(self.library, self.jobs)
        self.removals = Removals(self.library, self.reports, self.jobs, move_to)
        self._checked = Recent[bool](SERVE.checked_files)
        self.pictures = PictureCache(SERVE.thumbnail_bytes)
        self.comparing = ThreadPoolExecutor(1, thread_name_prefix="compare")  # each takes all CPUs
        self.decoding = ThreadPoolExecutor(default_workers(), thread_name_prefix="picture")

    def check_picture(self, photo: Located, file: Path) -> None:
        """Raise ImageError if the file of a photo is no picture: whatever an index lists, nothing else is sent."""
        status = file.stat()
        key = file, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        if not self._checked.get(key):
            self.library.decoders().size(Source(photo.path, photo.root))
            self._checked.put(key, True)

    def warm_up(self) -> None:
        """Load the network and start the decoder processes, so that the first search does not wait for them."""
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


Served = Annotated[Service, Depends(service_of)]
