import io
import re

import pytest
from rich.console import Console

from vggsearch.cli.terminal import announced, suggested
from vggsearch.progress import Progress, Unit, counted, progress_bar


def shown(*steps: Progress, is_terminal: bool = True) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=is_terminal, width=80, color_system=None)
    with progress_bar(console) as progress:
        for step in steps:
            progress(step)
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", stream.getvalue())


def test_a_terminal_shows_a_bar_for_each_stage_within_80_columns() -> None:
    text = shown(
        Progress("reading embeddings", 4_000, 4_000, "vectors"),
        Progress("embedding photos", 30_000, 40_000, "photos", "3 skipped"),
    )
    lines = [line.rstrip() for line in text.splitlines() if "━" in line]
    assert any(line.startswith("reading embeddings") and "4,000/4,000 vectors" in line for line in lines)
    assert any(line.startswith("embedding photos") and line.endswith("3 skipped") for line in lines)


def test_a_file_shows_nothing() -> None:
    assert shown(Progress("embedding photos", 1, 2), is_terminal=False) == ""


@pytest.mark.parametrize(
    ("unit", "done", "total", "speed", "words"),
    [
        ("photos", 120, 4_000, 32.1, "120/4,000 photos, 32.1/s"),
        ("photos", 120, None, None, "120 photos"),
        ("bytes", 1_500_000, 20_000_000, 3_000_000, "1.5/20.0 MB, 3.0/s"),
    ],
)
def test_progress_is_counted_in_its_unit(
    unit: Unit, done: float, total: float | None, speed: float | None, words: str
) -> None:
    assert counted(unit, done, total, speed) == words


def test_the_backend_is_announced_once_and_then_only_what_else_a_note_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[str] = []
    progress = announced("vgg16 pool5", lambda step: seen.append(step.note))
    for note in ("", "openvino, cpu, int8", "openvino, cpu, int8", "openvino, cpu, int8, 2 skipped"):
        progress(Progress("embedding photos", 0, 9, note=note))
    assert capsys.readouterr().err == "vgg16 pool5\non openvino, cpu, int8\n"
    assert seen == ["", "", "", "2 skipped"]


@pytest.mark.parametrize(
    ("seconds_each", "printed"), [(0.5, ""), (1.0, "About 17 minutes left. Try it faster.\n"), (0.0, "")]
)
def test_a_long_stage_gets_one_suggestion_once_its_rate_is_known(
    seconds_each: float, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("vggsearch.cli.terminal.time.monotonic", lambda: now)
    seen: list[int] = []

    def record(step: Progress) -> None:
        seen.append(step.done)

    progress = suggested("Try it faster.", "embedding photos", record, unless=tuple)
    for done in range(1, 21):
        progress(Progress("embedding photos", done, 1_006))
        progress(Progress("hashing", done, 1_000_000))
        now += seconds_each
    assert capsys.readouterr().err == printed
    assert len(seen) == 40
