"""vggsearch build, from the store to the command line: plans, updates, interruptions and messages."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.fakes import FakeEngine
from tests.helpers.labelled import photo_of
from tests.helpers.vectors import families
from tests.make_golden_index import SMALL_SPEC
from vggsearch.cli import cli
from vggsearch.defaults import BUILD
from vggsearch.errors import OptionError
from vggsearch.image_index import ImageIndex, searcher_of
from vggsearch.indexing.build import build_vector_index
from vggsearch.indexing.integrity import verify
from vggsearch.knn.recipes import RECIPES, faiss_metric
from vggsearch.knn.vectors import unit_rows
from vggsearch.store.manifest import read_manifest
from vggsearch.store.records import Embedded
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

ROWS = 1000


def some_photos(start: int, count: int) -> list[Embedded]:
    vectors = unit_rows(families(ROWS * 2, dim=SMALL_SPEC.dim))[start : start + count]
    return [photo_of(row, f"{row:05}.jpg", vector) for row, vector in enumerate(vectors, start)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An index of a thousand photos in two parts, without a vector index."""
    store = Store.create(tmp_path / "index", SMALL_SPEC)
    with writing(store) as writer:
        writer.commit(some_photos(0, 600))
        writer.commit(some_photos(600, 400))
    return tmp_path / "index"


