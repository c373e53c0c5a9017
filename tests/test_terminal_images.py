import io
import re
from base64 import b64decode
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes import save_photo
from tests.helpers.duplicates import group, member, photo
from vggsearch.cli.pictures import picture_screen
from vggsearch.duplicates.results import Group
from vggsearch.render.terminal_images import (
    COLUMNS,
    GAP,
    KEEP,
    PIXELS,
    ROWS,
    Protocol,
    Screen,
    group_strips,
    preview,
)

THREE = 3 * (COLUMNS + GAP) - GAP


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class OldTerminal(Terminal):
    encoding = "latin-1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_photo(tmp_path / "a.jpg", 1, size=(400, 300))
    save_photo(tmp_path / "b.jpg", 2, size=(300, 400))
    return tmp_path


def of_three() -> list[Group]:
    return [group(1, photo("a.jpg"), member("b.jpg", "near", 0.9, 0.9), member("gone.jpg", "near", 0.8, 0.9))]


def previewed(root: Path, protocol: Protocol, columns: int = 200) -> str:
    stream = io.StringIO()
    preview(group_strips(of_three(), root), stream, Screen(protocol, columns))
    return stream.getvalue()


def picture_in(png: str) -> Image.Image:
    return Image.open(io.BytesIO(b64decode(png)))


@pytest.mark.parametrize("protocol", ["kitty", "iterm2", "blocks"])
def test_below_the_pictures_is_what_they_are(root: Path, protocol: Protocol) -> None:
    shown = previewed(root, protocol)
    below = shown[shown.index("group 1: 3 photos") :]
    assert [name for name in ("a.jpg", "b.jpg", "gone.jpg") if name in below] == ["a.jpg", "b.jpg", "gone.jpg"]
    assert below.endswith("larger\n\n")
    assert "\x1b" not in below


def test_kitty_gets_a_png_in_chunks_of_which_the_last_says_so(root: Path) -> None:
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", previewed(root, "kitty"))
    assert [head.split(",")[-1] for head, _ in chunks] == ["m=1"] * (len(chunks) - 1) + ["m=0"]
    assert max(len(data) for _, data in chunks) <= 4096
    assert len(chunks) > 1
    assert f"c={THREE},r={ROWS}," in chunks[0][0]
    strip = picture_in("".join(data for _, data in chunks))
    assert strip.size == (THREE * PIXELS["kitty"], 2 * ROWS * PIXELS["kitty"])
    assert strip.getpixel((0, 0)) == KEEP


def test_iterm2_gets_a_png_in_one_sequence(root: Path) -> None:
    found = re.search(
        r"\x1b]1337;File=inline=1;width=(\d+);height=(\d+);[^:]*:([^\a]*)\a", previewed(root, "iterm2")
    )
    assert found is not None
    assert (int(found[1]), int(found[2])) == (THREE, ROWS)
    assert picture_in(found[3]).height == 2 * ROWS * PIXELS["iterm2"]


def test_half_blocks_are_two_pixels_a_character_and_as_wide_as_promised(root: Path) -> None:
    lines = previewed(root, "blocks").splitlines()[:ROWS]
    assert all(line.endswith("\x1b[0m") for line in lines)
    seen = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
    assert {len(line) for line in seen} == {THREE}
    assert set("".join(seen)) == {"▀", " "}
    assert lines[0].startswith("\x1b[38;2;46;160;67;")


def test_no_more_photos_are_shown_than_fit_side_by_side(root: Path) -> None:
    lines = previewed(root, "blocks", columns=2 * COLUMNS + GAP).splitlines()
    assert len(re.sub(r"\x1b\[[\d;]*m", "", lines[0])) == 2 * COLUMNS + GAP
    assert "gone.jpg" in "".join(lines)
    narrow = previewed(root, "blocks", columns=5).splitlines()[0]
    assert len(re.sub(r"\x1b\[[\d;]*m", "", narrow)) == COLUMNS


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1", "TERM": "xterm-256color"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"KONSOLE_VERSION": "230805", "COLORTERM": "truecolor"}, "kitty"),
        ({"KONSOLE_VERSION": "210801", "COLORTERM": "truecolor"}, "blocks"),
        ({"TERM_PROGRAM": "iTerm.app", "COLORTERM": "truecolor"}, "iterm2"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "blocks"),
        ({"WT_SESSION": "some"}, "blocks"),
        ({"TMUX": "/tmp/tmux", "KITTY_WINDOW_ID": "1", "COLORTERM": "truecolor"}, "blocks"),  # noqa: S108
        ({"TERM": "screen", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, None),
        ({}, None),
    ],
)
def test_a_terminal_is_known_by_its_variables(
    environment: dict[str, str], protocol: Protocol | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {**environment, "COLUMNS": "132"})
    assert picture_screen(Terminal()) == (Screen(protocol, 132) if protocol else None)


def test_what_is_no_terminal_or_knows_no_half_blocks_shows_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"COLORTERM": "truecolor"})
    assert picture_screen(io.StringIO()) is None
    assert picture_screen(OldTerminal()) is None
