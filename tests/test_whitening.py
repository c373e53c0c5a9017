from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.vectors import saved
from vggsearch.defaults import WHITENING
from vggsearch.image_index import ImageIndex
from vggsearch.knn.build import build_in_memory
from vggsearch.knn.faiss_import import faiss
from vggsearch.knn.vectors import unit_rows
from vggsearch.knn.whitening import Whitening, learn
from vggsearch.store.manifest import WhiteningInfo

DIM = 48
NOTHING = np.empty(0, np.int64)


def embeddings(rows: int, seed: int = 0) -> NDArray[np.float16]:
    """Positive and correlated, as features behind a ReLU are."""
    random = np.random.default_rng(seed)
    mixed = random.random((rows, DIM)) @ np.random.default_rng(7).random((DIM, DIM)) ** 4
    return unit_rows(mixed).astype(np.float16)


def learned(rows: NDArray[np.float16], without: NDArray[np.int64] = NOTHING) -> tuple[Whitening, float]:
    found = learn([rows[:30], rows[30:]], rows.shape[1], len(rows), without)
    assert found is not None
    return found


def assert_same_similarities(one: Whitening, other: Whitening, rows: NDArray[np.float16]) -> None:
    """The axes of two whitenings may point the other way."""
    some, others = one.apply(rows), other.apply(rows)
    np.testing.assert_allclose(some @ some.T, others @ others.T, atol=1e-3)


def test_it_is_the_textbook_whitening_with_its_eigenvalues_shrunk() -> None:
    stored = embeddings(400)
    whitening, shrinkage = learned(stored)
    rows = unit_rows(stored).astype(np.float64)
    covariance = np.cov(rows.T, bias=True)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / DIM * np.eye(DIM)
    truth = (rows - rows.mean(0)) @ np.linalg.inv(shrunk) @ (rows - rows.mean(0)).T
    norms = np.sqrt(np.diag(truth))
    found = whitening.apply(stored)
    np.testing.assert_allclose(found @ found.T, truth / norms / norms[:, None], atol=1e-3)
    assert shrinkage == WHITENING.least_shrinkage


def test_few_photos_are_shrunk_as_much_as_their_sampling_error_requires() -> None:
    random = np.random.default_rng(0)
    noise = unit_rows(random.standard_normal((110, 400))).astype(np.float16)
    found = learn([noise], 400, 110, NOTHING)
    assert found is not None
    whitening, shrinkage = found
    assert shrinkage > 0.9
    assert whitening.dim == 109


def test_excluded_rows_do_not_affect_the_whitening() -> None:
    stored, odd = embeddings(200), np.zeros((20, DIM), np.float16)
    odd[:, 0] = 1
    together = np.concatenate([stored[:100], odd, stored[100:]])
    whitening, _ = learned(together, np.arange(100, 120))
    assert_same_similarities(whitening, learned(stored)[0], stored)


@pytest.mark.parametrize(
    "rows",
    [embeddings(WHITENING.fewest_rows - 1), np.repeat(embeddings(1), 100, axis=0)],
    ids=["too few", "all the same"],
)
def test_where_whitening_cannot_help_it_is_none(rows: NDArray[np.float16]) -> None:
    assert learn([rows], DIM, len(rows), NOTHING) is None


def test_vectors_too_long_for_a_covariance_are_not_whitened() -> None:
    dim = WHITENING.longest_vector + 1
    assert learn([np.ones((100, dim), np.float16)], dim, 100, NOTHING) is None


def test_a_large_collection_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = embeddings(600)
    every_third, _ = learned(stored[::3])
    monkeypatch.setattr("vggsearch.knn.whitening.WHITENING", type(WHITENING)(most_rows=200))
    assert_same_similarities(learned(stored)[0], every_third, stored)


