"""Whatever is done to a folder, and wherever an update is broken off: the index is what a dictionary would be."""

import os
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from numpy.typing import NDArray

from tests.fakes import FakeEngine, picture, save_photo
from tests.helpers.examples import examples
from tests.make_golden_index import SMALL_SPEC
from vggsearch.image_index import ImageIndex
from vggsearch.photos.decode import decode
from vggsearch.photos.resize import square
from vggsearch.store.store import Store

PATHS = st.sampled_from(["a.png", "b.png", "c/a.png", "c/d.png", "c/ü\n.png", "e/f/g.png"])
SEEDS = st.integers(0, 3)
BROKEN = -1
SIZE = (48, 36)


class Killed(BaseException):
    """No handler of errors stops it, as none would run in a process that is killed."""


class AnyHistory(RuleBasedStateMachine):
    expected: ClassVar[dict[int, NDArray[np.float16]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.photos, self.directory = self.folder / "photos", self.folder / "index"
        self.photos.mkdir()
        Store.create(self.directory, SMALL_SPEC)
        self.model: dict[str, int] = {}  # what is in the folder: the seed of its picture
        self.held: defaultdict[str, set[int]] = defaultdict(set)  # all that was ever there
        self.clock = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def embedding(self, seed: int) -> NDArray[np.float16]:
        if seed not in self.expected:
            path = save_photo(self.folder / f"{seed}.png", seed, SIZE)
            with path.open("rb") as file:
                pixels = square(decode(file).image, SMALL_SPEC.size, SMALL_SPEC.resize)
            self.expected[seed] = FakeEngine(SMALL_SPEC.dim).embed(pixels[None])[0].astype(np.float16)
        return self.expected[seed]

    def is_now(self, path: str, seed: int) -> None:
        self.model[path] = seed
        self.held[path].add(seed)

    def tick(self, path: str) -> None:
        """Give a file an age of its own: a change within one tick of the clock is no change to anybody."""
        self.clock += 1
        os.utime(self.photos / path, ns=(self.clock, self.clock))

    @rule(path=PATHS, seed=SEEDS)
    def save(self, path: str, seed: int) -> None:
        save_photo(self.photos / path, seed, SIZE)
        self.tick(path)
        self.is_now(path, seed)

    @rule(path=PATHS)
    def spoil(self, path: str) -> None:
        (self.photos / path).parent.mkdir(parents=True, exist_ok=True)
        (self.photos / path).write_bytes(b"\x89PNG\r\n\x1a\n")
        self.tick(path)
        self.is_now(path, BROKEN)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), to=PATHS)
    def rename(self, data: st.DataObject, to: str) -> None:
        path = data.draw(st.sampled_from(sorted(self.model)))
        (self.photos / to).parent.mkdir(parents=True, exist_ok=True)
        (self.photos / path).replace(self.photos / to)
        self.is_now(to, self.model.pop(path))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), to=PATHS)
    def copy(self, data: st.DataObject, to: str) -> None:
        path = data.draw(st.sampled_from(sorted(self.model)))
        if path != to:
            (self.photos / to).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.photos / path, self.photos / to)
            self.tick(to)
            self.is_now(to, self.model[path])

    @precondition(lambda self: self.model)
    @rule(data=st.data(), delete=st.booleans())
    def touch_or_delete(self, data: st.DataObject, delete: bool) -> None:
        path = data.draw(st.sampled_from(sorted(self.model)))
        if delete:
            (self.photos / path).unlink()
            del self.model[path]
        else:
            self.tick(path)

    @rule(compact=st.booleans(), asked=SEEDS)
    def update(self, compact: bool, asked: int) -> None:
        with ImageIndex.open(self.directory, engine=FakeEngine(SMALL_SPEC.dim, batch_size=2)) as index:
            report = index.update(self.photos, allow_empty=True, compact=compact)
            good = {path: seed for path, seed in self.model.items() if seed != BROKEN}
            assert report.photos == len(good)
            rows = self.rows(index)
            assert set(rows) == set(good)
            for path, seed in good.items():
                assert (rows[path] == self.embedding(seed)).all(), path
                assert index.query(self.photos / path, 1).matches[0].path == path
                assert index.query(self.photos / path, 1).matches[0].similarity == 1.0
            assert {one.path for one in index.skipped()} == set(self.model) - set(good)
            found = {match.path for match in index.query(picture(asked, SIZE), 100).matches}
            assert found == set(good)
            assert index.verify().is_whole

    @rule(after=st.integers(0, 25), compact=st.booleans())
    def update_that_is_killed(self, after: int, compact: bool) -> None:
        left = after

        def one_less(call: str) -> None:
            real = getattr(os, call)

            def counted(*words: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                return real(*words)

            killing.setattr(os, call, counted)

        with pytest.MonkeyPatch.context() as killing:
            for call in ("replace", "fsync"):
                one_less(call)
            try:
                with ImageIndex.open(self.directory, engine=FakeEngine(SMALL_SPEC.dim, batch_size=2)) as index:
                    index.update(self.photos, allow_empty=True, compact=compact)
            except Killed:
                pass
        with ImageIndex.open(self.directory, engine=FakeEngine(SMALL_SPEC.dim)) as index:
            assert index.verify().is_whole
            for path, embedding in self.rows(index).items():
                ever = [self.embedding(seed) for seed in self.held[path] if seed != BROKEN]
                assert any((embedding == one).all() for one in ever), path

    def rows(self, index: ImageIndex) -> dict[str, NDArray[np.float16]]:
        embeddings = [row for block in Store.open(index.directory).embeddings() for row in block]
        paths = index.paths()
        assert len(set(paths)) == len(paths)
        return dict(zip(paths, embeddings, strict=True))


AnyHistory.TestCase.settings = settings(max_examples=examples(25), stateful_step_count=25)
TestAnyHistory = AnyHistory.TestCase
