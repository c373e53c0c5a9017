"""Each figure next to the slow, obvious way, on cases with ties, photos without partner and missing answers."""

import tracemalloc
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from vggsearch.defaults import MEASURE
from vggsearch.errors import TruthError
from vggsearch.measures import metrics
from vggsearch.measures.metrics import Curve, Figures, Tally, worst_ranks

Pair = tuple[float, bool]


@dataclass(frozen=True)
class Answers:
    """To one query: similarity and relevance of each, most similar first; and how many relevant there are."""

    pairs: list[Pair]
    total: int


def tally_of(queries: list[Answers]) -> Tally:
    tally = Tally()
    for query in queries:
        similarities = np.array([pair[0] for pair in query.pairs], np.float32)
        tally.add(similarities, np.array([pair[1] for pair in query.pairs], bool), query.total)
    return tally


def figures_of(*queries: Answers) -> Figures:
    return tally_of(list(queries)).figures(images=100)


def answers(text: str, total: int | None = None) -> Answers:
    """`+` is a relevant photo and `-` a wrong one, each a little less similar than the one before it."""
    pairs = [(round(0.9 - 0.01 * place, 4), sign == "+") for place, sign in enumerate(text)]
    return Answers(pairs, text.count("+") if total is None else total)


@st.composite
def any_answers(draw: st.DrawFn) -> Answers:
    few = st.sampled_from([-1.0, -0.25, 0.0, 0.2001, 0.2002, 0.5, 0.75, 0.9999, 1.0])
    pairs = draw(st.lists(st.tuples(few, st.booleans()), max_size=15))
    not_found = draw(st.sampled_from([0, 0, 1, 5]))
    pairs.sort(key=lambda pair: -pair[0])
    return Answers(pairs, sum(right for _, right in pairs) + not_found)


def with_something_to_find(queries: list[Answers]) -> bool:
    return any(query.total for query in queries)


any_queries = st.lists(any_answers(), min_size=1, max_size=12).filter(with_something_to_find)


def wrong_first(query: Answers) -> list[bool]:
    return [right for _, right in sorted(query.pairs, key=lambda pair: (-pair[0], pair[1]))]


def slow_map(queries: list[Answers]) -> float:
    values = []
    for query in queries:
        ranked = wrong_first(query)
        at_each = [sum(ranked[: place + 1]) / (place + 1) for place, right in enumerate(ranked) if right]
        if query.total:
            values.append(sum(at_each) / query.total)
    return sum(values) / len(values)


def slow_recall_at(queries: list[Answers], k: int) -> float:
    hits = [any(wrong_first(query)[:k]) for query in queries if query.total]
    return sum(hits) / len(hits)


def slow_curve(queries: list[Answers]) -> list[tuple[float, float, float]]:
    pairs = [pair for query in queries for pair in query.pairs]
    total = sum(query.total for query in queries)
    rows = []
    for threshold in sorted({similarity for similarity, _ in pairs}, reverse=True):
        found = [right for similarity, right in pairs if similarity >= threshold]
        rows.append((threshold, sum(found) / len(found), sum(found) / total))
    return rows


def slow_pair_ap(queries: list[Answers]) -> float:
    area, before = 0.0, 0.0
    for _, precision, recall in slow_curve(queries):
        area += precision * (recall - before)
        before = recall
    return area


def slow_at_p99(queries: list[Answers]) -> tuple[float, float | None]:
    best: tuple[float, float | None] = (0.0, None)
    for threshold, precision, recall in slow_curve(queries):
        if precision >= 0.99 and recall > best[0]:
            best = (recall, threshold)
    return best


@given(any_queries)
def test_every_figure_is_that_of_the_slow_way(queries: list[Answers]) -> None:
    figures = figures_of(*queries)
    assert figures.queries == len(queries)
    assert figures.without_partner == sum(query.total == 0 for query in queries)
    assert figures.map == pytest.approx(slow_map(queries), abs=1e-12)
    assert figures.recall_at == {k: slow_recall_at(queries, k) for k in (1, 5, 10)}
    assert figures.pair_ap == pytest.approx(slow_pair_ap(queries), abs=1e-12)
    recall, threshold = slow_at_p99(queries)
    assert figures.recall_at_p99 == pytest.approx(recall, abs=1e-12)
    assert figures.threshold_at_p99 == (None if threshold is None else pytest.approx(threshold, abs=1e-12))