def test_a_whitened_index_agrees_with_numpy_also_after_reopening(tmp_path: Path) -> None:
    stored = embeddings(300)
    whitening, _ = learned(stored)
    built = build_in_memory([stored[:100], stored[100:]], 300, DIM, whitening)
    opened = saved(tmp_path / "abc", stored, whitening=whitening)
    assert opened.whitening is not None
    for query in unit_rows(embeddings(10, seed=1)):
        truth = whitening.apply(stored) @ whitening.apply(query[None])[0]
        found, similarities = (lines[0] for lines in opened.nearest(query[None], 10))
        np.testing.assert_allclose(truth[found], np.sort(truth)[::-1][:10], atol=1e-3)
        np.testing.assert_allclose(similarities, truth[found], atol=1e-3)
        np.testing.assert_array_equal(built.nearest(query[None], 10)[0][0], found)
    assert opened.first_difference([stored]) is None
    assert opened.first_difference([stored[:200], stored[200:][::-1]]) == 200


def test_the_faiss_file_accepts_embeddings(tmp_path: Path) -> None:
    stored = embeddings(300)
    saved(tmp_path / "abc", stored, whitening=learned(stored)[0])
    alone = faiss().read_index(str(tmp_path / "abc" / "index.faiss"))
    similarities, rows = alone.search(unit_rows(stored[:5]), 1)
    np.testing.assert_array_equal(rows[:, 0], np.arange(5))
    np.testing.assert_allclose(similarities[:, 0], 1, atol=1e-3)


def many_photos(index: ImageIndex, count: int) -> None:
    from tests.fakes import save_photo

    assert index.root is not None
    for seed in range(count):
        save_photo(index.root / "more" / f"{seed}.jpg", 1000 + seed)
    index.update()


def whitening_of(index: ImageIndex) -> WhiteningInfo | None:
    facts = index.info().search
    return facts.whitening if facts is not None else None


def test_a_small_update_keeps_the_whitening_and_growth_renews_it(index: ImageIndex) -> None:
    assert whitening_of(index) is None  # six photos are too few
    many_photos(index, 94)
    first = whitening_of(index)
    assert first is not None
    assert first.rows == 100
    assert index.root is not None
    before = {
        match.path: match.similarity
        for match in index.query(index.root / "more" / "0.jpg", 100, rerank=False).matches
    }
    many_photos(index, 120)
    assert whitening_of(index) == first
    after = {
        match.path: match.similarity
        for match in index.query(index.root / "more" / "0.jpg", 126, rerank=False).matches
    }
    assert len(before) == 100
    assert before.items() <= after.items()
    many_photos(index, 194)
    assert whitening_of(index) != first
    assert index.verify().findings == ()


def test_whitening_can_be_switched_off_and_on_again(index: ImageIndex) -> None:
    many_photos(index, 94)
    assert index.root is not None
    photo = index.root / "more" / "0.jpg"
    whitened = index.query(photo, 5, rerank=False)
    index.update(whiten=False)
    assert whitening_of(index) is None
    assert index.query(photo, 5, rerank=False) != whitened
    assert index.query(photo, 1, rerank=False).matches[0].similarity == 1.0
    index.update()
    assert whitening_of(index) is None
    index.update(whiten=True)
    assert index.query(photo, 5, rerank=False) == whitened


def test_without_its_vector_index_an_index_returns_the_same(index: ImageIndex) -> None:
    many_photos(index, 94)
    assert index.root is not None
    photo = index.root / "more" / "0.jpg"
    expected = index.query(photo, 5, rerank=False)
    for file in (index.directory / "search").rglob("*.npy"):
        file.unlink()
    with ImageIndex.open(index.directory, engine=index.engine) as reopened:
        assert reopened.query(photo, 5, rerank=False) == expected


@pytest.mark.parametrize("at", [403, 1203, -500])
def test_a_damaged_whitening_is_learned_again_rather_than_used(index: ImageIndex, at: int) -> None:
    many_photos(index, 94)
    assert index.root is not None
    photo = index.root / "more" / "0.jpg"
    expected = [match.similarity for match in index.query(photo, 5, rerank=False).matches]
    [file] = (index.directory / "search").rglob("index.faiss")
    data = bytearray(file.read_bytes())
    for byte in range(4):  # one of them is in the exponent of a number
        data[at + byte] ^= 0x40
    file.write_bytes(data)
    with ImageIndex.open(index.directory, engine=index.engine) as reopened:
        for _ in range(2):
            found = [match.similarity for match in reopened.query(photo, 5, rerank=False).matches]
            assert found == pytest.approx(expected, abs=2e-3)
            reopened.update()
        assert reopened.verify().findings == ()
