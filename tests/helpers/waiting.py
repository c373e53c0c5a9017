"""Waiting for what another process does, in place of sleeping for as long as it may take."""

import time
from collections.abc import Callable

import pytest

LIMIT_S = 120.0  # on the busiest machine; nothing is said of how fast it is


def wait_until(condition: Callable[[], object]) -> None:
    """Ask again and again, and fail where it is never so."""
    ends = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > ends:
            pytest.fail(f"waited {LIMIT_S:g} s in vain")
        time.sleep(0.005)
