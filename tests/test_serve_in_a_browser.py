"""The page of `vggsearch serve` as the user sees it, in a headless Chromium."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.fakes import FakeEngine, picture, save_photo
from tests.helpers.browser import Tab, chromium, opened
from tests.helpers.calibration import calibrated_with
from tests.helpers.published import change, path_of, photo
from tests.helpers.removals import trash_in, tree
from tests.helpers.serving import TOKEN, serving, serving_published
from tests.helpers.textures import scene
from vggsearch.defaults import SERVE
from vggsearch.image_index import ImageIndex

pytestmark = pytest.mark.slow

HOSTILE = ("<img src=x onerror=hacked=1>.jpg", '"><script>hacked=1</script>.jpg', "a\u202egpj.exe.jpg")
MANY = 20_000
FRAME_MS = 1000 / 60
FOUND = "#view-search:not([aria-busy]) #results li"
SEND_FILE = """([address, type]) => {
  const bytes = Uint8Array.from(atob(address), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "picture.jpg", { type: "image/jpeg" }));
  const isPaste = type === "paste";
  const given = { bubbles: true, clipboardData: data, dataTransfer: data };
  document.body.dispatchEvent(isPaste ? new ClipboardEvent(type, given) : new DragEvent(type, given));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Textured photos: one with a crop, an exact copy and a smaller copy; others; and hostile names."""
    made = tmp_path / "photos"
    made.mkdir()
    whole = scene(1)
    whole.save(made / "whole.png")
    whole.crop((80, 60, 400, 300)).save(made / "part.png")
    (made / "2020").mkdir()
    (made / "2020" / "copy.png").write_bytes((made / "whole.png").read_bytes())
    whole.resize((320, 240)).save(made / "2020" / "small.jpg", quality=90)
    scene(2).save(made / "other.png")
    for number, name in enumerate(HOSTILE):
        save_photo(made / name, 10 + number)
    return made


@contextmanager
def served(browser: Browser, folder: Path, view: str = "", **look: Any) -> Iterator[Tab]:
    """Open the page over an index of a folder, which is made."""
    with (
        ImageIndex.create(folder.parent / "index", engine=FakeEngine()) as index,
        calibrated_with(0),
    ):
        index.update(folder)
        with page_of(browser, index, view, **look) as tab:
            yield tab


@contextmanager
def page_of(browser: Browser, index: ImageIndex, view: str = "", **look: Any) -> Iterator[Tab]:
    """Open the page. At the end, the console must be empty, and nothing have been asked elsewhere."""
    with serving([index]) as client:
        address = str(client.base_url)
        with opened(browser, f"{address}/login?token={TOKEN}#{view}", **look) as tab:
            tab.wait_until("document.querySelector('#starters li, #photos li, article, #indexes dl')")
            yield tab
            assert tab.complaints == []
            assert tab.page.evaluate("typeof hacked") == "undefined"
            schemes = ("blob:", "data:")
            assert [each for each in tab.requests if not each.startswith((address, *schemes))] == []


def send(tab: Tab, file: Path, how: str) -> None:
    """Drop or paste a picture, as a file manager or a clipboard does."""
    tab.page.evaluate(SEND_FILE, [base64.b64encode(file.read_bytes()).decode(), how])
    tab.page.wait_for_selector(FOUND)


def found(tab: Tab) -> list[str]:
    """The names of the photos found, in order."""
    names = tab.page.evaluate("""[...document.querySelectorAll('#results li')].map(
      (tile) => [tile.dataset.index, tile.querySelector('img').alt])""")
    return [name for _, name in sorted(names, key=lambda each: int(each[0]))]


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_that_is_dropped_or_pasted_is_searched_for(browser: Browser, folder: Path, how: str) -> None:
    with served(browser, folder) as tab:
        send(tab, folder / "2020" / "small.jpg", how)
        assert set(found(tab)[:3]) == {"small.jpg", "whole.png", "copy.png"}
        assert len(found(tab)) == len(list(folder.rglob("*.*")))
        assert "same picture" in tab.page.inner_text("#results li:first-child .caption")
        tab.page.hover("#results li:first-child .tile")
        tab.wait_until("getComputedStyle(document.querySelector('#results li:first-child .again')).opacity === '1'")
        tab.page.reload()  # the link holds the search
        tab.page.wait_for_selector(FOUND)
        assert set(found(tab)[:3]) == {"small.jpg", "whole.png", "copy.png"}


def test_a_chosen_picture_is_searched_for_and_filtered(browser: Browser, folder: Path) -> None:
    with served(browser, folder) as tab:
        tab.page.set_input_files("#choose", folder / "other.png")
        tab.page.wait_for_selector(FOUND)
        assert found(tab)[0] == "other.png"
        tab.page.select_option("#filter-folder", "2020")
        tab.wait_until("document.querySelectorAll('#results li').length === 2")
        tab.page.wait_for_selector(FOUND)
        assert "2020 (2)" in tab.page.inner_text("#filter-folder")
        tab.page.click("#clear-filters")
        tab.wait_until("document.querySelectorAll('#results li').length > 2")


def test_a_search_that_fails_leaves_no_photos_of_the_one_before(browser: Browser, folder: Path) -> None:
    (folder.parent / "no.jpg").write_bytes(b"no picture")
    with served(browser, folder) as tab:
        tab.page.set_input_files("#choose", folder / "other.png")
        tab.page.wait_for_selector(FOUND)
        tab.page.set_input_files("#choose", folder.parent / "no.jpg")
        tab.wait_until("document.querySelector('#count-found').textContent === 'not a picture'")
        assert found(tab) == []
        tab.complaints.clear()  # the browser tells of the status 422
        tab.page.reload()  # the link is that of the last search that worked
        tab.page.wait_for_selector(FOUND)
        assert found(tab)[0] == "other.png"


def test_a_rectangle_that_is_drawn_searches_for_that_part(browser: Browser, folder: Path) -> None:
    with served(browser, folder) as tab:
        tab.page.set_input_files("#choose", folder / "whole.png")
        tab.page.wait_for_selector(FOUND)
        tab.settle()
        box = tab.page.locator("#query-frame").bounding_box()
        assert box is not None
        tab.page.mouse.move(box["x"] + box["width"] * 0.125, box["y"] + box["height"] * 0.125)
        tab.page.mouse.down()
        tab.page.mouse.move(box["x"] + box["width"] * 0.625, box["y"] + box["height"] * 0.625, steps=4)
        with tab.page.expect_response("**/api/query") as answer:
            tab.page.mouse.up()
        options = answer.value.json()["query"]["options"]
        assert [float(each) for each in options["crop"].split(",")] == pytest.approx(
            [0.125, 0.125, 0.5, 0.5], abs=0.02
        )
        tab.wait_until("document.querySelector('#results li img')?.alt === 'part.png'")
        tab.page.click("#query-whole")
        tab.wait_until("document.querySelector('#results li img')?.alt !== 'part.png'")


def named(kind: str) -> str:
    """Return a script that counts the pictures of a kind in the link."""
    return f"location.hash.split('{kind}=').length - 1"


def test_photos_are_added_and_subtracted_and_the_way_back_leads_through_the_searches(
    browser: Browser, folder: Path
) -> None:
    with served(browser, folder) as tab:
        tab.page.locator("#starters .tile").first.focus()
        tab.press("m")
        tab.page.wait_for_selector(FOUND)
        tab.page.locator("#results .tile").nth(3).focus()
        tab.press("+")
        tab.wait_until(f"{named('photo')} === 2")
        tab.page.wait_for_selector(FOUND)
        tab.page.locator("#query-chips .sign").nth(1).click()
        tab.wait_until(f"{named('photo')} === 1 && {named('minus')} === 1")
        tab.page.go_back()
        tab.wait_until("document.querySelectorAll('#query-chips .plus').length === 2")
        tab.page.go_back()
        tab.page.wait_for_selector("#query-single:not([hidden])")


def test_why_two_photos_are_similar_is_shown(browser: Browser, folder: Path) -> None:
    with served(browser, folder) as tab:
        tab.page.set_input_files("#choose", folder / "part.png")
        tab.page.wait_for_selector(FOUND)
        tab.page.locator("#results .tile", has=tab.page.get_by_alt_text("whole.png")).click()
        tab.page.wait_for_selector("#why-second polygon.line")
        drawn = tab.page.evaluate("""(() => {
          const of = (selector) => document.querySelector(selector).getBoundingClientRect();
          const [line, photo] = [of('#why-second polygon.line'), of('#why-second img')];
          return [(line.x - photo.x) / photo.width, (line.y - photo.y) / photo.height,
                  line.width / photo.width, line.height / photo.height];
        })()""")
        assert drawn == pytest.approx([0.125, 0.125, 0.5, 0.5], abs=0.03)
        tab.page.wait_for_selector("#why-lines line", state="attached")
        tab.press("2")
        assert tab.count("#why canvas") == 2
        tab.press("4")
        assert tab.page.is_visible("#why-stage.difference")
        tab.press("1", "ArrowRight", "Escape")
        assert not tab.page.is_visible("#why")


def group_named(tab: Tab, name: str) -> str:
    """The selector of the figure of a photo in a card."""
    number = tab.page.evaluate(f"""[...document.querySelectorAll('article figure')].findIndex(
      (figure) => figure.querySelector('.path').textContent.endsWith({name!r}))""")
    assert number >= 0, name
    return f"article figure >> nth={number}"


def test_a_group_is_reviewed_removed_and_restored_byte_for_byte(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    before = tree(folder)
    with trash_in(tmp_path / "home") as trash, served(browser, folder, "duplicates") as tab:
        tab.page.wait_for_selector("article figure.keeper")
        assert "whole.png" in tab.page.inner_text("article figure.keeper")
        tab.page.locator(group_named(tab, "copy.png")).locator("[data-do=keep]").click()
        tab.page.wait_for_selector("#regroup:not([hidden])")
        tab.page.click("#regroup")
        tab.wait_until("document.querySelector('figure.keeper .path')?.textContent.endsWith('copy.png')")
        tab.press("x")
        tab.page.wait_for_selector("#plan-run:enabled")
        planned = tab.page.inner_text("#plan-rows")
        assert "whole.png" in planned
        assert tree(folder) == before
        tab.page.click("#plan-run")
        tab.page.wait_for_selector("#journals:not([hidden])")
        gone = set(before) - set(tree(folder))
        assert len(gone) == tab.page.evaluate(
            "Number(document.querySelector('#journals-rows td:nth-child(3)').textContent.split(' ')[0])"
        )
        assert "whole.png" in {str(each) for each in gone}
        assert before.items() >= tree(folder).items()
        assert len(list((trash / "files").iterdir())) == len(gone)
        tab.page.click("#journals summary")
        tab.page.click("#journals-rows button")
        tab.wait_until(
            "document.querySelector('#journals-rows button')?.disabled && document.querySelector('article')"
        )
        assert tree(folder) == before


def test_photos_that_are_no_duplicates_are_told_apart_at_once(browser: Browser, folder: Path) -> None:
    with served(browser, folder, "duplicates") as tab:
        tab.page.wait_for_selector("article figure.keeper")
        count = tab.count("article figure.member")
        with tab.page.expect_response("**/api/decisions") as answer:
            tab.press("n")
        assert answer.value.json() == {"decision": "different", "photos": 2}
        tab.page.wait_for_selector(".badge.different")
        tab.page.click("#regroup")
        tab.wait_until(f"document.querySelectorAll('article figure.member').length === {count - 1}")


def test_escape_empties_the_field_for_paths_with_its_filter_then_leaves_it(browser: Browser, folder: Path) -> None:
    with served(browser, folder, "duplicates") as tab:
        tab.page.wait_for_selector("article figure.keeper")
        tab.press("/")
        tab.page.keyboard.type("no such photo")
        tab.wait_until("!document.querySelector('article')")
        tab.press("Escape")
        tab.page.wait_for_selector("article figure.keeper")
        assert tab.page.evaluate("[document.activeElement.id, document.activeElement.value]") == ["text", ""]
        tab.press("Escape")
        assert tab.page.evaluate("document.activeElement.id") != "text"


def test_hostile_names_are_shown_and_run_nothing(browser: Browser, folder: Path) -> None:
    with served(browser, folder) as tab:
        tab.page.set_input_files("#choose", folder / HOSTILE[0])
        tab.page.wait_for_selector(FOUND)
        assert HOSTILE[0] in found(tab)
        assert "a\\u{202e}gpj.exe.jpg" in found(tab)
        tab.page.locator("#results .tile").first.click()
        tab.wait_until("document.querySelector('#why-facts').children.length > 2")
        tab.press("Escape")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageIndex]:
    """An index of 20,000 photos in 200 folders: copies of three, so that only these have to be embedded."""
    folder = tmp_path_factory.mktemp("many")
    sizes = ((60, 40), (30, 40), (50, 50))
    originals = [save_photo(folder / "photos" / f"{n}.jpg", n, size=size) for n, size in enumerate(sizes)]
    with ImageIndex.create(folder / "index", engine=FakeEngine()) as index:
        index.update(folder / "photos")
        for number in range(len(sizes), MANY):
            name = folder / "photos" / f"{number // 100:03}" / f"{number:05}.jpg"
            name.parent.mkdir(parents=True, exist_ok=True)
            os.link(originals[number % len(sizes)], name)
        index.update(folder / "photos")
        yield index


def test_20_000_photos_scroll_within_the_time_of_a_frame(browser: Browser, many: ImageIndex) -> None:
    with page_of(browser, many, "browse?order=path") as tab:
        assert tab.page.inner_text("#count-photos") == f"{MANY:,} photos"
        assert tab.count("#photos li") < 300
        session = tab.page.context.new_cdp_session(tab.page)
        session.send(
            "Performance.enable", {"timeDomain": "threadTicks"}
        )  # time of the CPU, whatever else is running
        before = task_seconds(session)
        frames = 120
        tab.page.evaluate(f"""(async () => {{
          for (let frame = 0; frame < {frames}; frame += 1) {{
            scrollBy(0, 60);
            await new Promise(requestAnimationFrame);
          }}
        }})()""")
        assert 1000 * (task_seconds(session) - before) / frames < FRAME_MS
        assert tab.count("#photos li") < 300
        tab.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        tab.page.wait_for_selector(f"#photos li[data-index='{MANY - 1}'] .loaded")
        tab.page.select_option("#jump", label="100")
        tab.page.wait_for_selector("#photos li[data-index='10000'] .loaded")


def task_seconds(session: Any) -> float:
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))


def test_everything_is_done_with_the_keyboard_alone(browser: Browser, folder: Path) -> None:
    with served(browser, folder) as tab:
        tab.press("Tab", "Enter")
        assert tab.page.evaluate("document.activeElement.id") == "main"
        tab.press("Tab", "Tab", "m")
        tab.page.wait_for_selector(FOUND)
        tab.press("r")
        tab.page.fill("#region-left", "10")
        with tab.page.expect_response("**/api/query") as answer:
            tab.press("Enter")
        assert answer.value.json()["query"]["options"]["crop"].startswith("0.1000,")
        tab.page.wait_for_selector(FOUND)
        tab.page.locator("#results .tile").first.focus()
        tab.press("ArrowRight", "Enter")
        assert tab.page.is_visible("#why")
        tab.press("Escape")
        assert tab.page.evaluate("document.activeElement.parentElement.dataset.index") == "1"
        tab.press("2")
        tab.page.wait_for_selector("#photos li")
        tab.press("1")
        tab.page.wait_for_selector(FOUND)  # as it was
        tab.press("2", "/")
        assert tab.page.evaluate("document.activeElement.id") == "browse-folder"
        tab.press("Escape", "3")
        tab.page.wait_for_selector("article figure")
        tab.press("f")
        tab.page.wait_for_selector("#why[open]")
        tab.press("Escape", "?")
        assert tab.page.is_visible("#help")
        tab.press("Escape", "4")
        tab.page.wait_for_selector("#indexes dl")
        ring = tab.page.evaluate("""() => {
          document.querySelector('#views a').focus();
          return getComputedStyle(document.activeElement).outlineStyle;
        }""")
        assert ring == "solid"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 400), ("dark", 400)])
def test_every_view_passes_axe_and_fits(browser: Browser, folder: Path, scheme: str, width: int) -> None:
    with served(browser, folder, width=width, color_scheme=scheme, reduced_motion="reduce") as tab:
        check(tab, width)
        tab.page.set_input_files("#choose", folder / "whole.png")
        tab.page.wait_for_selector(FOUND)
        check(tab, width)
        tab.page.locator("#results .tile").nth(1).click()
        tab.page.wait_for_selector("#why-facts strong")
        check(tab, width)
        tab.press("Escape")
        for view, ready in (("browse", "#photos li"), ("duplicates", "article figure"), ("state", "#indexes dl")):
            tab.page.evaluate(f"location.hash = '#{view}'")
            tab.page.wait_for_selector(ready)
            check(tab, width)
        tab.press("3")
        tab.page.wait_for_selector("article figure")  # until then, the keys are those of the last view
        tab.press("x")
        tab.page.wait_for_selector("#plan-run:enabled")
        check(tab, width)
        tab.press("Escape", "?")
        check(tab, width)


def check(tab: Tab, width: int) -> None:
    tab.settle()
    assert tab.violations() == []
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_server_that_allows_no_changes_offers_none(browser: Browser, folder: Path) -> None:
    with ImageIndex.create(folder.parent / "index", engine=FakeEngine()) as index, calibrated_with(0):
        index.update(folder)
        with (
            serving([index], can_change=False) as client,
            opened(browser, f"{client.base_url}/login?token={TOKEN}#duplicates") as tab,
        ):
            tab.page.wait_for_selector("article figure")
            assert not tab.page.is_visible("#open-plan")
            assert not tab.page.is_visible("article .actions")
            tab.press("4")
            tab.page.wait_for_selector("#indexes dl")
            assert tab.count("#indexes button") == 0


def test_the_map_shows_photos_and_selects_them(browser: Browser, folder: Path) -> None:
    with served(browser, folder) as tab:
        tab.press("5")
        tab.wait_until("document.querySelector('#live').textContent.startsWith('A map of')", 120)
        tab.page.focus("#map-canvas")
        tab.press("s")
        total = len(list(folder.rglob("*.*")))
        assert tab.page.inner_text("#map-count") == f"{total} photos selected"
        assert tab.count("#map-selected li") == total
        check(tab, 1280)
        tab.press("Enter")
        assert tab.page.is_visible("#why")
        tab.press("Escape")
        tab.page.click("#map-search")
        tab.page.wait_for_selector(FOUND)
        assert tab.count("#query-chips li") == total
        tab.press("5")
        tab.page.click("#map-none")
        assert not tab.page.is_visible("#map-actions")


def test_a_loop_that_is_drawn_on_the_map_selects_what_is_inside(browser: Browser, folder: Path) -> None:
    with served(browser, folder) as tab:
        tab.press("5")
        tab.wait_until("document.querySelector('#live').textContent.startsWith('A map of')", 120)
        box = tab.page.locator("#map-canvas").bounding_box()
        assert box is not None
        left, top = box["x"] + 20, box["y"] + 20  # inside of the round corners
        right, bottom = left + box["width"] - 40, top + box["height"] - 40
        tab.page.click("#map-lasso")
        for corners, count in (
            ([(left, top), (right, top), (right, bottom), (left, bottom)], 8),
            ([(left, top), (left + 9, top), (left + 9, top + 9)], 0),
        ):
            tab.page.mouse.move(*corners[0])
            tab.page.mouse.down()
            for corner in corners[1:]:
                tab.page.mouse.move(*corner, steps=5)
            tab.page.mouse.up()
            tab.settle()
            assert tab.count("#map-selected li") == count


def test_duplicates_are_shown_of_one_index_at_a_time(browser: Browser, folder: Path) -> None:
    other = save_photo(folder.parent / "phone" / "one.jpg", 1).parent
    where = folder.parent / "indexes"
    with (
        ImageIndex.create(where / "first", engine=FakeEngine()) as first,
        ImageIndex.create(where / "second", engine=FakeEngine()) as second,
        calibrated_with(0),
    ):
        first.update(folder)
        second.update(other)
        with serving([first, second]) as client:
            address = f"{client.base_url}/login?token={TOKEN}#duplicates"
            with opened(browser, address) as tab:
                tab.page.wait_for_selector("article figure")
                tab.page.select_option("#duplicates-index", "second")
                tab.wait_until("document.querySelector('#groups').textContent === 'No duplicates.'")
                assert not tab.page.is_visible("#open-plan")


def test_an_update_shows_what_is_new(browser: Browser, folder: Path) -> None:
    with served(browser, folder, "state") as tab:
        before = len(list(folder.rglob("*.*")))
        assert f"Photos\n{before}" in tab.page.inner_text("#indexes dl")
        picture(99).save(folder / "new.jpg")
        os.truncate(folder / "other.png", 100)
        tab.page.click("#indexes button")
        tab.wait_until("document.querySelector('#skipped-rows')?.textContent.includes('other.png')")
        assert "1 skipped file" in tab.page.inner_text("#skipped-title")


@contextmanager
def page_at(browser: Browser, place: str, root: Path | None = None) -> Iterator[Tab]:
    """Open the page of a server of what is published."""
    with (
        ImageIndex.at(place, engine=FakeEngine(), root=root) as index,
        serving_published(index) as client,
        opened(browser, f"{client.base_url}/login?token={TOKEN}") as tab,
    ):
        tab.wait_until("document.querySelector('#starters li')")
        yield tab


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Where 120 pictures are published, of which there are no files."""
    pytest.importorskip("lancedb")
    change(tmp_path / "index", [photo(seed) for seed in range(120)])
    url = f"lance+file://{tmp_path}/lance/photos"
    with ImageIndex.open(tmp_path / "index", engine=FakeEngine()) as index:
        index.publish(url)
    return url


