"""The labelled photos of an index: their embeddings, their labels, and which of them are copies of one another."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import LEARN
from vggsearch.errors import TruthError
from vggsearch.knn.hash_pairs import hash_pairs
from vggsearch.knn.vectors import unit_rows
from vggsearch.measures.ground_truth import read_truth
from vggsearch.photos.perceptual_hash import in_all_orientations
from vggsearch.query.snapshot import Snapshot
from vggsearch.store.decisions import decisions_of
from vggsearch.store.store import Store
from vggsearch.system.places import from_home

log = logging.getLogger(__name__)

Labels = Mapping[str, str] | str | os.PathLike[str]
BLOCK = 1024  # photos compared with all others at once
MOST_NAMED = 3  # photos in a message


@dataclass(frozen=True, eq=False)
class LabelledPhotos:
    """Labelled photos in row order: their `rows` in the index, int64 (n,), and unit `embeddings`, (n, dim).

    `names` are the labels, and `label`, int64 (n,), is the place of each photo's among them. Photos with the same
    `content`, int64 (n,), are copies of one another: of the same bytes, or nearly the same picture.
    """

    paths: tuple[str, ...]
    rows: NDArray[np.int64]
    embeddings: NDArray[np.float32]
    names: tuple[str, ...]
    label: NDArray[np.int64]
    content: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.rows)

    @property
    def copies(self) -> int:
        """The number of photos that are copies of another labelled photo."""
        return len(self) - len(np.unique(self.content))

    @cached_property
    def contents_of_label(self) -> NDArray[np.int64]:
        """How many different photos each label has, copies counted once: int64 (labels,)."""
        pairs = np.unique(np.stack([self.label, self.content]), axis=1)
        return np.bincount(pairs[0], minlength=len(self.names))

    def folds(self, most: int, least: int = 1) -> NDArray[np.int64]:
        """Divide the photos of each label into at most `most` folds, at least `least` different photos in each.

        Returns the fold of each photo from 0, -1 where its label has too few photos for two folds: int64 (n,).
        Copies with one label are in one fold.
        """
        random = np.random.default_rng(LEARN.seed)
        folds = np.full(len(self), -1, np.int64)
        for label, count in enumerate(self.contents_of_label.tolist()):
            number = min(most, count // least)
            if number < 2:
                continue
            of_label = np.flatnonzero(self.label == label)
            contents = random.permutation(np.unique(self.content[of_label]))
            fold_of = dict(zip(contents.tolist(), (np.arange(count) % number).tolist(), strict=True))
            folds[of_label] = [fold_of[content] for content in self.content[of_label].tolist()]
        return folds

    def without_copies(self, chosen: NDArray[np.bool_], of: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the `chosen` photos but for copies of those in `of`, all bool (n,)."""
        return chosen & ~np.isin(self.content, self.content[of])


def labels_of(given: Labels) -> Mapping[str, str]:
    """Return labels by path; a file is read. Raises TruthError."""
    return given if isinstance(given, Mapping) else read_truth(from_home(given))


def labelled_photos(state: Snapshot, labels: Mapping[str, str], *, by_bytes: bool = False) -> LabelledPhotos:
    """Return the labelled photos of an index. Blank photos, and paths that are not in it, are left out, and logged.

    With `by_bytes`, only files of the same bytes count as copies: of labels that say what is a copy of what.

    Raises TruthError unless two labels have a photo, and for two files of the same bytes with different labels.
    """
    blank = set(state.store.blank_rows().tolist())
    rows = [row for row, path in enumerate(state.paths) if path in labels and row not in blank]
    if len(rows) < len(labels):
        log.warning(
            "%s of %s labelled photos are not in the index, or blank.",
            f"{len(labels) - len(rows):,}",
            f"{len(labels):,}",
        )
    rows = _sampled(rows, LEARN.labelled)
    names = tuple(sorted({labels[state.paths[row]] for row in rows}))
    if len(names) < 2:
        what = f"all have the label {names[0]!r}" if names else "none is labelled"
        raise TruthError(
            f"Of the photos in {state.store.directory}, {what}. Label photos of at least two kinds, by paths "
            "relative to the photo folder."
        )
    number = {name: place for place, name in enumerate(names)}
    paths = tuple(state.paths[row] for row in rows)
    label = np.array([number[labels[path]] for path in paths], np.int64)
    keys = [sha256 for sha256, _, _ in state.store.facts_of(rows)]
    _check_same_files(paths, keys, [labels[path] for path in paths])
    at = np.array(rows, np.int64)
    return LabelledPhotos(
        paths, at, embeddings_at(state.store, at), names, label, _contents(state, at, keys, by_bytes)
    )


def decided_labels(store: Store) -> dict[str, str]:
    """Return labels made of the user's decisions about duplicates: photos that are the "same" have one label.

    A photo that was only said to be "different" from another has a label of its own. The label is a path.
    """
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        while (parent := parents.setdefault(key, key)) != key:
            key = parent
        return key

    for (one, other), judgement in decisions_of(store.directory).pairs().items():
        first, second = root(one[0]), root(other[0])
        if judgement == "same":
            parents[second] = first
    keys = [key for part in store.manifest.parts for key in store.column(part, "sha256")]
    named: dict[str, str] = {}
    return {
        path: named.setdefault(root(key), path)
        for path, key in zip(store.paths(), keys, strict=True)
        if key in parents
    }


