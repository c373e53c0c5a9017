"""Inverted lists built in shards and merged on disk: the file equals the one that FAISS writes from memory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.elsewhere import Elsewhere
from tests.helpers.vectors import DIM, families
from vggsearch.defaults import BUILD
from vggsearch.errors import OptionError
from vggsearch.knn.build import Extended, build, build_from_previous, whitened_blocks
from vggsearch.knn.files import INDEX_FILE, VECTORS_FILE, read_index
from vggsearch.knn.recipes import ivf_of, plan
from vggsearch.knn.tasks import HERE, Tasks
from vggsearch.knn.vector_index import VectorIndex
from vggsearch.progress import SILENT
from vggsearch.render import build as report

ROWS = 4000


@pytest.fixture(scope="module")
def stored() -> NDArray[np.float16]:
    return families(ROWS)


def built(directory: Path, stored: NDArray[np.float16], recipe: str, shard_rows: int, tasks: Tasks = HERE) -> Path:
    directory.mkdir()
    planned = replace(plan(ROWS, DIM, recipe, 10**9, 0.99), shard_rows=shard_rows)
    build(directory, [stored], planned, None, SILENT, tasks)
    assert {path.name for path in directory.iterdir()} == {INDEX_FILE, VECTORS_FILE}
    return directory / INDEX_FILE


@pytest.mark.parametrize(
    "recipe", ["ivf-flat", "ivf-sq8", "ivf-rabitq", "ivf-pq", "PCA24,IVF32,SQ8", "IVF32_HNSW32,SQ4"]
)
@pytest.mark.parametrize("shard_rows", [1, 3])
def test_merged_shards_equal_what_faiss_writes_from_memory(
    recipe: str, shard_rows: int, stored: NDArray[np.float16], tmp_path: Path
) -> None:
    whole = built(tmp_path / "whole", stored, recipe, ROWS)
    split = built(tmp_path / "split", stored, recipe, -(-ROWS // 3) if shard_rows == 3 else ROWS - 1)
    assert split.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("recipe", ["ivf-sq8", "ivf-pq"])
def test_shards_that_were_encoded_elsewhere_give_the_same_file(
    recipe: str, stored: NDArray[np.float16], tmp_path: Path
) -> None:
    whole = built(tmp_path / "whole", stored, recipe, ROWS)
    tasks = Elsewhere(700)
    split = built(tmp_path / "split", stored, recipe, tasks.share(ROWS), tasks)
    assert split.read_bytes() == whole.read_bytes()
    assert tasks.done == 6
    assert tasks.sent < 700 * DIM * 2 + 5000  # the vectors of one shard, and not the index


@pytest.mark.parametrize("recipe", ["ivf-flat", "ivf-sq8", "ivf-rabitq"])
def test_an_update_equals_what_faiss_does_in_memory(
    recipe: str, stored: NDArray[np.float16], tmp_path: Path
) -> None:
    built(tmp_path / "old", stored, recipe, 1500)
    old = VectorIndex.open(tmp_path / "old", ROWS, DIM)
    more = families(700, seed=3)
    kept = np.flatnonzero(np.arange(ROWS) % 5 != 2)
    (tmp_path / "new").mkdir()
    extended = Extended(tmp_path / "old", old, kept, whitened_blocks([more], None), 700)
    build_from_previous(tmp_path / "new", extended, 300, SILENT)
    new = VectorIndex.open(tmp_path / "new", len(kept) + 700, DIM)
    assert new.first_difference([stored[kept], more]) is None
    expected = read_index(tmp_path / "old", mapped=False)
    expected.remove_ids(np.setdiff1d(np.arange(ROWS), kept))
    expected.add_with_ids(np.asarray(new.unit_vectors(slice(len(kept), None))), np.arange(ROWS, ROWS + 700))
    for number in range(expected.nlist):
        assert entries(new.core, number) == entries(expected, number)


def entries(core: object, number: int) -> list[tuple[int, bytes]]:
    """What is in one list, in order of slots."""
    from vggsearch.knn.faiss_import import faiss

    ivf = ivf_of(core)
    size = ivf.invlists.list_size(number)
    if not size:
        return []
    ids = faiss().rev_swig_ptr(ivf.invlists.get_ids(number), size)
    codes = faiss().rev_swig_ptr(ivf.invlists.get_codes(number), size * ivf.code_size).reshape(size, -1)
    return sorted((int(slot), code.tobytes()) for slot, code in zip(ids, codes, strict=True))


def test_auto_splits_what_does_not_fit_and_its_plan_shows_it() -> None:
    planned = plan(10_000_000, 256, "auto", 400_000_000, 0.99)
    assert (planned.recipe, planned.rows > planned.shard_rows > BUILD.block_rows) == ("ivf-sq8", True)
    assert planned.memory <= 400_000_000 < 2_000_000_000 < planned.bytes
    assert "the inverted lists stay on disk" in report.plan(planned, "table")
    assert plan(10_000_000, 256, "ivf-flat", 400_000_000, 0.99).memory <= 400_000_000
    with pytest.raises(OptionError, match=r"hnsw needs 1\d.\d GB of memory .*, more than 400.0 MB"):
        plan(10_000_000, 256, "hnsw", 400_000_000, 0.99)


@pytest.mark.slow
def test_a_build_in_shards_needs_no_more_memory_than_planned(tmp_path: Path) -> None:
    """The lists take 213 MB; a process of its own counts what it took."""
    code = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from vggsearch.knn import build, recipes
from vggsearch.progress import Monitor
recipes.BUILD = build.BUILD = replace(build.BUILD, block_rows=8192, lists_of_root=0.2)
planned = recipes.plan(200_000, 256, "ivf-flat", int(sys.argv[2]), 0.99)
blocks = (np.random.default_rng(seed).standard_normal((5000, 256)).astype(np.float16) for seed in range(40))
held = []
def show(progress):
    status = Path("/proc/self/status").read_text()
    if not progress.stage.startswith("reading"):  # FAISS is loaded then
        held.append(int(status.split("RssAnon:")[1].split()[0]) * 1024)
build.build(Path(sys.argv[1]), blocks, planned, None, Monitor(show))
print(planned.shard_rows, max(held) - held[0])
"""
    taken = []
    for name, memory in (("whole", 10**9), ("split", 60_000_000)):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-c", code, str(tmp_path / name), str(memory)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        shard_rows, held = map(int, done.stdout.split())
        assert (shard_rows < 200_000) == (name == "split")
        taken.append(held)
    assert taken[1] < 60_000_000 + 3 * 8192 * 256 * 4 + 20_000_000 < 200_000_000 < taken[0]  # blocks, and threads