@pytest.fixture(autouse=True)
def fewer_tuning_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy of tuning is tested in test_recipes; here it only has to run."""
    monkeypatch.setattr("vggsearch.knn.tune.BUILD", replace(BUILD, tuning_queries=100, timed_queries=20))


def opened(directory: Path) -> ImageIndex:
    return ImageIndex.open(directory, engine=FakeEngine(SMALL_SPEC.dim))


def recipe_of(index: ImageIndex) -> str | None:
    facts = index.info().search
    return facts.recipe if facts is not None else None


def change(directory: Path, gone: list[int], added: tuple[int, int], *, compact: bool = False) -> None:
    """Change an index as an update does."""
    store = Store.open(directory)
    with writing(store) as writer:
        writer.commit(some_photos(*added), [f"{row:05}.jpg" for row in gone])
        build_vector_index(store, writer)
        if compact:
            writer.compact()


def assert_finds_all(directory: Path, least: float = 0.97) -> None:
    """Every photo finds itself at 1.0, and the ten nearest as numpy does."""
    with opened(directory) as index:
        searcher = searcher_of(index)
        embeddings = index.embeddings()
        exact = searcher.similarities(embeddings)
        row_of = {path: row for row, path in enumerate(searcher.paths)}
        tenth = np.sort(exact)[:, -10]
        right = []
        for path, row in list(row_of.items())[::7]:
            found = searcher.nearest(embeddings[row], 10, own_path=path)
            assert (found[0].path, found[0].similarity) == (path, 1.0)
            assert [match.similarity for match in found] == sorted((m.similarity for m in found), reverse=True)
            for match in found:
                assert match.similarity == pytest.approx(exact[row, row_of[match.path]], abs=1e-4)
            right.append(np.mean([match.similarity >= tenth[row] - 1e-3 for match in found]))
        assert np.mean(right) >= least


@pytest.mark.parametrize(
    ("recipe", "is_whitened", "metric"),
    [(name, True, "cosine") for name in (*RECIPES, "IVF8,SQ4")]
    + [("flat", False, "cosine"), ("ivf-pq", False, "cosine")]
    + [pytest.param(name, True, "euclidean", marks=pytest.mark.slow) for name in (*RECIPES, "IVF8,SQ4")],
)
def test_every_recipe_is_built_remembered_updated_and_verified(
    directory: Path, recipe: str, is_whitened: bool, metric: str
) -> None:
    if not is_whitened:
        with writing(Store.open(directory)) as writer:
            writer.set_whitened(False)
    with opened(directory) as index:
        made = index.build(recipe=recipe, recall=0.98, metric=metric)
        assert (made.facts.recipe, made.photos, made.facts.whitening is not None) == (recipe, ROWS, is_whitened)
        assert made.facts.recall is not None
        assert made.facts.recall >= (0.98 if recipe != "ivf-rabitq" else 0.95)  # whitened, all are as unlike
    assert_finds_all(directory)
    change(directory, gone=list(range(0, 200, 2)), added=(ROWS, 150), compact=True)
    change(directory, gone=[1, 3, 700, 1100], added=(ROWS + 150, 10))
    facts = opened(directory).info().search
    assert facts is not None
    assert (facts.recipe, facts.trained_rows) == (recipe, ROWS if recipe != "flat" else ROWS + 50 + 10 - 4)
    assert len(opened(directory)) == ROWS + 56
    assert searcher_of(opened(directory)).index.core.metric_type == faiss_metric(metric)
    assert_finds_all(directory, least=0.94)
    assert verify(directory).findings == ()


def test_an_index_that_grew_or_lost_much_is_rebuilt(directory: Path) -> None:
    with opened(directory) as index:
        index.build(recipe="ivf-sq8")
    change(directory, gone=list(range(300)), added=(ROWS, 1))  # a third of all vectors would be holes
    facts = opened(directory).info().search
    assert facts is not None
    assert facts.trained_rows == 701
    assert not list(directory.rglob("slots.npy"))
    change(directory, gone=[], added=(ROWS + 1, 400))
    facts = opened(directory).info().search
    assert facts is not None
    assert facts.trained_rows == 1101
    assert_finds_all(directory)


def test_a_damaged_vector_index_is_not_reused(directory: Path) -> None:
    with opened(directory) as index:
        index.build(recipe="ivf-sq8")
    vectors = next(directory.rglob("vectors.npy"))
    data = bytearray(vectors.read_bytes())
    data[len(data) // 2] ^= 0xFF
    vectors.write_bytes(data)
    change(directory, gone=[], added=(ROWS, 5))
    assert verify(directory).findings == ()
    assert_finds_all(directory)


def test_too_few_photos_for_the_recipe_get_the_closest_one(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(directory) as index:
        index.build(recipe="ivf-sq8")
    change(directory, gone=list(range(900)), added=(0, 0))
    assert "needs at least 156 photos to train on, but there are 100" in caplog.text
    with opened(directory) as index:
        assert (recipe_of(index), index.info().wanted.recipe) == ("flat", "ivf-sq8")
    change(directory, gone=[], added=(ROWS, 500))
    assert recipe_of(opened(directory)) == "ivf-sq8"


def test_auto_decides_again_as_the_collection_grows(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggsearch.knn.recipes.BUILD", replace(BUILD, most_flat_rows=1200))
    with opened(directory) as index:
        assert index.build().facts.recipe == "flat"
    change(directory, gone=[], added=(ROWS, 300))
    assert recipe_of(opened(directory)) == "ivf-pq"
    assert_finds_all(directory)


def test_auto_tries_the_next_recipe_if_the_recall_is_too_low(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vggsearch.knn.recipes.BUILD", replace(BUILD, most_flat_rows=100))
    # Without more candidates than are asked for, codes of two numbers cannot tell the nearest.
    monkeypatch.setattr("vggsearch.knn.tune.BUILD", replace(BUILD, tuning_queries=100, most_candidates=1))
    with opened(directory) as index:
        facts = index.build(recall=0.9).facts
        assert (facts.recipe, facts.factory) == ("ivf-sq8", "IVF16,SQ8")
        assert facts.recall is not None
        assert facts.recall >= 0.9
        (warning,) = caplog.messages
        assert re.fullmatch(
            r"ivf-pq finds 0\.\d+ of the ten nearest here, not 0.9. Building ivf-sq8 instead.", warning
        )
        caplog.clear()
        assert index.build(recipe="ivf-pq", recall=0.9).facts.recipe == "ivf-pq"  # who asks for it by name gets it
        assert "ivf-sq8 has a higher recall than ivf-pq" in caplog.messages[0]
        index.build(recipe="auto", recall=0.9)
    caplog.clear()
    change(directory, gone=list(range(0, 100, 3)), added=(ROWS, 30))
    side = opened(directory).info().search
    assert side is not None
    assert (side.recipe, side.trained_rows, caplog.messages) == ("ivf-sq8", ROWS, [])  # changed in place
    assert_finds_all(directory, least=0.85)


def test_impossible_options_change_nothing(directory: Path) -> None:
    with opened(directory) as index:
        index.build(recipe="flat")
        before = read_manifest(directory)
        for recipe, memory in (("IVF4096,SQ8", None), ("flat", 1000), ("IVF8,PQ16,RFlat", None), ("what", None)):
            with pytest.raises(OptionError):
                index.build(recipe=recipe, memory=memory)
    assert read_manifest(directory) == before


def test_a_reader_keeps_its_open_index_and_reopens_the_new_one(directory: Path) -> None:
    with opened(directory) as reader:
        reader.build(recipe="ivf-sq8")
        searcher = searcher_of(reader)
        query = reader.embeddings()[5]
        before = searcher.nearest(query, 20)
        change(directory, gone=[7, 8], added=(ROWS, 30))
        assert searcher.nearest(query, 20) == before
        assert len(searcher_of(reader).paths) == ROWS + 28
        reader.build(recipe="ivf-rabitq")
        assert searcher_of(reader).index.tuning.candidates > 1


BUILD_UNTIL = """
import sys
from vggsearch import ImageIndex
def show(progress):
    if progress.stage.startswith(sys.argv[2]):
        print(progress.stage, progress.done, flush=True)
        sys.stdin.read()  # stops here until it is broken off
with ImageIndex.open(sys.argv[1]) as index:
    index.build(recipe="ivf-rabitq", progress=show)
