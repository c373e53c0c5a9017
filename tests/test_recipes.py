"""Every recipe against numpy: with copies, removed rows, filters, after save and reopen, and in another process."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.vectors import DIM, families, saved
from vggsearch.defaults import BUILD
from vggsearch.errors import OptionError
from vggsearch.knn.build import Extended, build_from_previous, whitened_blocks
from vggsearch.knn.faiss_import import faiss
from vggsearch.knn.recipes import RECIPES, check_factory, plan, plan_with_higher_recall
from vggsearch.knn.tune import tune
from vggsearch.knn.vector_index import Selection, Tuning, VectorIndex
from vggsearch.knn.vectors import unit_rows
from vggsearch.progress import SILENT

ROWS = 4000
COPIES = 30
FACTORIES = ("SQ8", "PCA24,IVF32,SQ8", "IVF32_HNSW32,SQ4", "HNSW32,SQ8")
ALL = (*RECIPES, *FACTORIES)


@pytest.fixture(scope="module")
def stored() -> NDArray[np.float16]:
    """Families, and thirty exact copies of the first row spread among them."""
    rows = families(ROWS)
    rows[:: ROWS // COPIES][:COPIES] = rows[0]
    return rows


@pytest.fixture(scope="module", autouse=True)
def fewer_tuning_queries() -> Iterator[None]:
    """The error of a recall of 0.99 is then 0.003, not 0.002."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vggsearch.knn.tune.BUILD", replace(BUILD, tuning_queries=150, timed_queries=20))
        yield


