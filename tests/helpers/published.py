"""An index of many pictures that are made, not read: to be published, and to be compared with what is published."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.fakes import FAKE_SPEC, FakeEngine
from vggsearch.indexing.build import build_vector_index
from vggsearch.photos.capture import Capture
from vggsearch.photos.perceptual_hash import perceptual_hash
from vggsearch.photos.walk import PhotoFile
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

FILTERS = (
    "2001/**",
    "folder:2002",
    "folder:Été",
    "*.JPG",
    "img_1?.jpg",
    "[!0-9]*/**",
    "2003/**/*[+-9].jpg",
    "*%s '; drop*/**",
    'path:odd " {} ? %s */*',
    "size:1000..2000",
    "size:..999",
    "taken:2001-02..2002",
    "taken:..2001",
    "taken:2002..",
    "orientation:portrait",
    "orientation:square",
)
FOLDERS = ("2001", "2002/may", "2003/a/b", "Été", "odd \" {} \\ %s '; DROP TABLE x")


def view(seed: int) -> NDArray[np.uint8]:
    """Return a picture as the network sees it; every tenth is a copy of the one before."""
    colours = np.random.default_rng(seed - (seed % 10 == 9)).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.repeat(np.repeat(colours, FAKE_SPEC.size // 4, axis=0), FAKE_SPEC.size // 4, axis=1)


def path_of(seed: int) -> str:
    return f"{FOLDERS[seed % len(FOLDERS)]}/IMG_{seed}.jpg"


@cache
def photo(seed: int, path: str | None = None) -> Embedded:
    """Return a photo of the picture of this seed, with all that filters ask for."""
    square = view(seed)
    taken = datetime(2001, 1, 1) + timedelta(days=seed % 900) if seed % 7 else None
    return Embedded(
        PhotoFile(path or path_of(seed), 1000 + seed, seed),
        f"{seed - (seed % 10 == 9):064x}",
        400 + seed,
        700,
        "JPEG",
        Capture(taken, "second", "EOS") if taken else Capture(),
        seed % 50 == 3,
        perceptual_hash(square),
        FakeEngine().embed(square[None])[0],
        EngineInfo("fake", "fp32"),
    )


def change(
    directory: Path, added: Sequence[Embedded], removed: Sequence[str] = (), *, compact: bool = False
) -> None:
    """Commit one part, and build the vector index, as an update does."""
    if not directory.exists():
        Store.create(directory, FAKE_SPEC)
    store = Store.open(directory)
    with writing(store) as writer:
        writer.commit(added, removed)
        build_vector_index(store, writer)
        if compact:
            writer.compact()
