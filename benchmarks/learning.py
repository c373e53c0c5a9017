"""Measure learning from labels on labelled photos: python benchmarks/learning.py INDEX TRUTH

INDEX is the index of the labelled photos, of which a copy is used; TRUTH has their labels, as for vggsearch eval.
Every query is compared with all photos of the index, as by `vggsearch eval --no-rerank`.

- held out: learn from four fifths of the photos of each label and query with the last fifth, five times.
- unseen labels: learn from the photos of half of the labels, at random, and query with those of the other half,
  five times.
- classify: label all photos from five of each label, ten times.
- strangers: the same from five photos of half of the labels, so that the photos of the others have none of them.
- wrong labels: change one label in twenty at random, and look for them.

What needs five photos of each label, or more, is left out where there are fewer.
"""

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.evaluation.evaluate import whitening_named
from vggsearch.image_index import ImageIndex, searcher_of
from vggsearch.measures.ground_truth import read_truth
from vggsearch.measures.metrics import worst_ranks
from vggsearch.query.searcher import Searcher

TIMES = 5
FEW = 5  # photos of a label to classify by
Rows = dict[str, tuple[float, float]]


def main(directory: Path, truth: Path) -> None:
    labels = read_truth(truth)
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(directory, Path(folder) / "index")
        with ImageIndex.open(copy) as index:
            print("| queries | mAP, network | mAP, index | mAP, learned | recall@1, network | index | learned |")
            print("| --- | --- | --- | --- | --- | --- | --- |")
            for name, splits in (("held out", held_out(labels)), ("unseen labels", unseen(labels))):
                if not splits:
                    continue
                found = [figures(index, labels, learned, asked) for learned, asked in splits]
                means = {row: np.mean([each[row] for each in found], axis=0) for row in found[0]}
                cells = [f"{means[row][figure]:.3f}" for figure in (0, 1) for row in means]
                print(f"| {name} | {' | '.join(cells)} |")
            if min(Counter(labels.values()).values()) <= FEW:
                return
            print_means("classify", [classified(index, labels, seed, 1.0) for seed in range(2 * TIMES)])
            print_means("strangers", [classified(index, labels, seed, 0.5) for seed in range(2 * TIMES)])
            print_means("wrong labels", [wrong_labels(index, labels, seed) for seed in range(TIMES)])


def print_means(name: str, found: Sequence[Mapping[str, float]]) -> None:
    print(f"{name}: " + ", ".join(f"{key} {np.mean([each[key] for each in found]):.3f}" for key in found[0]))


def classified(index: ImageIndex, labels: Mapping[str, str], seed: int, share: float) -> dict[str, float]:
    """Return how often labels from FEW photos of each of some labels are right."""
    names = sorted(set(labels.values()))
    known = shuffled(names, seed)[: round(share * len(names))]
    given = {
        path: label
        for label in known
        for path in shuffled([each for each in labels if labels[each] == label], seed)[:FEW]
    }
    photos = [each for each in index.classify(given).photos if each.path in labels]
    is_known = np.array([labels[each.path] in known for each in photos])
    is_labelled = np.array([each.label is not None for each in photos])
    best, right = (
        np.array([labels[each.path] == label for each, label in zip(photos, said, strict=True)])
        for said in ([each.best for each in photos], [each.label for each in photos])
    )
    certainty = [each.probability if each.label is not None else -each.probability for each in photos]
    surest = np.argsort(-np.array(certainty), kind="stable")[: len(photos) // 2]
    found = {
        "right at full coverage": best[is_known].mean(),
        "labelled": is_labelled[is_known].mean(),
        "right of these": right[is_known & is_labelled].mean(),
        "right of all that were labelled": right[is_labelled].mean(),
        "mean probability of these": np.mean([each.probability for each in photos if each.label is not None]),
    }
    if is_known.all():
        return {**found, "right of the surest half": best[surest].mean()}
    return {**found, "strangers without a label": 1 - is_labelled[~is_known].mean()}


def wrong_labels(index: ImageIndex, labels: Mapping[str, str], seed: int) -> dict[str, float]:
    names, random = sorted(set(labels.values())), np.random.default_rng(seed)
    changed = {
        path: names[(names.index(labels[path]) + int(random.integers(1, len(names)))) % len(names)]
        for path in shuffled(list(labels), seed)[: len(labels) // 20]
    }
    found = {each.path for each in index.classify({**labels, **changed}).wrong}
    return {"changed": len(changed), "found": len(found & set(changed)), "listed": len(found)}


def figures(index: ImageIndex, labels: Mapping[str, str], learned: Sequence[str], asked: Sequence[str]) -> Rows:
    """Return mAP and recall@1 of the `asked` photos before and after learning from the `learned` ones."""
    index.forget()
    network, before = searcher_of(index, whitening_named("none")), searcher_of(index)
    index.learn({path: labels[path] for path in learned}, even_if_worse=True)
    searchers = {"network": network, "index": before, "learned": searcher_of(index)}
    return {name: quality(searcher, index.embeddings(), labels, asked) for name, searcher in searchers.items()}


def quality(
    searcher: Searcher, embeddings: NDArray[np.float32], labels: Mapping[str, str], asked: Sequence[str]
) -> tuple[float, float]:
    rows = [searcher.paths.index(path) for path in asked]
    label = np.array([labels.get(path, "") for path in searcher.paths])
    precisions, first = [], []
    for row, similarities in zip(rows, searcher.similarities(embeddings[rows]), strict=True):
        others = np.arange(len(label)) != row
        order = np.argsort(-similarities[others], kind="stable")
        ranks = worst_ranks(similarities[others][order], (label[others] == label[row])[order])
        precisions.append(float((np.arange(1, len(ranks) + 1) / ranks).mean()))
        first.append(float(ranks[0] == 1))
    return float(np.mean(precisions)), float(np.mean(first))


def held_out(labels: Mapping[str, str]) -> list[tuple[list[str], list[str]]]:
    if min(Counter(labels.values()).values()) < TIMES:
        return []
    fold = {
        path: place % TIMES
        for label in sorted(set(labels.values()))
        for place, path in enumerate(shuffled([path for path in labels if labels[path] == label], 0))
    }
    return [
        ([path for path in labels if fold[path] != each], [path for path in labels if fold[path] == each])
        for each in range(TIMES)
    ]


def unseen(labels: Mapping[str, str]) -> list[tuple[list[str], list[str]]]:
    names = sorted(set(labels.values()))
    halves = [set(shuffled(names, seed)[: len(names) // 2]) for seed in range(TIMES)]
    return [
        ([path for path in labels if labels[path] in half], [path for path in labels if labels[path] not in half])
        for half in halves
    ]


def shuffled(values: Sequence[str], seed: int) -> list[str]:
    return [values[place] for place in np.random.default_rng(seed).permutation(len(values))]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