@given(any_queries)
def test_the_curve_is_that_of_the_slow_way(queries: list[Answers]) -> None:
    curve = tally_of(queries).curve()
    found = np.stack([curve.threshold, curve.precision, curve.recall], axis=1)
    np.testing.assert_allclose(found, np.reshape(slow_curve(queries), (-1, 3)), rtol=0, atol=1e-12)


@given(any_queries)
def test_scikit_learn_finds_the_same_average_precision_where_all_photos_are_found(queries: list[Answers]) -> None:
    complete = [Answers(query.pairs, sum(right for _, right in query.pairs)) for query in queries]
    if not with_something_to_find(complete):
        return
    pairs = [pair for query in complete for pair in query.pairs]
    expected = average_precision_score([right for _, right in pairs], [similarity for similarity, _ in pairs])
    assert figures_of(*complete).pair_ap == pytest.approx(expected, abs=1e-12)


@given(any_answers())
def test_no_order_of_a_tie_ranks_the_relevant_lower(query: Answers) -> None:
    similarities = np.array([pair[0] for pair in query.pairs], np.float32)
    relevant = np.array([pair[1] for pair in query.pairs], bool)
    expected = [place for place, right in enumerate(wrong_first(query), start=1) if right]
    assert worst_ranks(similarities, relevant).tolist() == expected


@given(any_queries)
def test_the_order_within_ties_and_that_of_the_queries_change_nothing(queries: list[Answers]) -> None:
    other = [
        Answers(sorted(query.pairs, key=lambda pair: (-pair[0], not pair[1])), query.total) for query in queries
    ]
    first, second = figures_of(*queries), figures_of(*reversed(other))
    assert first.map == pytest.approx(second.map, abs=1e-12)
    assert (first.recall_at, first.ns, first.threshold_at_p99) == (
        second.recall_at,
        second.ns,
        second.threshold_at_p99,
    )
    assert first.pair_ap == second.pair_ap


def test_a_small_case_by_hand() -> None:
    figures = figures_of(answers("+-+"), answers("-+", total=2), answers("--", total=0))
    assert (figures.images, figures.queries, figures.without_partner) == (100, 3, 1)
    assert figures.map == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2) / 2) / 2)
    assert figures.recall_at == {1: 0.5, 5: 1.0, 10: 1.0}
    assert figures.ns is None
    # .90: one right, two wrong; .89: one right of two more, and a third wrong; .88: the last right one
    assert figures.pair_ap == pytest.approx((1 / 3 + 2 / 6 + 3 / 7) / 4)
    assert (figures.recall_at_p99, figures.threshold_at_p99) == (0.0, None)


def test_a_perfect_ranking_is_perfect() -> None:
    figures = figures_of(*[answers("+++" + 20 * "-")] * 8)
    assert (figures.map, figures.recall_at, figures.ns) == (1.0, {1: 1.0, 5: 1.0, 10: 1.0}, 4.0)
    assert (figures.pair_ap, figures.recall_at_p99, figures.threshold_at_p99) == (1.0, 1.0, 0.88)
    assert figures.pair_ap_interval == figures.recall_at_p99_interval == metrics.Interval(1.0, 1.0)


def test_of_four_the_photo_itself_is_one_that_is_found() -> None:
    assert figures_of(answers("---+++")).ns == 1.0
    assert figures_of(answers("+-+---+"), answers("", total=3)).ns == (3 + 1) / 2


@pytest.mark.parametrize("total", [0, 2, 4])
def test_where_not_all_labels_come_in_fours_there_is_no_such_count(total: int) -> None:
    assert figures_of(answers("+++"), answers("", total)).ns is None


