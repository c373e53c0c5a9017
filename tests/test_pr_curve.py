import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from vggsearch.errors import OptionError
from vggsearch.evaluation.pr_curve import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    check_curve_file,
    save_curve,
)
from vggsearch.evaluation.svg import INKS, Ink
from vggsearch.measures.metrics import Curve, Tally

NOTHING = np.empty(0)


@pytest.fixture(scope="module")
def curve() -> Curve:
    """Right pairs around .6, wrong ones around .2; 99 % of the pairs above some threshold are right."""
    random = np.random.default_rng(0)
    tally = Tally()
    for _ in range(200):
        relevant = np.arange(40) < 5
        similarities = random.normal(0.2 + 0.4 * relevant, 0.1).clip(-1, 1).astype(np.float32)
        order = np.argsort(-similarities)
        tally.add(similarities[order], relevant[order], 6)
    return tally.curve()


def share_at(svg: ElementTree.Element, ink: Ink, x: float) -> float:
    """Return the share that a curve shows at a place from left to right, read from the chart as a user would."""
    [line] = [
        line
        for line in svg.iter("polyline")
        if line.attrib["stroke"] == f"var(--{ink})" and len(line.attrib["points"].split()) > 2  # not the legend
    ]
    points = np.array([point.split(",") for point in line.attrib["points"].split()], float)
    y = points[np.argmin(np.abs(points[:, 0] - x)), 1]
    return float(BOTTOM - y) / (BOTTOM - TOP)


def test_the_numbers_of_a_csv_are_those_of_the_curve(curve: Curve, tmp_path: Path) -> None:
    save_curve(curve, tmp_path / "curve.csv")
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(curve.threshold) > 500
    for name in ("threshold", "precision", "recall"):
        assert [float(row[name]) for row in rows] == getattr(curve, name).tolist()
    assert all(re.fullmatch(r"-?\d\.\d{1,4}", row["threshold"]) for row in rows)


def test_a_chart_shows_both_curves_where_they_are(curve: Curve, tmp_path: Path) -> None:
    svg = svg_of(curve, tmp_path)
    low, high = shown_thresholds(curve, tmp_path)
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7):
        x = LEFT + (RIGHT - LEFT) * (threshold - low) / (high - low)
        at = np.flatnonzero(curve.threshold >= threshold)[-1]
        assert share_at(svg, "recall", x) == pytest.approx(curve.recall[at], abs=0.015)
        assert share_at(svg, "precision", x) == pytest.approx(curve.precision[at], abs=0.015)


def test_an_svg_is_the_chart_of_the_page_as_a_file_of_its_own(curve: Curve, tmp_path: Path) -> None:
    save_curve(curve, tmp_path / "curve.svg")
    alone = ElementTree.parse(tmp_path / "curve.svg").getroot()  # noqa: S314 - written a moment ago
    assert alone.tag == "{http://www.w3.org/2000/svg}svg"
    inline = svg_of(curve, tmp_path)
    assert [each.attrib for each in alone] == [each.attrib for each in inline]


def shown_thresholds(curve: Curve, tmp_path: Path) -> tuple[float, float]:
    """Return the first and the last tick of the axis, from what the page says."""
    texts = [text for text in svg_texts(curve, tmp_path) if re.fullmatch(r"-?\d\.\d+", text)]
    return float(texts[0]), float(texts[-1])


def svg_of(curve: Curve, tmp_path: Path) -> ElementTree.Element:
    save_curve(curve, tmp_path / "curve.html")
    page = (tmp_path / "curve.html").read_text(encoding="utf-8")
    svg = re.search(r"<svg.*</svg>", page, re.DOTALL)
    assert svg is not None
    return ElementTree.fromstring(svg[0])  # noqa: S314 - written a moment ago


def svg_texts(curve: Curve, tmp_path: Path) -> list[str]:
    return [element.text or "" for element in svg_of(curve, tmp_path).iter("text")]


def test_a_page_names_its_axes_its_curves_and_the_point_of_99_percent(curve: Curve, tmp_path: Path) -> None:
    texts = " | ".join(svg_texts(curve, tmp_path))
    at = curve.at_p99()
    assert at is not None
    assert f"At threshold {curve.threshold[at]:.4f}, precision is 99% or more" in texts
    assert f"and recall is {100 * curve.recall[at]:.1f}%." in texts
    for words in (
        "share of pairs",
        "threshold: minimum similarity",
        "precision: share of found pairs",
        "recall: share of right pairs",
        "100%",
    ):
        assert words in texts


