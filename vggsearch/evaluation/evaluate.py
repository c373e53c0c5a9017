"""Measure the search quality of an index: on labelled photos, and on edited copies of its own photos."""

import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import ALIGN, KEYPOINTS, MEASURE, WHITENING
from vggsearch.errors import ImageError, OptionError, PhotosError, TruthError, option
from vggsearch.evaluation.linear_probe import ProbeReport, linear_probe
from vggsearch.image_index import ImageIndex, decoders_of, reranker_of, searcher_of
from vggsearch.knn.vector_index import Selection
from vggsearch.knn.whitening import WhiteningOptions
from vggsearch.matching.rerank import PhotoFeatures
from vggsearch.measures.ground_truth import read_truth
from vggsearch.measures.metrics import FIGURE_COLUMNS, Curve, Figures, Tally
from vggsearch.photos.addresses import is_available
from vggsearch.photos.decoder_pool import Source, View
from vggsearch.photos.edits import COLLAGE, COLLAGE_OTHERS, EDITS, Edit, edited
from vggsearch.photos.walk import is_indexed
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.query.judging import judged
from vggsearch.query.searcher import Searcher, Sought
from vggsearch.system.outputs import check_empty, naming
from vggsearch.system.places import from_home
from vggsearch.tables import Table, Tabular, arrow_table


@dataclass(frozen=True)
class EvaluationReport(Tabular):
    """The search quality on labelled photos. `missing` are the labelled paths that are not in the index.

    >>> report = evaluate(index, {"a.jpg": "cat", "copy of a.jpg": "cat", "gone.jpg": "dog"}, rerank=False)
    >>> report.figures.map, report.missing
    (1.0, ('gone.jpg',))
    """

    figures: Figures
    curve: Curve
    missing: tuple[str, ...]

    def to_arrow(self) -> Table:
        """Return the figures as one row. `curve.to_arrow()` has the curve."""
        return arrow_table(FIGURE_COLUMNS, [tuple(self.figures.row().values())])


@dataclass(frozen=True)
class CopiesReport(Tabular):
    """How well queries with edited copies of `photos` indexed photos find the originals: per edit, and overall.

    `skipped` are the photos of the sample that could not be read.

    >>> report = evaluate_copies(index, edits=["mirror"], sample=2, rerank=False)
    >>> report.photos, list(report.by_edit)
    (2, ['mirror'])
    """

    photos: int
    by_edit: dict[str, Figures]
    figures: Figures
    curve: Curve
    skipped: tuple[str, ...]

    def to_arrow(self) -> Table:
        """Return the figures of each edit as one row, then those of all edits together, whose `edit` is null."""
        by_edit: list[tuple[str | None, Figures]] = [*self.by_edit.items(), (None, self.figures)]
        rows = ((edit, *figures.row().values()) for edit, figures in by_edit)
        return arrow_table({"edit": "string", **FIGURE_COLUMNS}, rows)


@dataclass(frozen=True)
class Answers:
    """The answers to one query, most similar first, and the `total` number of relevant photos, found or not."""

    similarities: NDArray[np.float32]
    relevant: NDArray[np.bool_]
    total: int


