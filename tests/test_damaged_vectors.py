"""A changed byte of the vector index or of local features is noticed before it makes an answer wrong."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import FakeEngine, picture
from vggsearch.defaults import BUILD
from vggsearch.errors import IndexDamaged
from vggsearch.image_index import ImageIndex
from vggsearch.knn.vector_index import VectorIndex
from vggsearch.store.store import Store


def flip(path: Path, at: int, mask: int = 0x40) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= mask
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["index.faiss", "vectors.npy"])
@pytest.mark.parametrize("at", [40, -1, -2000])
def test_a_query_does_without_a_damaged_vector_index_and_an_update_rebuilds_it(
    index: ImageIndex, name: str, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    expected = index.query(picture(2), rerank=False).matches
    [path] = (index.directory / "search").glob(f"*/{name}")
    flip(path, at)
    with ImageIndex.open(index.directory, engine=FakeEngine()) as opened, caplog.at_level(logging.WARNING):
        assert opened.query(picture(2), rerank=False).matches == expected
        assert f"{name} has sha256" in caplog.text
        caplog.clear()
        opened.update()
        assert opened.query(picture(2), rerank=False).matches == expected
    assert "queries search the embeddings" not in caplog.text


def test_large_files_are_not_hashed_when_they_are_opened(
    index: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.store.store.BUILD", replace(BUILD, hashed_bytes=1))
    [path] = (index.directory / "search").glob("*/vectors.npy")
    flip(path, -1)
    with ImageIndex.open(index.directory, engine=FakeEngine()) as opened:
        assert opened.query(picture(2), rerank=False).matches
        assert not opened.verify().is_whole


@pytest.mark.parametrize("slot", [6, -1, 2**40])
def test_slots_beyond_the_vectors_are_damage(index: ImageIndex, slot: int) -> None:
    [folder] = (index.directory / "search").iterdir()
    slots = np.arange(6)
    slots[2] = slot
    np.save(folder / "slots.npy", slots)
    with pytest.raises(IndexDamaged):
        VectorIndex.open(folder, 6, index.spec.dim)


@pytest.mark.parametrize("name", ["keys.npy", "cells.npy", "regions.npy"])
def test_damaged_local_features_are_not_used(
    index: ImageIndex, photos: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    index.update(photos, local_features=False)
    expected = index.query(picture(2)).matches  # from the photos
    index.update(photos, local_features=True)
    [path] = (index.directory / "local").glob(f"*/{name}")
    flip(path, -1, 0xC0)
    with pytest.raises(IndexDamaged, match=name):
        list(Store.open(index.directory).local().regions() if name != "cells.npy" else read_all(index.directory))
    if name != "regions.npy":
        with ImageIndex.open(index.directory, engine=FakeEngine()) as opened, caplog.at_level(logging.WARNING):
            assert opened.query(picture(2)).matches == expected
        assert name in caplog.text


def read_all(directory: Path) -> list[object]:
    store = Store.open(directory)
    return list(store.local().find(store.array("sha256").tolist()))