def test_relevant_photos_that_were_not_among_the_answers_were_not_found() -> None:
    figures = figures_of(answers("+", total=4))
    assert figures.map == figures.pair_ap == figures.recall_at_p99 == 0.25


def test_pairs_of_a_photo_without_partner_are_wrong_pairs() -> None:
    with_it, without = figures_of(answers("+"), answers("-", total=0)), figures_of(answers("+"))
    assert (without.pair_ap, with_it.pair_ap) == (1.0, 0.5)
    assert with_it.map == without.map == 1.0


def test_one_threshold_for_all_queries_is_harder_than_one_for_each() -> None:
    each_first = [Answers([(0.3, True), (0.2, False)], 1), Answers([(0.8, True), (0.7, False)], 1)]
    figures = figures_of(*each_first)
    assert figures.map == 1.0
    assert figures.pair_ap == pytest.approx((1 + 2 / 3) / 2)


def test_a_tie_never_counts_in_our_favour() -> None:
    for order in permutations([True, False, False]):
        figures = figures_of(Answers([(0.5, right) for right in order], 1))
        assert figures.map == figures.pair_ap == pytest.approx(1 / 3)
        assert figures.recall_at[1] == 0.0


def test_precision_of_exactly_99_percent_is_enough_and_less_is_not() -> None:
    exact = Answers([(0.5, place < 99) for place in range(100)], 99)
    assert figures_of(exact, exact).recall_at_p99 == 1.0
    below = Answers([(0.5, place < 98) for place in range(99)], 98)
    assert figures_of(below, exact).recall_at_p99 == 0.0


def test_precision_may_fall_below_99_percent_and_rise_again() -> None:
    figures = figures_of(answers("-" + 99 * "+"))
    assert figures.recall_at_p99 == 1.0
    assert figures.threshold_at_p99 == pytest.approx(0.9 - 0.99)


def test_pairs_are_compared_at_four_decimals_and_ranks_as_they_are() -> None:
    figures = figures_of(Answers([(0.50003, True), (0.49998, False)], 1))
    assert figures.map == 1.0
    assert (figures.pair_ap, figures.recall_at_p99) == (0.5, 0.0)


def random_queries(count: int, seed: int) -> list[Answers]:
    random = np.random.default_rng(seed)
    queries = []
    for _ in range(count):
        relevant = random.random(30) < 0.15
        similarities = np.clip(random.normal(0.3 + 0.4 * relevant, 0.15), -1, 1)
        pairs = sorted(zip(similarities.tolist(), relevant.tolist(), strict=True), reverse=True)
        queries.append(Answers(pairs, int(relevant.sum()) + int(random.integers(2))))
    return queries


def test_four_decimals_change_average_precision_by_next_to_nothing() -> None:
    queries = random_queries(300, seed=1)
    pairs = [pair for query in queries for pair in query.pairs]
    share_found = sum(right for _, right in pairs) / sum(query.total for query in queries)
    exact = share_found * float(average_precision_score([r for _, r in pairs], [s for s, _ in pairs]))
    assert figures_of(*queries).pair_ap == pytest.approx(exact, abs=2e-4)


def test_an_interval_holds_its_figure_and_is_the_same_each_time() -> None:
    first, second = figures_of(*random_queries(60, seed=2)), figures_of(*random_queries(60, seed=2))
    assert first == second
    for value, interval in (
        (first.pair_ap, first.pair_ap_interval),
        (first.recall_at_p99, first.recall_at_p99_interval),
    ):
        assert interval.low < value < interval.high


def test_an_interval_is_as_wide_as_figures_of_other_queries_differ() -> None:
    values = np.array([figures_of(*random_queries(80, seed)).pair_ap for seed in range(40)])
    interval = figures_of(*random_queries(80, seed=99)).pair_ap_interval
    spread = 2 * 1.96 * values.std()
    assert spread / 1.7 < interval.high - interval.low < spread * 1.7


