"""Results as they show in a notebook, up to a real kernel."""

import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes import save_photo
from tests.helpers.duplicates import group, member, photo
from vggsearch import ImageIndex, Match, QueryResult
from vggsearch.defaults import NOTEBOOK
from vggsearch.duplicates.results import Groups
from vggsearch.notebook import Figure, Section, gallery

HOSTILE = '<img src=x onerror=alert(1)>"\u202e&.jpg'
IMAGES = re.compile(r'src="data:image/webp;base64,([^"]+)"')


def images_in(html: str) -> list[Image.Image]:
    return [Image.open(BytesIO(b64decode(data))) for data in IMAGES.findall(html)]


def test_a_query_result_shows_each_photo_small_with_its_similarity(index: ImageIndex, photos: Path) -> None:
    html = index.query(photos / "summer" / "0.jpg", 3)._repr_html_()
    shown = images_in(html)
    assert [max(image.size) for image in shown] == [NOTEBOOK.side] * 3
    assert "summer/0.jpg" in html
    assert "similarity 1.0000" in html


def test_a_photo_that_is_gone_is_shown_as_the_reason(tmp_path: Path) -> None:
    save_photo(tmp_path / "a.jpg", 1)
    result = QueryResult("q.jpg", (Match("a.jpg", 1.0), Match("gone.jpg", 0.5)), {None: tmp_path})
    html = result._repr_html_()
    assert len(images_in(html)) == 1
    assert "No such file" in html
    nowhere = QueryResult("q.jpg", (Match("a.jpg", 1.0),))
    assert "the photo folder is unknown" in nowhere._repr_html_()


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    html = QueryResult(HOSTILE, (Match(HOSTILE, 1.0),), {None: tmp_path})._repr_html_()
    assert "<img src=x" not in html
    assert "\u202e" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;&quot;\\u202e&amp;.jpg" in html


def test_groups_show_what_is_kept_and_why_the_others_are_not(tmp_path: Path) -> None:
    for seed, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        save_photo(tmp_path / name, seed)
    first = member("b.jpg", "near", 0.97, 0.9996, reason="larger")
    second = member("c.jpg", "exact", 1.0, 1.0, reason="older", left_alone="protected")
    whole = group(1, photo("a.jpg"), first, second, root=tmp_path)
    html = Groups([whole])._repr_html_()
    assert whole._repr_html_() in html.replace("<div><b>1 groups of duplicates</b></div>", "")
    assert len(images_in(html)) == 3
    for text in ("keep", "near", "similarity 0.9700, confidence 99.9%", "larger", "left alone: protected"):
        assert text in html


def test_only_the_first_photos_are_shown_and_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.notebook.NOTEBOOK", type(NOTEBOOK)(photos=5))
    save_photo(tmp_path / "a.jpg", 1)
    html = gallery([Section(f"part {number}", (Figure(tmp_path, "a.jpg"),) * 3) for number in range(9)])
    assert len(images_in(html)) == 5
    assert "and 1 more<" in html
    assert "and 7 more groups" in html


def test_a_duplicates_report_shows_its_groups(index: ImageIndex, photos: Path) -> None:
    (photos / "again.jpg").write_bytes((photos / "summer" / "0.jpg").read_bytes())
    index.update()
    report = index.duplicates(confirm=False)
    html = report._repr_html_()
    assert {"again.jpg", "summer/0.jpg"} <= set(re.findall(r'title="([^"]+)"', html))
    assert len(images_in(html)) == 2


NOTEBOOK_CELLS = [
    "from vggsearch import ImageIndex, progress_bar\n"
    "from tests.fakes import FakeEngine\n"
    "index = ImageIndex.create('index', engine=FakeEngine())",
    "with progress_bar() as progress:\n    print(index.update('photos', progress=progress).indexed)",
    "index.query('photos/summer/0.jpg', count=3)",
    "index.duplicates()",
]


@pytest.mark.slow
def test_a_real_kernel_shows_progress_and_photos(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Outputs of a notebook that ran in a kernel of its own, as JupyterLab gets them."""
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="needs ipykernel: pip install nbclient ipykernel")
    (photos / "again.jpg").write_bytes((photos / "summer" / "0.jpg").read_bytes())
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in NOTEBOOK_CELLS])
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(photos.parent)}}).execute()
    progress, found, duplicates = (cell["outputs"] for cell in book.cells[1:])
    printed = [output["text"] for output in progress if output["output_type"] == "stream"]
    assert printed == ["6\n"], "indexed; the seventh has the bytes of another"
    (shown,) = [output["data"]["text/html"] for output in progress if output["output_type"] == "display_data"]
    assert re.search(r'embedding photos <progress max="7" value="7"></progress> 7/7 photos.*fake, nothing', shown)
    (result,) = found
    assert len(images_in(result["data"]["text/html"])) == 3
    assert any(
        len(images_in(output["data"].get("text/html", ""))) == 2 for output in duplicates if "data" in output
    )