def visible(tab: Tab, selector: str) -> list[str]:
    return [each.inner_text() for each in tab.page.locator(selector).all() if each.is_visible()]


def test_a_server_without_the_photos_shows_names_and_offers_what_it_can(
    browser: Browser, folder: Path, place: str
) -> None:
    with page_at(browser, place) as tab:
        assert visible(tab, "#views a") == ["Search", "Browse", "State"]
        assert tab.violations() == []
        tab.press("3", "5")  # duplicates, the map
        assert tab.page.is_visible("#search-start")
        send(tab, folder / "other.png", "drop")
        assert tab.page.inner_text("#count-found").startswith("120 photos")
        assert tab.count("#results img") == 0
        first = tab.page.inner_text("#results li:first-child .named")
        assert first in {path_of(seed) for seed in range(120)}
        assert not tab.page.is_visible("#inside")
        tab.page.click("#results li:first-child .tile")
        tab.page.wait_for_selector("#why[open]")
        assert (tab.page.is_visible("#why-modes"), tab.page.is_visible("#why [data-action=open]")) == (False, False)
        assert tab.violations() == []
        tab.press("m")
        tab.page.wait_for_selector(f"{FOUND} .relation")
        assert tab.page.inner_text("#query-chips .named") == first
        assert tab.page.inner_text("#results li:first-child .named") == first
        assert not tab.page.is_visible("#query-region")
        tab.press("2")
        tab.page.wait_for_selector("#photos li")
        assert tab.page.inner_text("#count-photos") == "120 photos"
        assert tab.violations() == []
        tab.press("4")
        tab.page.wait_for_selector("#indexes dl")
        assert "not known here" in tab.page.inner_text("#indexes")
        assert visible(tab, "#indexes button") == []
        assert tab.complaints == []


def test_a_search_goes_on_at_a_server_that_does_not_know_it(
    browser: Browser, folder: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.serve.queries.SERVE", replace(SERVE, remembered=0))
    with page_at(browser, place) as tab:
        send(tab, folder / "other.png", "drop")
        tab.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        tab.wait_until("document.querySelector('#results li[aria-setsize=\"117\"]')")  # three are blank
        assert [each for each in tab.complaints if "404" not in each] == []


def test_published_photos_within_reach_are_shown(browser: Browser, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    url = f"lance+file://{tmp_path}/lance/photos"
    with ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as index:
        index.update(folder)
        index.publish(url)
    with page_at(browser, url, folder) as tab:
        send(tab, folder / "2020" / "small.jpg", "drop")
        assert set(found(tab)[:3]) == {"small.jpg", "whole.png", "copy.png"}
        tab.wait_until("document.querySelector('#results li:first-child .loaded')")
        tab.page.click("#results li:first-child .tile")
        tab.wait_until("document.querySelector('#why-second img').naturalWidth > 0")
        assert tab.page.is_visible("#why [data-action=open]")
        assert not tab.page.is_visible("#why-modes")
        assert tab.violations() == []
        assert tab.complaints == []