def test_an_interval_is_that_of_queries_drawn_again_one_by_one() -> None:
    queries = random_queries(40, seed=3)
    weights = np.random.default_rng(metrics.SEED).poisson(1.0, (len(queries), MEASURE.resamples))
    values = []
    for weight in weights.T:
        drawn = [query for query, times in zip(queries, weight, strict=True) for _ in range(times)]
        values.append(figures_at_four_decimals(drawn))
    interval = figures_of(*queries).pair_ap_interval
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-9)


def figures_at_four_decimals(queries: list[Answers]) -> float:
    pairs = [(round(similarity, 4), right) for query in queries for similarity, right in query.pairs]
    found = sum(right for _, right in pairs) / sum(query.total for query in queries)
    return found * float(average_precision_score([right for _, right in pairs], [value for value, _ in pairs]))


def test_resamples_without_a_right_pair_say_nothing() -> None:
    figures = figures_of(answers("+"), *[Answers([(0.1, False)], 0)] * 20)  # a third have not drawn the first query
    assert figures.pair_ap_interval == figures.recall_at_p99_interval == metrics.Interval(1.0, 1.0)


def test_arrays_may_be_used_again_for_the_next_query() -> None:
    queries = random_queries(10, seed=6)
    tally, similarities, relevant = Tally(), np.empty(30, np.float32), np.empty(30, bool)
    for query in queries:
        similarities[:], relevant[:] = arrays(query)
        tally.add(similarities, relevant, query.total)
    assert tally.figures(100) == figures_of(*queries)


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = random_queries(50, seed=4)
    expected = figures_of(*queries)
    monkeypatch.setattr(metrics, "BLOCK_QUERIES", 7)
    assert figures_of(*queries) == expected
    monkeypatch.setattr(metrics, "BLOCK_PAIRS", 100)
    assert figures_of(*queries) == expected


def test_figures_may_be_asked_for_before_the_last_query_came() -> None:
    queries = random_queries(20, seed=5)
    tally = tally_of(queries[:10])
    assert tally.figures(100) == figures_of(*queries[:10])
    for query in queries[10:]:
        tally.add(*arrays(query), query.total)
    assert tally.figures(100) == figures_of(*queries)


def arrays(query: Answers) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    return np.array([s for s, _ in query.pairs], np.float32), np.array([r for _, r in query.pairs], bool)


def test_memory_does_not_grow_with_the_number_of_pairs() -> None:
    random = np.random.default_rng(0)
    tally, held = Tally(), []
    tracemalloc.start()
    for _ in range(2):
        for _ in range(2 * metrics.BLOCK_QUERIES):
            similarities = np.sort(random.random(4096, np.float32))[::-1]
            tally.add(similarities, similarities > 0.999, 4096)
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert abs(held[1] - held[0]) < 100_000  # bytes; a million pairs came in between


def test_without_any_partner_there_is_nothing_to_measure() -> None:
    with pytest.raises(TruthError, match="None of 1 photos has another with its label among 100 photos"):
        figures_of(answers("--", total=0))
    with pytest.raises(TruthError, match="None of 0 photos"):
        figures_of()


def test_nothing_found_at_all_is_zero_not_an_error() -> None:
    figures = figures_of(answers("", total=1))
    assert (figures.map, figures.pair_ap, figures.recall_at_p99, figures.threshold_at_p99) == (0.0, 0.0, 0.0, None)
    assert len(tally_of([answers("", total=1)]).curve().threshold) == 0


@pytest.mark.parametrize(
    ("pairs", "total", "message"),
    [
        ([(0.1, True), (0.2, True)], 2, "descending order"),
        ([(float("nan"), True), (0.2, True)], 2, "descending order"),
        ([(float("nan"), True)], 2, "cosines"),
        ([(1.5, True)], 1, "cosines"),
        ([(0.2, True), (0.1, True)], 1, "2 answers are relevant, but only 1 photos are"),
    ],
)
def test_answers_that_cannot_be_are_refused(pairs: list[Pair], total: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figures_of(Answers(pairs, total))


def test_a_cosine_a_little_above_one_is_one() -> None:
    curve = tally_of([Answers([(1.0002, True)], 1)]).curve()
    assert isinstance(curve, Curve)
    assert curve.threshold.tolist() == [1.0]
