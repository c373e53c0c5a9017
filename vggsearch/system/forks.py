"""Detect a process that was forked after libraries had started threads, for which it would wait for ever."""

import os

from vggsearch.errors import ForkError


class NativeThreads:
    """Whether libraries have started threads in this process, or had in the process that it was forked from.

    FAISS and PyTorch keep the threads of OpenMP, and OpenVINO its own. A fork copies none of them, nor does it
    release the locks that they hold.
    """

    def __init__(self) -> None:
        self._are_started = self._are_lost = False
        if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
            os.register_at_fork(after_in_child=self._lose)

    def start(self) -> None:
        """Note that a library is about to start threads. Raises ForkError."""
        self.check()
        self._are_started = True

    def check(self) -> None:
        """Raise ForkError if threads had been started before this process was forked."""
        if self._are_lost:
            raise ForkError

    def _lose(self) -> None:
        self._are_lost = self._are_lost or self._are_started


native_threads = NativeThreads()
