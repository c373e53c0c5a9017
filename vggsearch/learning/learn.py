"""Learn a transform of embeddings from labels, for queries, and tell whether it is better."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import LEARN
from vggsearch.errors import LearnedWorse, Spelled, TruthError, option
from vggsearch.indexing.build import set_learned
from vggsearch.knn.vectors import unit_rows
from vggsearch.knn.whitening import Whitening
from vggsearch.learning.labelled import (
    LabelledPhotos,
    Labels,
    background_rows,
    check_counts,
    decided_labels,
    embeddings_at,
    labelled_photos,
    labels_of,
    warn_of_copies,
)
from vggsearch.learning.projection import Projections
from vggsearch.learning.validation import (
    SIDES,
    Quality,
    Setting,
    Side,
    Transform,
    Validation,
    best_setting,
    settings_for,
)
from vggsearch.progress import Monitor
from vggsearch.query.snapshot import LatestSnapshot, Snapshot
from vggsearch.store.manifest import WhiteningInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing
from vggsearch.tables import Table, Tabular, arrow_table

COLUMNS = {"embeddings": "string", "photos": "string", "queries": "int64"} | {
    f"{figure}{end}": "double" for figure in ("map", "recall_at_1", "pair_ap") for end in ("", "_low", "_high")
}
ROWS = {
    "network": "as the network computes them",
    "index": "whitened, as the index is",
    "discriminant": "linear discriminant analysis, for comparison",
    "learned": "learned",
}
"""What is compared: unit embeddings, the present vectors, and two transforms learned from the labels."""
Name = Literal["network", "index", "discriminant", "learned"]


@dataclass(frozen=True)
class LearnReport(Tabular):
    """What was learned from `photos` labelled photos with `labels` labels, and how good it is.

    `setting` was chosen by cross-validation. `held` is the quality on photos that were not learned from, whose
    labels were, and `unseen` on photos of labels that were not learned from at all: of the embeddings as the
    "network" computes them, as the "index" is whitened, under a linear "discriminant", and as "learned". Of the
    photos, `copies` are copies of others. `is_saved` is whether queries use it now.

    >>> before, after = (Quality(50, *[Measured(value, Interval(0.5, 1.0))] * 3) for value in (0.6, 0.8))
    >>> held, unseen = {"network": before, "learned": after}, {"network": after, "learned": before}
    >>> LearnReport(200, 10, 0, 300, Setting(0.5, 128), held, unseen).problem
    'on labels it was not learned from, its mAP is 0.600, below 0.800 without it'
    """

    photos: int
    labels: int
    copies: int
    background: int
    setting: Setting
    held: dict[Name, Quality]
    unseen: dict[Name, Quality]
    is_saved: bool = False

    @property
    def problem(self) -> str | None:
        """Why it should not be used: on which photos it finds less than the index does already; None if on none."""
        for where, found in (("labels it was not learned from", self.unseen), ("photos held out", self.held)):
            before = max(found[name].map.value for name in BEFORE if name in found)
            after = found["learned"].map.value
            if after < before:
                return f"on {where}, its mAP is {after:.3f}, below {before:.3f} without it"
        return None

    @property
    def note(self) -> str | None:
        """How recall@1 falls on labels that were not learned from, None if it does not.

        It falls if it is below the interval of what finds most there before. That does not keep what was learned
        from being stored: mAP, which counts all photos of a label, decides.
        """
        known = [self.unseen[name].recall_at_1 for name in BEFORE if name in self.unseen]
        before = max(known, key=lambda each: each.value)
        after = self.unseen["learned"].recall_at_1.value
        if after >= before.interval.low:
            return None
        return f"on labels it was not learned from, recall@1 falls from {before.value:.3f} to {after:.3f}"

    def to_arrow(self) -> Table:
        """Return one row per embeddings and photos: the figures, each with its 95 % interval."""
        return arrow_table(COLUMNS, self.rows())

    def rows(self) -> list[tuple[object, ...]]:
        """Return the rows of the table, in the order of COLUMNS."""
        sides: list[tuple[Side, dict[Name, Quality]]] = [("held", self.held), ("unseen", self.unseen)]
        return [(name, side, *_values(quality)) for side, found in sides for name, quality in found.items()]


BEFORE: tuple[Name, ...] = ("network", "index")


def _values(quality: Quality) -> list[float]:
    figures = (quality.map, quality.recall_at_1, quality.pair_ap)
    return [
        quality.queries,
        *(end for each in figures for end in (each.value, each.interval.low, each.interval.high)),
    ]


def learn(
    store: Store,
    latest: LatestSnapshot,
    labels: Labels | None,
    *,
    even_if_worse: bool,
    monitor: Monitor,
) -> LearnReport:
    """Learn from labels, or from the user's decisions if there are none, and store it; see ImageIndex.learn."""
    given = store.read_consistently(decided_labels) if labels is None else labels_of(labels)
    if labels is None and not given:
        raise TruthError(
            f"{store.directory} has no decisions to learn from. Name a file of labels, or decide about photos: ",
            Spelled('index.decide("same", PHOTOS)', "vggsearch dups decide --same PHOTO PHOTO"),
        )
    photos, others, present = latest.read(lambda state: _read(state, given, by_bytes=labels is None))
    check_counts(photos, LEARN.fewest_photos)
    warn_of_copies(photos)
    chosen, report = _validated(photos, others, present, monitor)
    if report.problem is not None and not even_if_worse:
        raise LearnedWorse(
            f"What was learned is not stored: {report.problem}. Label more photos or more kinds of them, or pass ",
            option("even_if_worse"),
            ".",
            report=report,
        )
    projections = Projections(photos.embeddings, photos.label, others)
    [transform] = projections.whitenings(chosen.shrinkage, [chosen.dim])
    set_learned(store, transform, WhiteningInfo(len(photos), transform.dim, chosen.shrinkage), monitor)
    return replace(report, is_saved=True, setting=replace(chosen, dim=transform.dim))