def evaluate(
    index: ImageIndex,
    labels: Mapping[str, str] | str | os.PathLike[str],
    *,
    whiten: str = "auto",
    rerank: bool = True,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> EvaluationReport:
    """Query with every labelled photo, and measure how well the other photos with its label are found.

    `labels` maps paths, relative to the photo folder, to labels, or is a file of both (`path<TAB>label`). Photos
    with the same label are relevant to each other; photos without a label are never relevant. `whiten` is "auto"
    (the whitening of the index), "none", or the dimensions with an optional shrinkage: "384:0.5". With `rerank`,
    the best results are re-ranked by the geometric check, as in queries.

    Raises TruthError if the index contains none of the labelled photos, or no two with the same label; OptionError;
    PhotosError if the photos cannot be read for re-ranking; Stopped, without a report.

    >>> labels = {"a.jpg": "cat", "copy of a.jpg": "cat", "b.jpg": "dog"}
    >>> evaluate(index, labels, rerank=False).figures.recall_at[1]
    1.0
    """
    labels = labels_of(labels)
    monitor = Monitor(progress, stop)
    asked = Asked(index, labels, whitening_named(whiten), rerank=rerank)
    tally = Tally()
    for _, answers in asked.answers([path for path in labels if path in asked.rows], monitor):
        tally.add(answers.similarities, answers.relevant, answers.total)
    missing = tuple(path for path in labels if path not in asked.rows)
    return EvaluationReport(tally.figures(len(asked.rows)), tally.curve(), missing)


class Asked:
    """An index that is queried with its labelled photos. `rows` are the rows of its photos, by path."""

    def __init__(
        self, index: ImageIndex, labels: Mapping[str, str], whitening: WhiteningOptions | None, *, rerank: bool
    ) -> None:
        """Read the index. Raises TruthError if none of its photos is labelled, PhotosError without their files."""
        self._index, self._searcher = index, searcher_of(index, whitening)
        paths = self._searcher.paths
        self._embeddings = index.embeddings()
        self.rows = {path: row for row, path in enumerate(paths)}
        if not self.rows.keys() & labels:
            raise TruthError(
                f"{index.directory} contains none of the {len(labels):,} labelled photos. Paths must be relative "
                "to the photo folder."
            )
        self._label = np.array([labels.get(path, "") for path in paths])
        self._is_labelled = np.array([path in labels for path in paths])
        self._checks = _Checks(index, self._searcher) if rerank else None

    def answers(self, queries: Sequence[str], monitor: Monitor) -> Iterator[tuple[str, Answers]]:
        """Yield the answers to each query, the path of a labelled photo, in order. Raises Stopped."""
        for start in range(0, len(queries), MEASURE.block_queries):
            block = queries[start : start + MEASURE.block_queries]
            embeddings = self._embeddings[[self.rows[path] for path in block]]
            for path, similarities in zip(block, self._searcher.similarities(embeddings), strict=True):
                monitor.check()
                yield path, self._answers_to(path, similarities)
            monitor.show("querying", start + len(block), len(queries))

    def _answers_to(self, path: str, similarities: NDArray[np.float32]) -> Answers:
        row = self.rows[path]
        relevant = self._is_labelled & (self._label == self._label[row])
        others = np.arange(len(similarities)) != row
        if self._checks is not None and (view := _readable(self._index, path)) is not None:
            similarities = self._checks.raised(view, similarities, others)
        return _ranked(similarities[others], relevant[others], len(similarities))


def evaluate_copies(
    index: ImageIndex,
    *,
    edits: str | Iterable[str] = "all",
    sample: int | Sequence[str] = MEASURE.sample,
    seed: int = 0,
    whiten: str = "auto",
    rerank: bool = True,
    save: str | os.PathLike[str] | None = None,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> CopiesReport:
    """Make edited copies of some indexed photos, and measure whether queries with the copies find the originals.

    `edits` is "all", "basic", or names of edits. `sample` is the number of photos, drawn at random with `seed`, or
    their paths. Relevant are the photo that a copy was made from and photos with the same embedding, such as its
    exact copies. `whiten` and `rerank` are those of `evaluate`. Copies are kept in memory only, unless `save` is a
    folder, which must be new or empty, and not in the photo folder.

    Raises PhotosError if the photos cannot be read; OptionError for an unknown edit, a sample below 1 or another
    folder `save`; Stopped, without a report.

    >>> report = evaluate_copies(index, edits=["half", "mirror"], sample=2, rerank=False)
    >>> sorted(report.by_edit)
    ['half', 'mirror']
    """
    by_name, whitening, monitor = chosen_edits(edits), whitening_named(whiten), Monitor(progress, stop)
    if isinstance(sample, int) and sample < 1:
        raise OptionError(f"The sample must be at least 1 photo, not {sample}.")
    folder = from_home(save) if save is not None else None
    if folder is not None:
        _check_save(index, folder)
    searcher = searcher_of(index, whitening)
    checks = _Checks(index, searcher) if rerank else None
    chosen = _sample(searcher, sample, seed) if isinstance(sample, int) else [*map(searcher.paths.index, sample)]
    answers: dict[str, list[Answers]] = {edit: [] for edit in by_name}
    skipped: list[str] = []
    for done, row in enumerate(chosen, start=1):
        path = searcher.paths[row]
        try:
            copies = dict(_copies(index, searcher, row, by_name, seed))
        except ImageError:
            skipped.append(path)
            continue
        if folder is not None:
            _save(copies, folder, path)
        similarities = searcher.similarities(index.embed_many(list(copies.values())))
        relevant = searcher.similarities_of_row(row) >= 1 - MEASURE.same
        for edit, each in zip(copies, similarities, strict=True):
            monitor.check()
            if checks is not None:
                each = checks.raised(_view(index, Source("", data=copies[edit])), each)
            answers[edit].append(_ranked(each, relevant, MEASURE.most_answers))
        monitor.show("making copies and querying", done, len(chosen))
    if len(skipped) == len(chosen):
        raise PhotosError(f"None of {len(chosen):,} photos of {index.directory} can be read in {index.root}.")
    images = len(searcher.paths)
    by_edit = {edit: _tally(found).figures(images) for edit, found in answers.items()}
    together = _tally([each for found in answers.values() for each in found])
    return CopiesReport(
        len(chosen) - len(skipped), by_edit, together.figures(images), together.curve(), tuple(skipped)
    )


def evaluate_probe(index: ImageIndex, labels: Mapping[str, str] | str | os.PathLike[str]) -> ProbeReport:
    """Train a linear SVM on the embeddings of labelled photos, and measure its recall per class.

    `labels` are those of `evaluate`; the protocol is that of Caltech-101. Raises TruthError if fewer than two
    classes have two photos, InstallationError without scikit-learn.

    >>> labels = {"a.jpg": "cat", "copy of a.jpg": "cat", "b.jpg": "dog", "trips/c.jpg": "dog"}
    >>> evaluate_probe(index, labels).classes
    2
    """
    labels = labels_of(labels)
    rows = {path: row for row, path in enumerate(index.paths())}
    held = [path for path in labels if path in rows]
    return linear_probe(index.embeddings()[[rows[path] for path in held]], [labels[path] for path in held])


def labels_of(labels: Mapping[str, str] | str | os.PathLike[str]) -> Mapping[str, str]:
    """Return labels by path; a file is read. Raises TruthError."""
    return labels if isinstance(labels, Mapping) else read_truth(from_home(labels))


def chosen_edits(names: str | Iterable[str]) -> dict[str, Edit]:
    """Return the edits named by "all", "basic", a list such as "crop50,mirror", or names. Raises OptionError."""
    if names == "all":
        return EDITS
    if names == "basic":
        return {name: edit for name, edit in EDITS.items() if edit.is_basic}
    wanted = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    if unknown := [name for name in wanted if name not in EDITS]:
        raise OptionError(f"Unknown edit {unknown[0]!r}. Choose from {', '.join(EDITS)}; or all, or basic.")
    return {name: EDITS[name] for name in wanted}


def whitening_named(text: str) -> WhiteningOptions | None:
    """Parse "auto" (None: that of the index), "none", "384" or "384:0.5". Raises OptionError."""
    if text == "auto":
        return None
    if text == "none":
        return WhiteningOptions(dim=0)
    dim, _, shrinkage = text.partition(":")
    try:
        options = WhiteningOptions(int(dim), float(shrinkage or WHITENING.least_shrinkage))
    except ValueError:
        options = None
    if options is None or options.dim < 1 or not 0 <= options.shrinkage <= 1:
        raise OptionError(
            f"Unknown whitening {text!r}. Use auto, none, or dimensions and shrinkage such as 384:0.5."
        )
    return options


class _Checks:
    """Re-ranks the best answers to many queries, and caches the local features of the photos."""

    def __init__(self, index: ImageIndex, searcher: Searcher) -> None:
        reranker = reranker_of(index) if is_available(index.root) else None
        if reranker is None:
            raise PhotosError(
                f"Re-ranking needs the photos, but {index.root} is not a folder. Pass ",
                option("rerank", False),
                ".",
            )
        self._reranker, self._searcher = reranker, searcher
        self._known: dict[int, PhotoFeatures | None] = {}

    def raised(
        self, picture: View, similarities: NDArray[np.float32], among: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """Return the similarities by row, float32 (n,), those of the best answers raised by their alignment.

        Only the rows that are True in `among`, bool (n,), are answers.
        """
        query = self._reranker.query_features(picture)
        count = len(self._searcher.paths)
        mask = np.ones(count, bool) if among is None else among
        found = self._searcher.candidates(
            query.embeddings, ALIGN.candidates, Selection(mask), Sought(query.hashes, count), query.inside
        )
        results = judged(query, found, self._features([candidate.row for candidate in found]), count)
        raised = similarities.copy()
        for candidate, result in zip(found, results, strict=True):
            raised[candidate.row] = result.similarity
        return raised

    def _features(self, rows: list[int]) -> list[PhotoFeatures | None]:
        new = [row for row in rows if row not in self._known]
        if len(self._known) + len(new) > ALIGN.remembered:
            self._known, new = {}, rows
        self._known.update(
            zip(new, self._reranker.photo_features([self._searcher.paths[row] for row in new]), strict=True)
        )
        return [self._known[row] for row in rows]


def _view(index: ImageIndex, source: Source) -> View:
    return decoders_of(index).view(source, index.spec.size, index.spec.resize, longer=KEYPOINTS.pixels)


def _readable(index: ImageIndex, path: str) -> View | None:
    try:
        return _view(index, Source(path, index.root or Path()))
    except ImageError:
        return None


def _sample(searcher: Searcher, count: int, seed: int) -> list[int]:
    """Return random rows, without blank photos; paths and seed alone determine which, and their order."""
    blank = set(searcher.blank.tolist())
    rows = sorted((path, row) for row, path in enumerate(searcher.paths) if row not in blank)
    if not rows:
        raise PhotosError("The index contains no photo to make copies of.")
    chosen = random.Random(seed).sample(rows, min(count, len(rows)))  # noqa: S311 - must be repeatable
    return [row for _, row in chosen]


def _copies(
    index: ImageIndex, searcher: Searcher, row: int, edits: Mapping[str, Edit], seed: int
) -> Iterator[tuple[str, bytes]]:
    path = searcher.paths[row]
    photo = _photo(index, path)
    for name, edit in edits.items():
        key = f"{seed} {path} {name}"
        others: Sequence[Image.Image] = ()
        if name == COLLAGE:
            generator = random.Random(key)  # noqa: S311
            others = [_photo(index, generator.choice(searcher.paths)) for _ in range(COLLAGE_OTHERS)]
        yield name, edited(photo, edit, key, others)


def _photo(index: ImageIndex, path: str) -> Image.Image:
    return decoders_of(index).picture(Source(path, index.root or Path()), MEASURE.copy_pixels)


def _check_save(index: ImageIndex, folder: Path) -> None:
    """Raise OptionError for a folder with files in it, and for one whose photos the next update would index."""
    check_empty(folder)
    if index.root is not None and is_indexed(folder, index.root):
        raise OptionError(
            f"{folder} is in the photo folder {index.root}, so the next update would index the copies. Save them "
            "elsewhere, or in a folder whose name begins with a dot."
        )


def _save(copies: Mapping[str, bytes], folder: Path, path: str) -> None:
    for edit, data in copies.items():
        file = folder / f"{path}.{edit}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        with naming(file), file.open("xb") as opened:
            opened.write(data)


def _ranked(similarities: NDArray[np.float32], relevant: NDArray[np.bool_], most: int) -> Answers:
    order = np.argsort(-similarities, kind="stable")[:most]
    return Answers(similarities[order], relevant[order], int(relevant.sum()))


def _tally(found: Sequence[Answers]) -> Tally:
    tally = Tally()
    for answers in found:
        tally.add(answers.similarities, answers.relevant, answers.total)
    return tally
