"""The page as the user sees it, in a headless Chromium."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.fakes import picture, save_photo
from tests.helpers.browser import Tab, chromium, opened
from tests.helpers.duplicates import aligned, group, member, photo
from tests.test_page import HOSTILE
from vggsearch.duplicates.results import Group
from vggsearch.render.html.page import PageFacts, write_page

pytestmark = pytest.mark.slow

CROP = (80, 60, 240, 180)  # of 320 x 240: the middle half
MANY = 300
STORED_AS = "`vggsearch-marks-${JSON.parse(document.getElementById('facts').textContent).folder}`"
SCHEMES = {"light": "rgb(244, 245, 247)", "dark": "rgb(15, 18, 22)"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three groups: of an exact copy, a crop and a photo that cannot be read; of hostile names; of two others."""
    folder = tmp_path_factory.mktemp("page")
    root = folder / "photos"
    for name in ("trip/a.jpg", "trip/copy.jpg", "c.jpg", *HOSTILE):
        save_photo(root / name, 1, quality=95, format="JPEG")
    picture(1).crop(CROP).save(root / "crop.jpg", quality=95)
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    facts = PageFacts("My photos", (("Threshold", "0.9"),), remove=("vggsearch", "dups", "remove", "trash"))
    write_page(folder / "page.html", three_groups(), root, facts)
    return folder / "page.html"


def three_groups() -> list[Group]:
    size = (320, 240)
    crop = member("crop.jpg", "near", 0.95, 0.991, size=(160, 120), bytes=40_000, alignment=aligned(scale=0.5))
    return [
        group(
            1,
            photo("trip/a.jpg", size),
            member("trip/copy.jpg", "exact", 1.0, 1.0, size=size),
            crop,
            member("broken.jpg", "near", 0.94, 0.98, left_alone="in a folder that is kept"),
        ),
        group(2, photo("c.jpg", size), *(member(name, "near", 0.9, 0.93, size=size) for name in HOSTILE)),
        group(3, photo("c.jpg", size), member("trip/a.jpg", "similar", 0.8, 0.9, size=size)),
    ]


@pytest.fixture
def tab(browser: Browser, page: Path) -> Iterator[Tab]:
    with opened(browser, page.as_uri()) as tab:
        yield tab
        assert tab.complaints == []


def shown_groups(tab: Tab) -> list[str]:
    names = tab.page.evaluate(
        "[...document.querySelectorAll('article')].map((card) => card.getAttribute('aria-label'))"
    )
    return [str(name) for name in names]


def choose(tab: Tab, name: str, value: str) -> None:
    tab.page.evaluate(
        f"document.getElementById({json.dumps(name)}).value = {json.dumps(value)};"
        "document.getElementById('filters').dispatchEvent(new Event('input'))"
    )
    tab.settle()


def test_the_page_opens_without_a_complaint_and_asks_for_nothing_outside(tab: Tab) -> None:
    assert shown_groups(tab) == ["Group 1", "Group 2", "Group 3"]
    tab.page.set_viewport_size({"width": 1280, "height": 4000})
    tab.settle()
    assert tab.count("figure.keeper") == 3
    assert tab.count("article img") == 3 + (1 + len(HOSTILE)) + 2  # one cannot be read
    assert {address.split(":")[0] for address in tab.requests} <= {"file", "data"}


def test_a_card_says_what_is_kept_and_in_what_a_duplicate_differs(tab: Tab) -> None:
    assert "Keep" in tab.page.inner_text("article figure.keeper .badges")
    told = " ".join(tab.page.inner_text("article figure[data-position='2']").split())
    for words in ("crop.jpg", "near similarity 0.950", "confidence 99.1%", "▼ 75%", "▼ 60%", "crop of 25%"):
        assert words in told
    broken = tab.page.inner_text("article figure[data-position='3']")
    assert "cannot be shown: " in broken
    assert "left alone: in a folder that is kept" in broken


def test_every_picture_has_a_text_and_every_control_a_name(tab: Tab) -> None:
    assert tab.page.evaluate("[...document.querySelectorAll('article img')].every((image) => image.alt)")
    unnamed = """[...document.querySelectorAll('button, input, select, textarea')].filter((control) =>
      !control.textContent.trim() && !control.ariaLabel && !control.labels?.length &&
      !control.getAttribute('aria-labelledby')).length"""
    assert tab.page.evaluate(unnamed) == 0


def test_the_region_that_matches_is_drawn_over_the_photo_that_holds_it(tab: Tab) -> None:
    assert tab.count("article:first-of-type polygon.line") == 1
    drawn = tab.page.evaluate("""(() => {
      const of = (selector) => document.querySelector(selector).getBoundingClientRect();
      const [line, picture] = [of('figure.keeper polygon.line'), of('figure.keeper .frame img')];
      return [(line.x - picture.x) / picture.width, (line.y - picture.y) / picture.height,
              line.width / picture.width, line.height / picture.height];
    })()""")
    assert drawn == pytest.approx([0.25, 0.25, 0.5, 0.5], abs=0.02)


