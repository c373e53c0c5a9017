"""Disks that a test may fill or lose."""

import os
import subprocess

import pytest

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def mount(*words: str) -> None:
    """Mount something, or skip the test where that is not possible."""
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
