"""The public API as a typed program calls it. mypy checks this file; nothing runs it.

Each `assert_type` fails in mypy where a call no longer returns what it says.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import vggsearch
from vggsearch import (
    Answer,
    BenchReport,
    BuildPlan,
    BuildReport,
    CopiesReport,
    Decision,
    DuplicatesReport,
    EmbeddingOptions,
    EmbeddingSpec,
    Engine,
    EngineOptions,
    EngineReport,
    EvaluationReport,
    Group,
    Groups,
    ImageIndex,
    ImportedDecisions,
    Info,
    Match,
    NetworkReport,
    Pairs,
    Pick,
    ProbeReport,
    Progress,
    QueryResult,
    QueryResults,
    RemovalPlan,
    RemovalReport,
    SkippedFiles,
    Stopped,
    UndoReport,
    UpdateReport,
    VerifyReport,
)


def show(progress: Progress) -> None:
    assert_type(progress.done, int)
    assert_type(progress.note, str)


def stop() -> bool:
    return False


def opening(folder: Path) -> Iterator[ImageIndex]:
    options, runs_on = EmbeddingOptions(layer="pool5", size="160+224"), EngineOptions("openvino", precision="int8")
    yield ImageIndex.create("indexes/a", options, engine_options=runs_on)
    yield ImageIndex.open(folder, options, engine_options=runs_on, root="photos")
    with ImageIndex.for_photos(folder, "indexes/b", options) as index:
        yield index


def maintaining(index: ImageIndex) -> None:
    report = index.update(
        "photos",
        workers=4,
        allow_empty=True,
        moved=True,
        retry_skipped=True,
        compact=True,
        whiten=False,
        local_features=True,
        progress=show,
        stop=stop,
    )
    assert_type(report, UpdateReport)
    assert_type(report.skipped, SkippedFiles)
    plan = index.plan_build(recipe="auto", memory=10**9, recall=0.99, metric="cosine")
    assert_type(plan, BuildPlan)
    assert_type(index.build(recipe="flat", progress=show, stop=stop), BuildReport)
    assert_type(index.verify(repair=True, progress=show, stop=stop), VerifyReport)
    assert_type(vggsearch.verify("indexes/a", repair=True), VerifyReport)
    assert_type(index.info(), Info)
    assert_type(index.spec, EmbeddingSpec)
    assert_type(index.engine, Engine)
    assert_type(index.directory, Path)
    assert_type(index.root, Path | None)
    assert_type(len(index), int)
    assert_type(index.paths(), list[str])


def querying(index: ImageIndex, others: list[ImageIndex], pixels: NDArray[np.uint8]) -> None:
    result = index.query(
        Image.open("a.jpg"),
        5,
        min_similarity=0.5,
        rerank=False,
        crop=(0, 0, 10, 10),
        containing=True,
        filters=["2019/**", "size:1000.."],
        exclude_same_folder=True,
        minus=("b.jpg", b"bytes"),
        also_in=others,
    )
    assert_type(result, QueryResult)
    assert_type(result.matches, tuple[Match, ...])
    index.query(["a.jpg", Path("b.jpg")], filters="2019/**")
    many = index.query_many([pixels, "a.jpg", ["a.jpg", b"bytes"]], count=3, rerank=True)
    assert_type(many, QueryResults)
    for answer in many:
        assert_type(answer, Answer)
        assert_type(answer.query if isinstance(answer, QueryResult) else answer.reason, str)
    assert_type(index.random(3, filters="*.png", seed=1, also_in=others), tuple[Pick, ...])
    assert_type(index.embeddings(), NDArray[np.float32])
    assert_type(index.embed(pixels), NDArray[np.float32])
    assert_type(index.embed_many([pixels, "a.jpg"]), NDArray[np.float32])


def removing(index: ImageIndex, other: ImageIndex) -> None:
    report = index.duplicates(
        min_precision=0.99,
        threshold=None,
        keep="oldest",
        protect=["best"],
        min_size=2,
        within_folder=False,
        across_folders=True,
        similar=True,
        siblings=True,
        confirm=False,
        kinds=["exact"],
        group_of="a.jpg",
        filters="*.png",
        against=other,
        progress=show,
        stop=stop,
    )
    assert_type(report, DuplicatesReport)
    assert_type(report.groups, Groups)
    assert_type(report.groups[0], Group)
    assert_type(report.pairs, Pairs)
    assert_type(report.in_review_order(), Groups)
    assert_type(index.decide("same", ["a.jpg", "b.jpg"]), Decision)
    assert_type(index.import_decisions("decisions.jsonl"), ImportedDecisions)
    plan = index.plan_removal(report, "move:away", protect=["best"], raw_pairs=True)
    assert_type(plan, RemovalPlan)
    done = index.remove(plan, progress=show, stop=stop)
    assert_type(done, RemovalReport)
    assert_type(vggsearch.undo(done.journal, "photos", progress=show, stop=stop), UndoReport)
    vggsearch.write_html(report, "dups.html", groups=report.in_review_order(), progress=show, stop=stop)


def measuring(index: ImageIndex) -> None:
    found = vggsearch.evaluate(index, {"a.jpg": "cat"}, whiten="none", rerank=False, progress=show, stop=stop)
    assert_type(found, EvaluationReport)
    assert_type(vggsearch.evaluate(index, "truth.tsv"), EvaluationReport)
    assert_type(vggsearch.evaluate_copies(index, edits="basic", sample=["a.jpg"], save="copies"), CopiesReport)
    assert_type(vggsearch.evaluate_probe(index, Path("classes.tsv")), ProbeReport)
    assert_type(vggsearch.bench("photos", EmbeddingOptions(), engine_options=EngineOptions()), BenchReport)
    assert_type(vggsearch.compare_engines(progress=show), list[EngineReport])
    assert_type(vggsearch.compare_networks(measure=True), list[NetworkReport])


def converting(index: ImageIndex, result: QueryResult) -> None:
    assert_type(index.to_arrow(), Any)
    assert_type(result.to_pandas(), Any)


def stopping(index: ImageIndex) -> UpdateReport | None:
    with vggsearch.progress_bar() as progress:
        try:
            return index.update(progress=progress)
        except Stopped as stopped:
            return stopped.report if isinstance(stopped.report, UpdateReport) else None


def two_numbers(done: int, total: int) -> None:
    assert done <= total


def wrong(index: ImageIndex) -> None:
    """What mypy is to refuse: it would say that an ignore is unused."""
    index.build("flat")  # type: ignore[call-arg]
    index.duplicates(precision=0.9)  # type: ignore[call-arg]
    index.query("a.jpg", verify=True)  # type: ignore[call-arg]
    index.decide("equal", ["a.jpg", "b.jpg"])  # type: ignore[arg-type]
    index.update(progress=two_numbers)  # type: ignore[arg-type]
