"""The files of the page of `vggsearch serve`, as text: what they may not contain, and that they find each other."""

import re

import pytest

pytest.importorskip("fastapi", reason="needs the extra web")

from vggsearch.serve.app import SHARED, WEB

PAGE = (WEB / "index.html").read_text("utf-8")
MODULES = {path.name: path.read_text("utf-8") for path in WEB.glob("*.js")}
PRELOADED = re.findall(r'rel="modulepreload" href="/web/([^"]+)"', PAGE)


@pytest.mark.parametrize("name", [*MODULES, *(each for each in PRELOADED if each.startswith("shared/"))])
def test_data_become_text_and_never_markup_or_code(name: str) -> None:
    text = MODULES.get(name) or (SHARED / name.removeprefix("shared/")).read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    assert set(re.findall(r"https?://[^\"'`\s]+", text)) <= {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_the_page_has_no_script_or_style_of_its_own_and_names_no_other_place() -> None:
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", PAGE)
    assert "//" not in PAGE.replace("<!doctype html>", "")
    assert "url(" not in (WEB / "style.css").read_text("utf-8")


def test_every_module_is_there_and_is_fetched_at_once_with_the_page() -> None:
    imported = {each for text in MODULES.values() for each in re.findall(r'from "\./([^"]+)"', text)}
    within_shared = {
        f"shared/{each}"
        for name in PRELOADED
        if name.startswith("shared/")
        for each in re.findall(r'from "\./([^"]+)"', (SHARED / name.removeprefix("shared/")).read_text("utf-8"))
    }
    assert imported | within_shared == set(PRELOADED)
    assert set(MODULES) == {each for each in PRELOADED if "/" not in each} | {"app.js"}