def test_comparing_lays_a_crop_exactly_over_the_photo_it_was_cut_from(tab: Tab, tmp_path: Path) -> None:
    tab.press("l", "f")
    assert tab.page.inner_text("#compare-shown") == "Keeper"
    over, under = (
        tab.page.evaluate(f"(({{x, y, width, height}}) => [x, y, width, height])({place})")
        for place in (
            "document.getElementById('compare-over').getBoundingClientRect()",
            "document.getElementById('compare-under').getBoundingClientRect()",
        )
    )
    assert over == pytest.approx(
        [under[0] + under[2] / 4, under[1] + under[3] / 4, under[2] / 2, under[3] / 2], abs=1
    )
    tab.press("f")
    assert tab.page.inner_text("#compare-shown") == "Duplicate"
    tab.press("d")
    assert tab.page.inner_text("#compare-shown") == "Difference"
    tab.press("Escape")
    assert not tab.page.evaluate("document.getElementById('compare').open")


def test_hostile_names_are_shown_and_run_nothing(tab: Tab) -> None:
    tab.press("j", "f", "Escape")
    assert tab.page.evaluate("typeof hacked") == "undefined"
    shown = tab.page.evaluate(
        "[...document.querySelectorAll('figure.member .path')].map((path) => path.textContent)"
    )
    assert '"><script>hacked=1</script>.jpg' in shown
    assert r"a\u202egpj.exe" in shown
    missing = tab.page.evaluate("[...document.querySelectorAll('article:nth-of-type(2) .missing')].length")
    assert missing == 0


def test_links_lead_to_the_photos_whatever_their_names(tab: Tab, page: Path) -> None:
    loaded = tab.page.evaluate("""Promise.all([...document.querySelectorAll('article:nth-of-type(2) .path')].map(
      (link) => new Promise((done) => {
        const image = new Image();
        image.onload = () => done(true);
        image.onerror = () => done(link.href);
        image.src = link.href;
      })))""")
    assert loaded == [True] * (1 + len(HOSTILE))


def test_filters_leave_what_was_asked_for(tab: Tab) -> None:
    choose(tab, "text", "TRIP/")
    assert shown_groups(tab) == ["Group 1", "Group 3"]
    choose(tab, "least", "3")
    assert shown_groups(tab) == ["Group 1"]
    choose(tab, "text", "")
    choose(tab, "least", "")
    choose(tab, "confidence-to", "95")
    assert shown_groups(tab) == ["Group 2", "Group 3"]
    assert tab.page.inner_text("#count").startswith("2 of 3 groups, 11 photos")
    tab.page.click("#kinds input[value=near]")
    assert shown_groups(tab) == ["Group 3"]
    tab.page.click("#kinds input[value=similar]")
    assert tab.page.inner_text("#groups") == "No matching groups."
    tab.press("j", "f", "n")


def test_sorting_puts_the_least_certain_first(tab: Tab) -> None:
    choose(tab, "sort", "least certain first")
    assert shown_groups(tab) == ["Group 3", "Group 2", "Group 1"]
    choose(tab, "sort", "most photos first")
    assert shown_groups(tab)[0] == "Group 2"


def test_keys_go_through_groups_and_duplicates(tab: Tab) -> None:
    tab.press("j", "j", "k")
    assert tab.page.evaluate("document.querySelector('article.current').ariaLabel") == "Group 2"
    assert tab.page.evaluate("document.activeElement === document.querySelector('article.current')")
    tab.press("ArrowRight", "ArrowRight", "h")
    assert tab.page.evaluate("document.querySelector('.current .selected').dataset.position") == "2"
    tab.press("?")
    assert tab.page.evaluate("document.getElementById('help').open")


def test_letters_in_the_search_field_are_no_keys(tab: Tab) -> None:
    tab.press("/", "n", "y")
    assert tab.page.evaluate("document.getElementById('text').value") == "ny"
    assert tab.page.evaluate("document.getElementById('tray').hidden")


def test_marks_become_commands_and_outlast_a_reload(tab: Tab) -> None:
    tab.press("l", "n", "j", "Y", "j", "n", "n")
    tab.press("c")
    lines = str(tab.page.evaluate("document.getElementById('commands-text').value")).splitlines()
    assert lines[0] == "vggsearch dups decide --not-duplicates trip/a.jpg crop.jpg"
    assert all(line.startswith("vggsearch dups decide --same c.jpg ") for line in lines[1:])
    assert len(lines) == 1 + len(HOSTILE)
    assert r"vggsearch dups decide --same c.jpg $'\377\3769.jpg'" in lines
    assert tab.page.inner_text("#marks") == f"Marked: 1 as not duplicates, {len(HOSTILE)} as duplicates"
    tab.page.reload()
    assert tab.page.inner_text("#marks") == f"Marked: 1 as not duplicates, {len(HOSTILE)} as duplicates"
    tab.page.evaluate("scrollTo(0, 0)")
    tab.wait_until("document.querySelector('article:first-of-type .badge.different') !== null")