"""


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("adding", signal.SIGKILL),
        ("measuring", signal.SIGINT),
    ],
)
def test_an_interrupted_build_leaves_the_old_index_in_use(
    directory: Path, stage: str, number: signal.Signals
) -> None:
    with opened(directory) as index:
        index.build(recipe="ivf-sq8")
        before = read_manifest(directory)
        answers = searcher_of(index).nearest(index.embeddings()[3], 10)
    command = [sys.executable, "-c", BUILD_UNTIL, str(directory), stage]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(stage)
        os.kill(process.pid, number)
    assert process.returncode != 0
    assert read_manifest(directory) == before
    with opened(directory) as index:
        assert searcher_of(index).nearest(index.embeddings()[3], 10) == answers
        assert verify(directory).findings == ()
        assert index.build(recipe="ivf-rabitq").facts.recipe == "ivf-rabitq"
    assert len(list((directory / "search").iterdir())) == 1


@pytest.mark.slow
def test_memory_is_that_of_the_sample_and_the_index_only(tmp_path: Path) -> None:
    """A build in a process that may not have more memory than the vectors alone would take in float32."""
    code = """
import resource, sys
import numpy as np
from pathlib import Path
from vggsearch.knn.build import build
from vggsearch.knn.faiss_import import faiss
from vggsearch.knn.recipes import plan
from vggsearch.progress import SILENT
faiss()
blocks = (np.random.default_rng(seed).standard_normal((5000, 256)).astype(np.float16) for seed in range(40))
planned = plan(200_000, 256, "IVF64,RaBitQ", 10**9, 0.99)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
build(Path(sys.argv[1]), blocks, planned, None, SILENT)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    mapped = 200_000 * 256 * 2  # the file of vectors counts while it is mapped, and can be let go at any time
    assert int(done.stdout) < mapped + 120e6 < 200_000 * 256 * 4 + 20e6


def run(*words: str) -> Callable[[], str]:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return lambda: result.output


def test_the_command_shows_its_plan_builds_and_info_shows_the_result(directory: Path) -> None:
    result = CliRunner().invoke(
        cli, ["build", "--index", str(directory), "--recipe", "ivf-sq8", "--memory", "1G", "--metric", "euclidean"]
    )
    assert result.exit_code == 0, result.output
    assert "ivf-sq8 (IVF16,SQ8)" in result.stderr
    assert "Built from 1,000 photos in" in result.stdout
    assert "of 16 lists" in result.stdout
    assert "recall 0.9" in result.stdout or "recall 1.0" in result.stdout
    told = run("info", "--index", str(directory))()
    assert "ivf-sq8" in told
    assert "of the ten nearest in" in told
    values = json.loads(run("info", "--index", str(directory), "--format", "json")())
    assert values["search"]["factory"] == "IVF16,SQ8"
    assert values["wanted"] == {"recipe": "ivf-sq8", "memory": 10**9, "recall": 0.99, "metric": "euclidean"}


def test_a_dry_run_changes_nothing_and_the_list_needs_no_index(directory: Path, tmp_path: Path) -> None:
    before = read_manifest(directory)
    told = json.loads(run("build", "--index", str(directory), "--dry-run", "--format", "json")())
    assert (told["recipe"], told["rows"]) == ("flat", ROWS)
    assert read_manifest(directory) == before
    listed = json.loads(run("build", "--list", "--format", "json")())
    assert [row["recipe"] for row in listed] == list(RECIPES)
    assert (listed[2]["recipe"], listed[2]["factory"]) == ("ivf-pq", "IVF{lists},PQ{groups}x4fs")
    assert (listed[2]["bytes_per_photo"], listed[2]["remove"], listed[2]["memory_map"]) == (104, False, False)
    assert "ivf-rabitq" in run("build", "--list")()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--recipe", "IVF4096,Flat"],
            "needs at least 159,744 photos to train on, but there are 1,000. Use --recipe flat",
        ),
        (["--recipe", "hnsw", "--memory", "1M"], "more than 1.0 MB. Pass --memory 2M or --recipe ivf-pq."),
        (["--recall", "0"], "0"),
        (["--memory", "many"], "'many' is not a size, such as 500M or 4G."),
        (["--recipe", "ivf-sq8", "--recall", "1"], "A recall of 1 needs --recipe flat"),
    ],
)
def test_impossible_options_are_one_line_and_exit_status_2(directory: Path, words: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["build", "--index", str(directory), *words])
    assert result.exit_code == 2
    assert message in result.stderr


def bytes_read() -> int:
    """How much this process has read from files, other than through memory maps."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts what a process reads")
def test_a_hundred_thousand_rows_open_at_once(tmp_path: Path) -> None:
    from tests.helpers.vectors import saved

    stored = families(100_000)
    index = saved(tmp_path / "x", stored, "IVF16,SQ8")
    before = bytes_read()
    index = type(index).open(tmp_path / "x", 100_000, stored.shape[1])
    assert bytes_read() - before < stored.nbytes / 100, "the vectors are mapped, not read"
    assert index.nearest(unit_rows(stored[:1]), 1)[0][0, 0] == 0
