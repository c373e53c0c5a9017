"""Compiled networks on disk: a query reads one instead of loading the weights, quantising and compiling them.

The name of a file is a hash of all that the network depends on: code and defaults, OpenVINO, the processor and how
it computes int8, the spec with the hash of its weights. The file is a checksum and what OpenVINO exports. It is in
the user's cache folder, never in an index: OpenVINO runs what it holds, and an index may come from somebody else.
"""

import hashlib
import io
import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import openvino

from vggsearch import defaults
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.system import places

SUFFIX = ".network"
MOST = 6  # files, of 10 to 16 MB with the packaged weights; the one that was written first goes first
MOST_BYTES = 64 << 20  # of a file: those of fc6 and fc7 take 500 MB and are compiled each time
HASH_BYTES = 32


class CompiledNetworks:
    """The compiled networks of one spec, in one number format, for the processor of this machine.

    `largest_weight` is that of int8, None in other formats. It depends on instructions that OpenVINO does not name.
    """

    def __init__(
        self, core: openvino.Core, device: str, spec: EmbeddingSpec, precision: str, largest_weight: int | None
    ) -> None:
        self._core, self._device = core, device
        folder, code = places.cache_folder(), code_hash()
        self._folder = folder / "networks" if folder is not None and code is not None else None
        processor = [core.get_property(device, name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
        self._facts = [code, openvino.get_version(), processor, asdict(spec), precision, largest_weight]

    def find(self, kind: str, settings: dict[str, Any]) -> openvino.CompiledModel | None:
        """Return the compiled network of a kind, None if it is not there, or not as it was written."""
        if self._folder is None:
            return None
        try:
            content = _read_own(self._path(self._folder, kind))
        except OSError:
            return None
        if hashlib.sha256(memoryview(content)[HASH_BYTES:]).digest() != content[:HASH_BYTES]:
            return None
        with suppress(RuntimeError):  # of another build of OpenVINO
            return self._core.import_model(content[HASH_BYTES:], self._device, settings)
        return None

    def keep(self, kind: str, network: openvino.CompiledModel) -> None:
        """Write a compiled network, unless it is large or the folder cannot be written."""
        if self._folder is None:
            return
        with suppress(OSError, RuntimeError):
            exported: io.BytesIO = network.export_model()
            content = exported.getvalue()
            if len(content) <= MOST_BYTES:
                _write(self._path(self._folder, kind), hashlib.sha256(content).digest() + content)
                _drop_oldest(self._folder)

    def _path(self, folder: Path, kind: str) -> Path:
        facts = json.dumps([kind, *self._facts], sort_keys=True)
        return folder / (hashlib.sha256(facts.encode()).hexdigest() + SUFFIX)


def code_files() -> list[Path]:
    """Return the files whose code and numbers a network depends on."""
    package = Path(__file__).parent
    return sorted([*package.parent.glob("*.py"), *package.glob("*.py"), Path(defaults.__file__)])


@cache
def code_hash() -> str | None:
    """Return a hash of the code that makes networks, None if it cannot be read, as in an archive."""
    sources = code_files()
    try:
        content = b"".join(path.read_bytes() for path in sources)
    except OSError:
        return None
    return hashlib.sha256(content).hexdigest() if sources else None


def _read_own(path: Path) -> bytes:
    """Return the content of a file that no other user can have written. Raises OSError."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        if not is_own or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(path)
        return file.read()


def _write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with unfinished.open("xb") as file:
            unfinished.chmod(0o600)
            file.write(content)
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _drop_oldest(folder: Path) -> None:
    """Remove all but the newest files, those of killed processes included."""
    files = [path for path in folder.iterdir() if SUFFIX in path.name]
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)[:-MOST]:
        path.unlink(missing_ok=True)
