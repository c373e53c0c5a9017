"""The benchmark on libraries: what it makes, and that it measures it."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "library.py"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.network
def test_a_small_library_has_a_truth_and_is_measured(sample_photos: Path, tmp_path: Path) -> None:
    made = run("make", tmp_path / "library", sample_photos, "--number", "12", "--copies", "0.5", "--seed", "3")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "library-12-3"
    with (folder / "truth.tsv").open(newline="") as file:
        truth = list(csv.DictReader(file, delimiter="\t"))
    pictures = [path for path in (folder / "photos").rglob("*") if path.is_file() and path.suffix != ".xmp"]
    assert sorted(folder / "photos" / row["path"] for row in truth) == sorted(pictures)
    assert Counter(row["is_copy"] for row in truth)["True"] == 6
    originals = {row["exposure"] for row in truth if row["is_copy"] == "False"}
    assert {row["exposure"] for row in truth} == originals

    measured = run("measure", folder)
    assert measured.returncode in (0, 1), measured.stderr
    assert "of 6 copies found" in measured.stdout