def test_the_keeper_can_be_chosen_both_be_kept_and_a_group_be_left_out(tab: Tab) -> None:
    tab.press("p", "l", "p", "c")  # only one can be the one to keep
    assert (
        tab.page.evaluate("document.getElementById('commands-text').value")
        == "vggsearch dups decide --keep crop.jpg"
    )
    tab.press("Escape")
    tab.press("a", "j")
    tab.page.click("article.current [data-do='all']")
    tab.press("c")
    lines = str(tab.page.evaluate("document.getElementById('commands-text').value")).splitlines()
    assert lines[0] == "vggsearch dups decide --keep trip/a.jpg crop.jpg"
    assert lines[1].startswith("vggsearch dups decide --keep c.jpg ")
    assert r"$'\377\3769.jpg'" in lines[1]
    assert len(lines) == 2
    assert tab.page.inner_text("#marks") == f"Marked: {1 + len(HOSTILE)} as to keep with the keeper"
    assert tab.count("article.current .title [aria-pressed='true']") == 1


def test_the_groups_that_are_shown_can_be_removed(tab: Tab) -> None:
    removal = "document.getElementById('removal-text').value"
    tab.press("c")
    assert tab.page.evaluate(removal) == "vggsearch dups remove trash"
    tab.press("Escape")
    choose(tab, "text", "trip/")
    tab.press("c")
    assert tab.page.evaluate(removal) == "vggsearch dups remove trash --group trip/a.jpg --group c.jpg"
    assert tab.page.inner_text("#removal-title") == "Remove the duplicates in the 2 groups shown"
    sideways = (
        "[...document.querySelectorAll('#commands textarea')].filter((each) => each.scrollWidth > each.clientWidth)"
    )
    assert tab.page.evaluate(f"{sideways}.length") == 0


def test_escape_clears_the_path_together_with_its_filter_and_then_leaves_the_field(tab: Tab) -> None:
    tab.press("/", "x", "q")
    assert shown_groups(tab) == []
    tab.press("Escape")
    assert tab.page.evaluate("document.getElementById('text').value") == ""
    assert shown_groups(tab) == ["Group 1", "Group 2", "Group 3"]
    tab.press("Escape", "n")
    assert not tab.page.evaluate("document.getElementById('tray').hidden")


@pytest.mark.parametrize("kept", ['{"x; rm -rf /": "same", "c.jpg trip/a.jpg": "constructor"}', "null", "[1", "7"])
def test_what_another_file_put_among_the_marks_never_becomes_a_command(tab: Tab, kept: str) -> None:
    tab.page.evaluate(f"localStorage.setItem(STORED_AS, {json.dumps(kept)})".replace("STORED_AS", STORED_AS))
    tab.page.reload()
    tab.press("y", "c")
    told = tab.page.evaluate("document.getElementById('commands-text').value")
    assert told == "vggsearch dups decide --same trip/a.jpg trip/copy.jpg"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing_in_light_or_in_dark(browser: Browser, page: Path, scheme: str) -> None:
    with opened(browser, page.as_uri(), color_scheme=scheme) as tab:
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == SCHEMES[scheme]
        assert tab.violations() == []
        tab.press("f")
        assert tab.violations() == []
        tab.press("Escape", "?")
        assert tab.violations() == []


def test_a_narrow_window_needs_no_scrolling_sideways(browser: Browser, page: Path) -> None:
    with opened(browser, page.as_uri(), 390, 800) as tab:
        assert tab.page.evaluate("document.documentElement.scrollWidth") == 390


def test_of_many_groups_only_those_near_the_window_are_drawn(browser: Browser, tmp_path: Path) -> None:
    save_photo(tmp_path / "photos" / "a.jpg", 1, size=(32, 24))
    groups = [group(1 + n, photo("a.jpg"), member("a.jpg", "exact", 1.0, 1.0)) for n in range(MANY)]
    write_page(tmp_path / "many.html", groups, tmp_path / "photos")
    with opened(browser, (tmp_path / "many.html").as_uri()) as tab:
        assert tab.count("article") == MANY
        assert 0 < tab.count("article img") < 100
        tab.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        tab.wait_until("document.querySelectorAll('article:last-of-type img').length === 2")
        tab.wait_until("document.querySelectorAll('article img').length < 100")
        assert tab.complaints == []
