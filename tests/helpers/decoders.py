"""Decoding in this process, for tests that are not about decoder processes."""

from vggsearch.photos.decoder_process import Request, Response, response_of
from vggsearch.photos.decoder_worker import answer
from vggsearch.photos.shared_pixels import SharedPixels, open_shared


class InProcessDecoder:
    """Stands in for a decoder process: starting one for each of thousands of calls costs minutes of CPU time."""

    def __init__(self) -> None:
        self._shared = SharedPixels()
        self._memory = open_shared(self._shared.name)

    def start(self) -> None:
        pass

    def end(self) -> None:
        pass

    def close(self) -> None:
        self._shared.close()
        self._memory.close()

    def lower_priority(self, priority: int) -> None:
        pass

    def ask(self, request: Request) -> Response:
        return response_of(answer(request.values, request.data, self._memory), request, self._shared)