def test_the_marks_of_a_page_are_at_the_point_of_99_percent(curve: Curve, tmp_path: Path) -> None:
    low, high = shown_thresholds(curve, tmp_path)
    at = curve.at_p99()
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in svg_of(curve, tmp_path).iter("circle")]
    expected = LEFT + (RIGHT - LEFT) * (curve.threshold[at] - low) / (high - low)
    assert [x for x, _ in dots] == pytest.approx([expected, expected], abs=0.06)
    shares = [(BOTTOM - y) / (BOTTOM - TOP) for _, y in dots]
    assert shares == pytest.approx([curve.recall[at], curve.precision[at]], abs=0.001)


def test_a_page_is_whole_in_itself_and_has_colours_for_light_and_dark(curve: Curve, tmp_path: Path) -> None:
    save_curve(curve, tmp_path / "curve.html")
    page = (tmp_path / "curve.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"https?:|src=|href=|url\(|@import", page)
    for light, dark in INKS.values():
        assert light in page
        assert dark in page
    assert set(re.findall(r"var\(--(\w+)\)", page)) == set(INKS)
    HTMLParser().feed(page)


def test_without_a_precise_threshold_nothing_is_marked_and_that_is_said(tmp_path: Path) -> None:
    poor = Curve(np.array([0.5, 0.4]), np.array([0.5, 0.4]), np.array([0.5, 1.0]))
    assert "No threshold reaches a precision of 99%." in svg_texts(poor, tmp_path)
    assert not list(svg_of(poor, tmp_path).iter("circle"))


@pytest.mark.parametrize(
    "curve",
    [
        Curve(NOTHING, NOTHING, NOTHING),
        Curve(np.array([1.0]), np.array([1.0]), np.array([1.0])),
        Curve(np.array([0.9]), np.array([0.0]), np.array([0.0])),
        Curve(np.array([1.0, -1.0]), np.array([1.0, 0.5]), np.array([0.5, 1.0])),
        Curve(np.array([0.9001, 0.9]), np.array([1.0, 0.5]), np.array([0.5, 1.0])),
    ],
    ids=["nothing", "one", "wrong", "widest", "narrowest"],
)
def test_curves_of_few_points_are_drawn_within_the_plane(curve: Curve, tmp_path: Path) -> None:
    svg = svg_of(curve, tmp_path)
    for line in svg.iter("polyline"):
        for x, y in (point.split(",") for point in line.attrib["points"].split()):
            assert LEFT <= float(x) <= RIGHT
            assert 0 <= float(y) <= BOTTOM + 5
    low, high = shown_thresholds(curve, tmp_path)
    assert low < high
    assert low - 1e-9 <= curve.threshold.min(initial=low)
    assert high + 1e-9 >= curve.threshold.max(initial=high)


def test_the_axis_leaves_out_where_only_wrong_pairs_are(tmp_path: Path) -> None:
    curve = Curve(np.array([0.9, 0.7, -0.8]), np.array([1.0, 1.0, 0.01]), np.array([0.5, 1.0, 1.0]))
    assert shown_thresholds(curve, tmp_path)[0] == pytest.approx(0.7, abs=0.06)


@pytest.mark.parametrize("name", ["curve.png", "curve", "curve.csv.gz"])
def test_another_name_is_refused_before_anything_is_measured(curve: Curve, tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"curve.* use a file name ending in \.csv, \.html or \.svg\."):
        check_curve_file(tmp_path / name)
    with pytest.raises(OptionError):
        save_curve(curve, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_the_case_of_a_suffix_does_not_matter(curve: Curve, tmp_path: Path) -> None:
    save_curve(curve, tmp_path / "CURVE.CSV")
    assert (tmp_path / "CURVE.CSV").read_text().startswith("threshold,precision,recall\n")


def test_a_folder_that_is_not_there_is_one_line(curve: Curve, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"Cannot write .*curve.svg: No such file or directory"):
        save_curve(curve, tmp_path / "none" / "curve.svg")