def forget(store: Store) -> bool:
    """Have queries search as if nothing had been learned; return whether something had been."""
    with writing(store) as writer:
        had = store.manifest.learned is not None
        writer.forget_learned()
    return had


def _read(
    state: Snapshot, labels: Mapping[str, str], *, by_bytes: bool
) -> tuple[LabelledPhotos, NDArray[np.float32], Whitening | None]:
    """Return the labelled photos, the embeddings of others, and the whitening of the index."""
    photos = labelled_photos(state, labels, by_bytes=by_bytes)
    others = embeddings_at(state.store, background_rows(state, photos))
    return photos, others, state.searcher.index.whitening


def _validated(
    photos: LabelledPhotos, others: NDArray[np.float32], present: Whitening | None, monitor: Monitor
) -> tuple[Setting, LearnReport]:
    """Choose a setting, and report on it.

    In the report, the setting of each round is the one that is best in all other rounds, so that none was chosen by
    the photos that it is tested on.
    """
    validation = Validation(photos, others, monitor)
    settings = settings_for(photos.embeddings.shape[1])
    learned, discriminants = validation.learned(settings)
    before: dict[Name, Transform] = {"network": unit_rows}
    if present is not None:
        before["index"] = present.apply
    rounds = range(LEARN.rounds)
    unseen_before = np.stack([validation.precisions([each] * LEARN.rounds, "unseen") for each in before.values()])
    least = unseen_before[int(np.argmax(np.nanmean(unseen_before, axis=1)))]
    by_setting = [[learned[each][place].apply for each in rounds] for place in range(len(settings))]
    held, unseen = (
        np.stack([validation.precisions(transforms, side) for transforms in by_setting]) for side in SIDES
    )
    chosen = [
        best_setting(*(np.delete(each, place, axis=-1) for each in (held, unseen, least))) for place in rounds
    ]
    compared: dict[Name, list[Transform]] = {
        **{name: [each] * LEARN.rounds for name, each in before.items()},
        "discriminant": [each.apply for each in discriminants],
        "learned": [by_setting[chosen[place]][place] for place in rounds],
    }
    qualities = {
        side: {name: validation.quality(transforms, side) for name, transforms in compared.items()}
        for side in SIDES
    }
    setting = settings[best_setting(held, unseen, least)]
    report = LearnReport(
        len(photos), len(photos.names), photos.copies, len(others), setting, qualities["held"], qualities["unseen"]
    )
    return setting, report
