"""Make what may stand in place of a photo: a pipe, a link, a folder, a device, a file of a terabyte."""

import os
import stat
from pathlib import Path

import pytest

from tests.fakes import save_photo
from tests.helpers.disks import IS_ROOT


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link_out(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_device(path: Path) -> None:
    if not IS_ROOT:
        pytest.skip("only root may make a device")
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero


def make_terabyte(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def make_photo_of_a_terabyte(path: Path) -> None:
    save_photo(path, 1)
    os.truncate(path, 1 << 40)
