"""One ImageIndex, and one engine, in many threads: the answers of one thread, and everything is loaded once."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes import FakeEngine, save_photo
from vggsearch.evaluation.networks import random_kernels
from vggsearch.image_index import ImageIndex
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.gpu_engine import GpuEngine
from vggsearch.model.openvino_engine.engine import OpenVinoEngine
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec
from vggsearch.model.torch_engine.engine import TorchEngine
from vggsearch.query.options import QueryResult

THREADS = 16
ENGINES: dict[str, Callable[..., Engine]] = {"openvino": OpenVinoEngine, "torch": TorchEngine}

Item = TypeVar("Item")
Result = TypeVar("Result")


def from_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))


@pytest.mark.slow
def test_a_thousand_queries_from_sixteen_threads_are_answered_as_from_one(index: ImageIndex, photos: Path) -> None:
    files = sorted(photos.rglob("*.jpg"))
    filters = ["", "summer/**", "winter/**", "size:1.."]
    queries = [(file, wanted) for file in files for wanted in filters]

    def ask(query: tuple[Path, str]) -> QueryResult:
        return index.query(query[0], count=3, rerank=False, filters=query[1] or ())

    expected = dict(zip(queries, map(ask, queries), strict=True))
    asked = [queries[at % len(queries)] for at in range(1_000)]
    answers = from_threads(ask, asked)
    assert [answer.matches for answer in answers] == [expected[query].matches for query in asked]


def test_queries_beside_updates_never_mix_two_states(index: ImageIndex, photos: Path) -> None:
    asked, extra, is_over = photos / "winter" / "5.jpg", photos / "autumn.jpg", Event()

    def ask(_: int) -> int:
        answered = 0
        while not is_over.is_set() or not answered:
            best = index.query(asked, count=2, rerank=False, filters="winter/**").matches
            assert [match.path for match in best] == ["winter/5.jpg", "winter/4.jpg"]
            assert best[0].similarity == 1.0
            assert len(index.paths()) in (6, 7)
            answered += 1
        return answered

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, at) for at in range(4)]
        try:
            for change in range(12):  # the first path, so that the rows of all others change
                if change % 2:
                    extra.unlink()
                else:
                    save_photo(extra, 50 + change)
                index.update(photos)
        finally:
            is_over.set()
        assert min(each.result() for each in asking) > 0


def test_threads_load_the_network_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(*_: object) -> Engine:
        time.sleep(0.05)  # long enough for the other threads to want it as well
        loaded.append(FakeEngine())
        return loaded[-1]

    monkeypatch.setattr("vggsearch.query.session.load_engine", load)
    with ImageIndex.create(tmp_path / "made") as made:
        from_threads(made.embed, sorted(photos.rglob("*.jpg")))
    assert len(loaded) == 1


def test_threads_load_a_gpu_once() -> None:
    loaded = []

    def load(gpu: int) -> FakeEngine:
        time.sleep(0.05)
        loaded.append(gpu)
        return FakeEngine()

    engine = GpuEngine(load, ["a GPU"], name="torch", precision="fp16", batch_size=8)  # type: ignore[arg-type]
    from_threads(engine.embed, [squares_of(seed, 192) for seed in range(THREADS)])
    assert loaded == [0]


def squares_of(seed: int, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (1, size, size, 3), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ENGINES)
def test_threads_embed_and_describe_as_one_thread_does(backend: str) -> None:
    """With a network that ends before the local features, so that the first call of describe extends it."""
    spec = EmbeddingSpec(
        model="vgg11", layer="pool2", pooling="spoc", sizes=(64,), resize="squash", weights_sha256="0" * 64
    )
    kernels = random_kernels("vgg11", "pool5")

    def load() -> Engine:
        options = EngineOptions(engine=backend, device="cpu", precision="fp32")
        return ENGINES[backend](spec, kernels, options, load_kernels=lambda: kernels)

    def values(engine: Engine, seed: int) -> list[NDArray[np.float32]]:
        squares = squares_of(seed // 2, spec.size)
        if seed % 2:
            return [engine.embed(squares)]
        described = engine.describe(squares)
        return [described.embeddings, *described.levels]

    one, shared = load(), load()
    expected = [values(one, seed) for seed in range(4 * THREADS)]
    found = from_threads(lambda seed: values(shared, seed), range(4 * THREADS))
    for ours, theirs in zip(found, expected, strict=True):
        for one_array, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one_array, other, atol=1e-5)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("backend", ENGINES)
def test_the_real_network_answers_sixteen_threads_as_one(photos: Path, tmp_path: Path, backend: str) -> None:
    options = EngineOptions(engine=backend, device="cpu")
    files = sorted(photos.rglob("*.jpg"))
    with ImageIndex.create(tmp_path / "real", EmbeddingOptions(size=96), engine_options=options) as made:
        made.update(photos)

        def ask(query: tuple[Path, bool]) -> list[tuple[str, float]]:
            return [
                (match.path, round(match.similarity, 3))
                for match in made.query(query[0], count=3, rerank=query[1]).matches
            ]

        queries = [(file, rerank) for rerank in (False, True) for file in files]
        expected = dict(zip(queries, map(ask, queries), strict=True))
        asked = queries[: len(files)] * 8 + queries
    with ImageIndex.open(tmp_path / "real", engine_options=options) as made:  # nothing is loaded yet
        assert from_threads(ask, asked) == [expected[query] for query in asked]