def background_rows(state: Snapshot, photos: LabelledPhotos) -> NDArray[np.int64]:
    """Return evenly spaced rows of photos that are neither labelled nor blank: int64, LEARN.background at most."""
    others = np.setdiff1d(np.arange(len(state.paths)), np.union1d(photos.rows, state.store.blank_rows()))
    return np.array(_sampled(others.tolist(), LEARN.background), np.int64)


def embeddings_at(store: Store, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the embeddings of rows, ascending: float32 (n, dim), unit vectors."""
    found = [np.empty((0, store.spec.dim), np.float16), *_taken(store.embeddings(), rows)]
    return unit_rows(np.concatenate(found))


def _taken(blocks: Iterable[NDArray[np.float16]], rows: NDArray[np.int64]) -> Iterator[NDArray[np.float16]]:
    start = 0
    for block in blocks:
        first, last = np.searchsorted(rows, (start, start + len(block)))
        yield block[rows[first:last] - start]
        start += len(block)


def _sampled(rows: Sequence[int], most: int) -> list[int]:
    """Return at most `most` rows, evenly spaced."""
    if len(rows) <= most:
        return list(rows)
    log.warning("Of %s photos, %s are used.", f"{len(rows):,}", f"{most:,}")
    return [rows[place] for place in np.linspace(0, len(rows) - 1, most).astype(int).tolist()]


def _check_same_files(paths: Sequence[str], keys: Sequence[str], labels: Sequence[str]) -> None:
    """Raise TruthError for two files of the same bytes that have different labels."""
    seen: dict[str, int] = {}
    for place, key in enumerate(keys):
        first = seen.setdefault(key, place)
        if labels[first] != labels[place]:
            raise TruthError(
                f"{paths[first]} and {paths[place]} are the same file, but labelled {labels[first]} and "
                f"{labels[place]}. Correct one of the labels."
            )


def _contents(state: Snapshot, rows: NDArray[np.int64], keys: Sequence[str], by_bytes: bool) -> NDArray[np.int64]:
    """Return a number of the content of each photo, the same for copies: int64 (n,).

    Copies have the same bytes, nearly the same perceptual hash, or a similarity of at least LEARN.alike, as the
    index is whitened; or the user said that they are the same. A photo that only looks like another one may count
    as its copy, too; then both are on one side of every test.
    """
    first: dict[str, int] = {}
    pairs = [(first.setdefault(key, place), place) for place, key in enumerate(keys)]
    if by_bytes:
        return joined(len(rows), pairs)
    places = np.array(sorted(first.values()), np.int64)  # of each content, one photo
    hashes = state.store.perceptual_hashes()[rows[places]]
    alike = hash_pairs(hashes, in_all_orientations, without=np.empty(0, np.int64))
    pairs += zip(places[alike.first].tolist(), places[alike.second].tolist(), strict=True)
    vectors = state.searcher.index.unit_vectors(rows[places])
    for start in range(0, len(places), BLOCK):
        ones, others = np.nonzero(vectors[start : start + BLOCK] @ vectors.T >= LEARN.alike)
        pairs += zip(places[ones + start].tolist(), places[others].tolist(), strict=True)
    pairs += (
        (first[one], first[other])
        for ((one, _), (other, _)), judgement in decisions_of(state.store.directory).pairs().items()
        if judgement == "same" and one in first and other in first
    )
    return joined(len(rows), pairs)


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Return for each of `count` items the first one that pairs connect it with: int64 (count,)."""
    parents = list(range(count))

    def root(item: int) -> int:
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    return np.array([root(item) for item in range(count)], np.int64)


def check_counts(photos: LabelledPhotos, least: int) -> None:
    """Raise TruthError unless two labels have at least `least` different photos."""
    enough = int((photos.contents_of_label >= least).sum())
    if enough < 2:
        counts = Counter(dict(zip(photos.names, photos.contents_of_label.tolist(), strict=True))).most_common(3)
        most = ", ".join(f"{name} {count:,}" for name, count in counts)
        raise TruthError(
            f"Two labels need at least {least} different photos each, copies counted once, but only {enough} of "
            f"{len(photos.names):,} has as many (the most: {most}). Label more photos."
        )


def warn_of_copies(photos: LabelledPhotos) -> None:
    """Log how many labelled photos are copies of others, and copies with different labels."""
    if photos.copies:
        log.info(
            "%s of %s labelled photos are copies of others, or almost. No test learns from a copy of its photos.",
            f"{photos.copies:,}",
            f"{len(photos):,}",
        )
    order = np.lexsort((photos.label, photos.content))
    content, label = photos.content[order], photos.label[order]
    at = np.flatnonzero((content[1:] == content[:-1]) & (label[1:] != label[:-1]))
    for place in at[:MOST_NAMED].tolist():
        one, other = order[place], order[place + 1]
        log.warning(
            "%s and %s look the same, but are labelled %s and %s.",
            photos.paths[one],
            photos.paths[other],
            photos.names[photos.label[one]],
            photos.names[photos.label[other]],
        )
