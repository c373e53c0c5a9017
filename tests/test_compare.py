"""Several indexes asked the same: their gains over the first one, and intervals that are paired."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from tests.fakes import FakeEngine
from tests.helpers.labelled import add_photos, kinds_of_photos, path_of
from tests.make_golden_index import SMALL_SPEC
from vggsearch.cli import cli
from vggsearch.errors import OptionError, TruthError
from vggsearch.evaluation.compare import ComparisonReport, compare
from vggsearch.evaluation.evaluate import evaluate
from vggsearch.evaluation.throughput import multiply_adds
from vggsearch.evaluation.work_plot import check_plot_file, save_plot
from vggsearch.image_index import ImageIndex
from vggsearch.knn.vectors import unit_rows
from vggsearch.store.store import Store

KINDS, EACH = 4, 10
LABELS = {path_of(row): f"kind {row // EACH}" for row in range(KINDS * EACH)}


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[list[ImageIndex]]:
    """Two indexes of the same photos, of which the second tells kinds apart more easily."""
    vectors = kinds_of_photos(KINDS, EACH)
    better = vectors.copy()
    better[:, :12] /= 3
    with ExitStack() as opened:
        made = []
        for name, rows in (("first", vectors), ("second", unit_rows(better))):
            Store.create(tmp_path / name, SMALL_SPEC)
            add_photos(tmp_path / name, rows, 0)
            made.append(opened.enter_context(ImageIndex.open(tmp_path / name, engine=FakeEngine(SMALL_SPEC.dim))))
        yield made


def test_gains_are_the_differences_of_what_eval_measures(indexes: list[ImageIndex]) -> None:
    report = compare(indexes, LABELS, rerank=False)
    alone = [evaluate(index, LABELS, rerank=False).figures for index in indexes]
    assert [each.figures for each in report.indexes] == alone
    first, second = report.indexes
    assert (first.map_gain.value, first.map_gain.interval.low, first.map_gain.interval.high) == (0, 0, 0)
    assert second.map_gain.value == pytest.approx(alone[1].map - alone[0].map)
    assert second.recall_at_1_gain.value == pytest.approx(alone[1].recall_at[1] - alone[0].recall_at[1])
    assert 0 < second.map_gain.interval.low < second.map_gain.value < second.map_gain.interval.high
    assert report.queries == len(LABELS)


def test_hard_queries_do_not_widen_the_interval_of_a_gain(indexes: list[ImageIndex]) -> None:
    """They are hard for both: an index, and one with embeddings that differ a little."""
    slightly = Path(str(indexes[0].directory) + " worse")
    Store.create(slightly, SMALL_SPEC)
    noise = np.random.default_rng(3).normal(0, 0.005, (len(LABELS), SMALL_SPEC.dim)).astype(np.float32)
    add_photos(slightly, unit_rows(indexes[0].embeddings() + noise), 0)
    with ImageIndex.open(slightly) as other:
        gain = compare([indexes[0], other], LABELS, rerank=False).indexes[1].map_gain
    assert gain.interval.high - gain.interval.low < 0.05


def test_only_photos_of_all_indexes_are_asked_for(indexes: list[ImageIndex], tmp_path: Path) -> None:
    Store.create(tmp_path / "small", SMALL_SPEC)
    add_photos(tmp_path / "small", kinds_of_photos(1, 4), 0)
    with ImageIndex.open(tmp_path / "small") as small:
        assert compare([*indexes, small], LABELS, rerank=False).queries == 4
        # Each index has one of these photos, and the one is not the other.
        add_photos(tmp_path / "small", kinds_of_photos(1, 1), 99)
        with pytest.raises(TruthError, match="No labelled photo is in all 2 indexes"):
            compare([indexes[0], small], {path_of(8): "a", path_of(99): "a"}, rerank=False)


def test_the_command_line_compares(indexes: list[ImageIndex], tmp_path: Path) -> None:
    truth = tmp_path / "truth.tsv"
    truth.write_text("path\tlabel\n" + "".join(f"{path}\t{label}\n" for path, label in LABELS.items()))
    first, second = (str(index.directory) for index in indexes)
    words = ["eval", str(truth), "--index", first, "--compare", second, "--no-rerank"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.stderr
    assert "40 queries, the same of each index." in done.stdout
    values = json.loads(CliRunner().invoke(cli, [*words, "--format", "json"]).stdout)
    assert [each["index"] for each in values["indexes"]] == [first, second]
    plot = tmp_path / "work.svg"
    assert CliRunner().invoke(cli, [*words, "--plot", str(plot)]).exit_code == 0
    assert "second" in plot.read_text()
    alone = CliRunner().invoke(cli, [*words[:4], "--plot", str(plot)])
    assert (alone.exit_code, "--plot needs --compare" in alone.stderr) == (2, True)
    refused = CliRunner().invoke(cli, [*words, "--linear-probe"])
    assert (refused.exit_code, "cannot be combined" in refused.stderr) == (2, True)


def with_work(report: ComparisonReport, *works: int | None) -> ComparisonReport:
    """Return a report whose indexes have networks with so many multiply-adds."""
    pairs = zip(report.indexes, works, strict=True)
    return replace(report, indexes=tuple(replace(each, multiply_adds=work) for each, work in pairs))


def test_a_dot_is_further_right_with_more_work_and_higher_with_better_answers(
    indexes: list[ImageIndex], tmp_path: Path
) -> None:
    report = compare(indexes, LABELS, rerank=False)
    assert report.indexes[0].multiply_adds == multiply_adds(SMALL_SPEC)
    save_plot(with_work(report, 2_000_000_000, 4_000_000_000), tmp_path / "work.svg")
    root = ElementTree.fromstring((tmp_path / "work.svg").read_text())  # noqa: S314 - our own file
    dots = root.iter("{http://www.w3.org/2000/svg}circle")
    (first_x, first_y), (second_x, second_y) = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in dots]
    assert first_x < second_x
    assert first_y > second_y
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"first", "second", "2G", "5G"} <= set(words)


def test_a_chart_needs_the_work_of_each_network_and_a_file_of_its_own(
    indexes: list[ImageIndex], tmp_path: Path
) -> None:
    report = compare(indexes, LABELS, rerank=False)
    with pytest.raises(OptionError, match="made by a network of your own, is not known"):
        save_plot(with_work(report, 2_000_000_000, None), tmp_path / "work.svg")
    with pytest.raises(OptionError, match=r"ending in \.svg"):
        check_plot_file(tmp_path / "work.png")
    (tmp_path / "drawing.svg").write_text("<svg>mine</svg>")
    with pytest.raises(OptionError):
        save_plot(report, tmp_path / "drawing.svg")
    assert (tmp_path / "drawing.svg").read_text() == "<svg>mine</svg>"