@pytest.fixture(scope="module", params=ALL)
def recipe(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def index(recipe: str, stored: NDArray[np.float16], tmp_path_factory: pytest.TempPathFactory) -> VectorIndex:
    made = saved(tmp_path_factory.mktemp("recipe") / "x", stored, recipe)
    made.tuning = tune(made, 0.99, SILENT)
    return made


def edited(rows: NDArray[np.float16], seed: int) -> NDArray[np.float32]:
    """Queries near some rows, and like no row exactly."""
    return unit_rows(rows + 0.1 * np.random.default_rng(seed).standard_normal(rows.shape))


def recall(index: VectorIndex, rows: NDArray[np.int64], truth: NDArray[np.float32], count: int) -> float:
    """The share of found rows that are as similar as the last one of the exact answer."""
    least = -np.sort(-truth, axis=1)[:, count - 1 : count]
    return float((np.take_along_axis(truth, rows, 1) >= least - 1e-5).mean())


def test_it_finds_what_numpy_finds_with_exact_similarities(index: VectorIndex, stored: NDArray[np.float16]) -> None:
    queries = edited(stored[:300], seed=5)
    truth = queries @ unit_rows(stored).T
    rows, similarities = index.nearest(queries, 10)
    np.testing.assert_allclose(similarities, np.take_along_axis(truth, rows, 1), atol=1e-5)
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert all(len(set(line)) == 10 for line in rows.tolist())
    assert recall(index, rows, truth, 10) >= 0.97


def test_every_photo_finds_itself_at_one(recipe: str, index: VectorIndex, stored: NDArray[np.float16]) -> None:
    rows, similarities = index.nearest(unit_rows(stored), 1)
    itself = (stored[rows[:, 0]] == stored).all(axis=1)
    np.testing.assert_allclose(similarities[itself], 1.0, atol=1e-5)
    assert itself.mean() == 1.0 if recipe in RECIPES else itself.mean() > 0.995


def test_all_copies_of_a_photo_are_found(index: VectorIndex, stored: NDArray[np.float16]) -> None:
    copies = np.flatnonzero((stored == stored[0]).all(axis=1))
    assert len(copies) == COPIES
    rows, _ = index.nearest(unit_rows(stored[:1]), COPIES)
    np.testing.assert_array_equal(np.sort(rows[0]), copies)


def test_a_filter_returns_only_selected_rows_and_never_too_few(
    index: VectorIndex, stored: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.knn.vector_index.BUILD", replace(BUILD, few_rows=30))
    queries = edited(stored[300:320], seed=6)
    truth = queries @ unit_rows(stored).T
    for share in (2, 10, 50, 200):  # of these, the last is few enough to be looked at whole
        mask = np.arange(ROWS) % share == 1
        rows, similarities = index.nearest(queries, 15, Selection(mask))
        assert rows.shape == (20, 15)
        assert mask[rows].all()
        np.testing.assert_allclose(similarities, np.take_along_axis(truth, rows, 1), atol=1e-5)
        assert recall(index, rows, np.where(mask, truth, -2), 15) >= 0.95
    assert index.nearest(queries, 50, Selection(np.arange(ROWS) < 40))[0].shape == (20, 40)
    assert index.nearest(queries, 50, Selection(np.zeros(ROWS, bool)))[0].shape == (20, 0)


def test_a_threshold_returns_all_rows_above_it_however_many(
    index: VectorIndex, stored: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.knn.vector_index.BUILD", replace(BUILD, few_rows=640))
    truth = unit_rows(stored) @ unit_rows(stored[:1])[0]
    for wanted in (35, 300, 3000):
        floor = float(np.sort(truth)[-wanted])
        rows, similarities = index.above_vector(unit_rows(stored)[0], floor - 1e-6)
        assert len(set(rows.tolist())) == len(rows)
        np.testing.assert_allclose(similarities, truth[rows], atol=1e-5)
        assert len(rows) >= 0.98 * wanted
        assert (similarities >= floor - 1e-5).all()


def test_another_process_returns_the_same(index: VectorIndex, stored: NDArray[np.float16], tmp_path: Path) -> None:
    queries = unit_rows(families(5, seed=7))
    np.save(tmp_path / "queries.npy", queries)
    folder = Path(index.segments[0].vectors.filename).parent  # type: ignore[attr-defined]
    code = (
        "import sys, numpy as np; from pathlib import Path;"
        "from vggsearch.knn.vector_index import Tuning, VectorIndex;"
        f"index = VectorIndex.open(Path({str(folder)!r}), {ROWS}, {DIM}, {index.tuning!r});"
        f"print(index.nearest(np.load({str(tmp_path / 'queries.npy')!r}), 7)[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(index.nearest(queries, 7)[0].tolist())


def test_rows_are_added_and_removed_without_training_again(
    index: VectorIndex, stored: NDArray[np.float16], tmp_path: Path
) -> None:
    """Twice, remove some rows and add as many; a reader of the first index is not affected."""
    if index.is_exact:
        pytest.skip("a flat index is always rebuilt")
    queries = edited(stored[300:400], seed=8)
    before = index.nearest(queries, 10)
    now, rows = index, stored
    folder = Path(index.segments[0].vectors.filename).parent  # type: ignore[attr-defined]
    for step in range(2):
        more = families(500, seed=20 + step)
        kept = np.flatnonzero(np.arange(len(rows)) % 6 != step)
        (tmp_path / str(step)).mkdir()
        extended = Extended(folder, now, kept, whitened_blocks([more], None), 500)
        build_from_previous(tmp_path / str(step), extended, 200, SILENT)
        rows = np.concatenate([rows[kept], more])
        folder = tmp_path / str(step)
        now = VectorIndex.open(folder, len(rows), DIM, index.tuning)
        assert len(now) == len(rows)
        assert now.first_difference([rows]) is None
        truth = queries @ unit_rows(rows).T
        found, similarities = now.nearest(queries, 10)
        np.testing.assert_allclose(similarities, np.take_along_axis(truth, found, 1), atol=1e-5)
        assert recall(now, found, truth, 10) >= 0.95
        mask = np.arange(len(rows)) % 2 == 0
        assert mask[now.nearest(queries, 10, Selection(mask))[0]].all()
    for one, other in zip(index.nearest(queries, 10), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["flat", "ivf-sq8", "hnsw"])
def test_wrong_vectors_are_found(name: str, stored: NDArray[np.float16], tmp_path: Path) -> None:
    opened = saved(tmp_path / "x", stored, name)
    assert opened.first_difference([stored]) is None
    assert opened.first_difference([stored[:2000], stored[2001:], stored[:1]]) == 2000
    if name == "ivf-sq8":
        core = faiss().read_index(str(tmp_path / "x" / "index.faiss"))
        core.remove_ids(np.array([17]))
        core.add_with_ids(unit_rows(stored[17:18]), np.array([18]))
        assert VectorIndex(core, stored).first_difference([stored]) == 17


def test_every_thread_uses_all_openmp_threads(stored: NDArray[np.float16], tmp_path: Path) -> None:
    opened = saved(tmp_path / "x", stored)
    seen: list[int] = []

    def ask() -> None:
        faiss().omp_set_num_threads(1)
        opened.nearest(unit_rows(stored[:3]), 1)
        seen.append(faiss().omp_get_max_threads())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opened.nearest(unit_rows(stored[:3]), 1)
    assert seen == [faiss().omp_get_max_threads()] * 2


def test_tuning_reaches_its_recall_on_other_queries() -> None:
    core = faiss().index_factory(DIM, "IVF32,SQ8", faiss().METRIC_INNER_PRODUCT)
    random = unit_rows(np.random.default_rng(0).standard_normal((3000, DIM))).astype(np.float16)
    core.train(unit_rows(random))
    core.add(unit_rows(random))
    index = VectorIndex(core, random)
    tunings = [tune(index, wanted, SILENT) for wanted in (0.5, 0.9, 0.99)]
    assert [each.effort for each in tunings] == sorted(each.effort for each in tunings)
    assert tunings[0].effort < tunings[2].effort
    for least, tuning in zip((0.5, 0.9, 0.99), tunings, strict=True):
        assert tuning.recall is not None
        assert tuning.recall >= least
        index.tuning = tuning
        truth = unit_rows(random) @ unit_rows(random[:500]).T
        found = index.nearest(unit_rows(random[:500]), 11)[0]
        right = [
            len(set(line) & set(np.argsort(-column)[1:11])) for line, column in zip(found, truth.T, strict=True)
        ]
        assert np.mean(right) / 10 >= least - 0.03


def test_one_bit_per_dimension_needs_more_candidates(stored: NDArray[np.float16], tmp_path: Path) -> None:
    coarse = tune(saved(tmp_path / "a", stored, "ivf-rabitq"), 0.99, SILENT)
    assert coarse.candidates > tune(saved(tmp_path / "c", stored, "ivf-pq"), 0.99, SILENT).candidates
    assert coarse.candidates > 1
    assert Tuning().candidates == 1


def test_an_exact_index_needs_no_tuning(stored: NDArray[np.float16], tmp_path: Path) -> None:
    index = saved(tmp_path / "flat", stored, "flat")
    tuning = tune(index, 0.99, SILENT)
    assert (tuning.effort, tuning.candidates, tuning.recall) == (0, 1, 1.0)
    assert tuning.milliseconds is not None
    queries = unit_rows(stored[::50].astype(np.float32))
    found = np.sort(index.candidate_similarities(queries, index.candidates(queries, 11, 0)))[:, ::-1]
    assert np.allclose(found, index.nearest_exactly(queries, 11)[1], atol=1e-3)


GB = 10**9


def test_the_automatic_choice_follows_rows_memory_and_recall() -> None:
    def chosen(rows: int, memory: int = 4 * GB, recall: float = 0.99) -> str:
        return plan(rows, 384, "auto", memory, recall).recipe

    assert [chosen(rows) for rows in (0, 1, 100, 200_000)] == ["flat"] * 4
    assert chosen(200_001) == chosen(1_000_000) == chosen(37_000_000) == "ivf-pq"
    assert chosen(39_000_000) == "ivf-rabitq"
    assert chosen(200_000, memory=GB // 5) == "ivf-pq"
    assert chosen(200, memory=300_000) == "ivf-sq8"  # too few to learn the codes of ivf-pq
    assert chosen(1_000_000, recall=1.0) == "flat"
    with pytest.raises(
        OptionError, match=r"flat needs 15.4 GB .*10,000,000 .*than 4.0 GB. Pass memory=15_360_000_000\."
    ):
        chosen(10_000_000, recall=1.0)
    assert chosen(100_000_000, memory=6_451_000_000) == "ivf-rabitq"
    assert chosen(100_000_000) == "ivf-sq8"  # its lists on disk
    with pytest.raises(
        OptionError, match=r"ivf-sq8 needs 2.0 GB of memory for 100,000,000 .*memory=2_014_000_000\."
    ):
        chosen(100_000_000, memory=GB)


def test_the_choice_with_a_higher_recall_has_to_fit_in_memory() -> None:
    planned = plan(1_000_000, 384, "auto", 4 * GB, 0.99)
    more = plan_with_higher_recall(planned, 4 * GB, 384)
    assert more is not None
    assert (more.recipe, more.factory) == ("ivf-sq8", "IVF4096,SQ8")
    assert plan_with_higher_recall(planned, GB // 3, 384) is None
    assert plan_with_higher_recall(more, 4 * GB, 384) is None


def test_the_training_vectors_have_to_fit_in_memory() -> None:
    planned = plan(1_000_000, 384, "ivf-pq", 4 * GB, 0.99)
    assert planned.bytes < 125_000_000 < planned.memory == 40 * 4096 * 384 * 4
    with pytest.raises(OptionError, match=r"more than 120.0 MB. Pass memory=252_000_000\."):
        plan(1_000_000, 384, "auto", 120_000_000, 0.99)


@pytest.mark.parametrize(
    ("dim", "factory"),
    [
        (1, "IVF16,PQ1x4fs"),
        (2, "IVF16,PQ1x4fs"),
        (7, "IVF16,PQ7x4fs"),
        (10, "IVF16,PQ5x4fs"),
        (33, "IVF16,PQ33x4fs"),
    ],
)
def test_ivf_pq_takes_vectors_of_any_dimensions(dim: int, factory: str, tmp_path: Path) -> None:
    stored = families(640, dim=dim)
    assert plan(640, dim, "ivf-pq", GB, 0.99).factory == factory
    made = saved(tmp_path / "x", stored, "ivf-pq")
    made.tuning = tune(made, 0.99, SILENT)
    assert RECIPES["ivf-pq"].code_bytes(dim) == faiss().downcast_index(made.core).code_size + 8
    queries = unit_rows(stored[:50])
    truth = queries @ unit_rows(stored).T
    rows, similarities = made.nearest(queries, 10)
    np.testing.assert_allclose(similarities, np.take_along_axis(truth, rows, 1), atol=1e-5)
    assert recall(made, rows, truth, 10) >= 0.98


def test_a_plan_states_the_size_of_its_index(recipe: str, index: VectorIndex) -> None:
    planned = plan(ROWS, DIM, recipe, GB, 0.99)
    folder = Path(index.segments[0].vectors.filename).parent  # type: ignore[attr-defined]
    assert (folder / "index.faiss").stat().st_size == pytest.approx(planned.bytes, rel=0.1)
    assert (folder / "vectors.npy").stat().st_size == pytest.approx(planned.vector_bytes, rel=0.01)
    assert index.lists == planned.lists


@pytest.mark.parametrize(
    ("rows", "recipe", "memory", "recall", "message"),
    [
        (
            100,
            "ivf-sq8",
            GB,
            0.99,
            r"IVF2,SQ8 needs at least 156 photos to train on, .* are 100. Use recipe='flat'",
        ),
        (10_000, "IVF4096,SQ8", GB, 0.99, r"at least 159,744 photos .* there are 10,000. .*'flat' or IVF256,SQ8"),
        (1_000_000, "flat", GB, 0.99, r"flat needs 1.5 GB .*than 1.0 GB. .*=1_536_000_000 or recipe='ivf-pq'"),
        (300, "ivf-pq", GB, 0.99, r"IVF4,PQ192x4fs needs at least 624 photos .*, but there are 300. Use .*'flat'"),
        (1_000_000, "IVF16384,RaBitQ", GB // 2, 0.99, r"655,360 vectors in memory, 1.0 GB, more than 500.0 MB"),
        (1_000, "ivf-sq8", GB, 1.0, r"A recall of 1 needs recipe='flat'; for ivf-sq8 pass at most recall=0.999"),
        (1_000, "auto", GB, 1.5, r"recall=1.5 is out of range: it must be above 0 and at most 1"),
        (1_000, "nonsense", GB, 0.99, r"'nonsense' is neither a recipe nor a FAISS factory .*Recipes: auto, flat"),
    ],
)
def test_an_impossible_plan_is_refused_with_the_closest_possible_options(
    rows: int, recipe: str, memory: int, recall: float, message: str
) -> None:
    with pytest.raises(OptionError, match=message) as raised:
        plan(rows, 384, recipe, memory, recall)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("factory", [*FACTORIES, "Flat", "IVF65536,Flat", "OPQ2,IVF64,PQ2"])
def test_usable_factory_strings_are_accepted(factory: str) -> None:
    check_factory(DIM, factory)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("IVF32,PQ8,RFlat", "omit the refinement step"),
        ("IDMap,Flat", "omit the IDMap"),
        ("LSH", "LSH"),
        ("NSG16", "NSG16"),
        ("PQ7", "PQ7"),
    ],
)
def test_unusable_factory_strings_are_refused(factory: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as raised:
        check_factory(DIM, factory)
    assert "\n" not in str(raised.value)
