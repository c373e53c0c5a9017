"""The HTTP API of `vggsearch serve`."""

import io
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.fakes import FakeEngine, picture, save_photo
from tests.helpers.calibration import calibrated_with
from tests.helpers.serving import TOKEN, client_of, duplicates, last_event, serving, wait_for
from tests.helpers.textures import scene
from vggsearch.defaults import SERVE
from vggsearch.errors import OptionError
from vggsearch.image_index import ImageIndex
from vggsearch.serve.answers import Problem
from vggsearch.serve.queries import Query, Remembered, Upload
from vggsearch.serve.reveal import FileManager

DOCUMENT = Path(__file__).parent.parent / "docs" / "serve.md"


@pytest.fixture
def client(index: ImageIndex) -> Iterator[httpx.Client]:
    with serving([index]) as client:
        yield client


def ids(client: httpx.Client) -> dict[str, str]:
    """The ids of all photos, by path."""
    return {photo["path"]: photo["id"] for photo in client.get("/api/photos").json()["photos"]}


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "JPEG")
    return file.getvalue()


def test_the_state_says_what_is_served(client: httpx.Client) -> None:
    state = client.get("/api/state").json()
    assert (state["photos"], state["indexes"], state["can_change"]) == (6, ["photos"], True)
    assert state["info"][0]["photos"] == 6
    assert (state["skipped"], state["skipped_count"]) == ([], 0)


def test_photos_are_listed_and_filtered(client: httpx.Client) -> None:
    listed = client.get("/api/photos", params={"count": 2, "offset": 1}).json()
    assert (listed["total"], [photo["path"] for photo in listed["photos"]]) == (6, ["summer/1.jpg", "summer/2.jpg"])
    assert {"width": 320, "height": 240, "taken": None}.items() <= listed["photos"][0].items()
    assert client.get("/api/photos", params={"folder": "winter"}).json()["total"] == 2
    assert client.get("/api/photos", params={"orientation": "portrait"}).json()["total"] == 0


def test_the_choices_of_each_filter_are_counted_under_all_others(tmp_path: Path) -> None:
    shapes = {
        "2019/may/a.jpg": (1200, 900),
        "2019/may/b.jpg": (300, 500),
        "2019/c.jpg": (600, 600),
        "d.jpg": (2100, 50),
    }
    for seed, (path, size) in enumerate(shapes.items()):
        save_photo(tmp_path / "photos" / path, seed, size=size)
    with ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as index:
        index.update(tmp_path / "photos")
        with serving([index]) as client:
            whole = client.get("/api/counts").json()
            assert whole == {
                "total": 4,
                "folders": [{"path": "2019", "count": 3}, {"path": "2019/may", "count": 2}],
                "years": [],
                "sizes": [
                    {"min_side": 500, "count": 4},
                    {"min_side": 1000, "count": 2},
                    {"min_side": 2000, "count": 1},
                ],
                "orientations": [
                    {"orientation": "portrait", "count": 1},
                    {"orientation": "landscape", "count": 2},
                    {"orientation": "square", "count": 1},
                ],
            }
            for folder in whole["folders"]:  # what a choice says is what it leaves
                listed = client.get("/api/photos", params={"folder": folder["path"]}).json()
                assert listed["total"] == folder["count"]
            of_may = client.get("/api/counts", params={"folder": "2019/may", "min_side": 1000}).json()
            assert of_may["total"] == 1
            assert of_may["folders"] == [{"path": "2019", "count": 1}, {"path": "2019/may", "count": 1}]
            assert of_may["sizes"] == [{"min_side": 500, "count": 2}, {"min_side": 1000, "count": 1}]
            assert of_may["orientations"] == [{"orientation": "landscape", "count": 1}]
            assert client.get("/api/counts", params={"filter": "size:9000.."}).json()["folders"] == []
            assert client.get("/api/counts", params={"since": "yesterday"}).status_code == 400


def test_a_grid_gets_columns(client: httpx.Client) -> None:
    browsed = client.get("/api/browse").json()
    assert (browsed["total"], len(browsed["ids"]), browsed["aspect"]) == (6, 6, [1.333] * 6)
    assert browsed["months"] == [{"label": "summer", "start": 0}, {"label": "winter", "start": 4}]


def test_a_thumbnail_is_small_and_not_sent_twice(client: httpx.Client) -> None:
    photo = ids(client)["summer/0.jpg"]
    response = client.get(f"/api/photos/{photo}/thumbnail", params={"size": 160})
    assert (response.headers["content-type"], response.headers["x-content-type-options"]) == (
        "image/webp",
        "nosniff",
    )
    assert Image.open(io.BytesIO(response.content)).size == (160, 120)
    again = {"If-None-Match": response.headers["etag"]}
    assert client.get(f"/api/photos/{photo}/thumbnail?size=160", headers=again).status_code == 304
    assert client.get(f"/api/photos/{photo}/thumbnail?size=5000").status_code == 400


def test_an_original_is_sent_byte_for_byte_and_by_range(client: httpx.Client, photos: Path) -> None:
    photo = ids(client)["summer/0.jpg"]
    response = client.get(f"/api/photos/{photo}/original")
    assert response.content == (photos / "summer" / "0.jpg").read_bytes()
    assert response.headers["content-type"] == "image/jpeg"
    part = client.get(f"/api/photos/{photo}/original", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, response.content[10:20])


@pytest.mark.parametrize(
    ("platform", "words"),
    [
        ("linux", ["xdg-open", "summer"]),
        ("darwin", ["open", "-R", "summer/0.jpg"]),
        ("win32", ["explorer", "/select,", "summer/0.jpg"]),
    ],
)
def test_a_photo_is_shown_in_the_file_manager(
    index: ImageIndex, photos: Path, platform: str, words: list[str]
) -> None:
    opened: list[list[str]] = []
    with serving([index], file_manager=FileManager(platform, opened.append)) as client:
        assert client.get("/api/state").json()["can_reveal"] is True
        photo = ids(client)["summer/0.jpg"]
        assert client.post(f"/api/photos/{photo}/reveal").status_code == 204
        assert opened == [[*words[:-1], str(photos.resolve() / words[-1])]]
        (photos / "summer" / "0.jpg").unlink()
        assert client.post(f"/api/photos/{photo}/reveal").status_code == 404
        assert len(opened) == 1


def test_a_picture_finds_what_the_command_line_finds(client: httpx.Client, index: ImageIndex) -> None:
    found = client.post("/api/query", files={"image": jpeg(2)}, data={"count": "3"}).json()
    expected = index.query(jpeg(2), 3)
    assert [(match["path"], match["similarity"]) for match in found["matches"]] == [
        (match.path, match.similarity) for match in expected.matches
    ]
    assert found["matches"][0]["id"] == ids(client)["summer/2.jpg"]
    assert found["total"] == 6


def test_a_photo_of_the_index_is_a_query_and_the_link_to_it_works(client: httpx.Client) -> None:
    photo = ids(client)["winter/5.jpg"]
    found = client.post("/api/query", data={"photo": photo, "rerank": "false"}).json()
    assert (found["matches"][0]["id"], found["matches"][0]["similarity"]) == (photo, 1.0)
    name = found["query"]["id"]
    assert client.get(f"/api/query/{name}").json() == found
    second = client.get(f"/api/query/{name}", params={"offset": 1, "count": 1}).json()
    assert second["matches"] == found["matches"][1:2]
    assert client.get(f"/api/query/{name}/image").headers["content-type"] == "image/webp"


def test_a_region_is_given_in_fractions(client: httpx.Client, index: ImageIndex) -> None:
    data = {"crop": "0.5,0,0.5,0.5", "rerank": "no"}
    found = client.post("/api/query", files={"image": jpeg(1)}, data=data).json()
    expected = index.query(jpeg(1), crop=(160, 0, 160, 120), rerank=False)
    assert found["matches"][0]["path"] == expected.matches[0].path
    assert found["matches"][0]["similarity"] == expected.matches[0].similarity


def test_a_picture_that_cannot_be_read_is_a_problem(client: httpx.Client) -> None:
    response = client.post("/api/query", files={"image": b"no picture at all"})
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert response.json() == {
        "type": "about:blank",
        "title": response.json()["title"],
        "status": 422,
        "detail": response.json()["detail"],
    }


def test_duplicates_are_found_shown_and_decided_about(
    client: httpx.Client, index: ImageIndex, photos: Path
) -> None:
    (photos / "winter" / "copy.jpg").write_bytes((photos / "summer" / "0.jpg").read_bytes())
    save_photo(photos / "new.jpg", 50)
    done = wait_for(client, client.post("/api/update", json={}))
    assert (done["photos"], done["indexed"]) == (8, 1)
    with calibrated_with(0):
        found = duplicates(client)
    [group] = found["groups"]
    assert [group["keep"], group["members"][0]["path"]] == ["summer/0.jpg", "winter/copy.jpg"]
    named = [group["keeper"]["id"], group["members"][0]["id"]]
    assert named == [ids(client)["summer/0.jpg"], ids(client)["winter/copy.jpg"]]
    decided = client.post("/api/decisions", json={"decision": "different", "photos": named})
    assert decided.json() == {"decision": "different", "photos": 2}
    with calibrated_with(0):
        assert duplicates(client)["groups"] == []


def test_duplicates_go_to_the_folder_of_the_start_and_come_back(
    index: ImageIndex, photos: Path, tmp_path: Path
) -> None:
    copy = photos / "winter" / "copy.jpg"
    copy.write_bytes((photos / "summer" / "0.jpg").read_bytes())
    index.update(photos)
    with serving([index], move_to=tmp_path / "away") as client, calibrated_with(0):
        assert client.get("/api/state").json()["actions"] == ["trash", "hardlink", "symlink", "move"]
        found = duplicates(client)
        plan = client.post("/api/removals", json={"report": found["report"], "action": "move", "groups": [1]})
        assert [each["path"] for each in plan.json()["removals"]] == ["winter/copy.jpg"]
        assert copy.exists()
        link = f"/api/removals/{plan.json()['removal']}/apply"
        done = wait_for(client, client.post(link))
        assert (done["removed"], done["refused"], copy.exists()) == (["winter/copy.jpg"], [], False)
        assert (tmp_path / "away" / "winter" / "copy.jpg").exists()
        assert client.post(link).status_code == 404
        assert duplicates(client)["groups"] == []
        [journal] = client.get("/api/journals").json()["journals"]
        assert (journal["action"], journal["removed"], journal["undone"]) == ("move", 1, 0)
        undone = wait_for(client, client.post(f"/api/journals/{journal['journal']}/undo"))
        assert (undone["restored"], copy.exists()) == (["winter/copy.jpg"], True)
        assert len(duplicates(client)["groups"]) == 1


def test_a_plan_does_not_outlive_a_decision(index: ImageIndex, photos: Path) -> None:
    copy = photos / "winter" / "copy.jpg"
    copy.write_bytes((photos / "summer" / "0.jpg").read_bytes())
    index.update(photos)
    with serving([index]) as client, calibrated_with(0):
        report = duplicates(client)["report"]
        plan = client.post("/api/removals", json={"report": report, "action": "trash"}).json()
        index.decide("different", [str(photos / "summer" / "0.jpg"), str(copy)])
        assert client.post(f"/api/removals/{plan['removal']}/apply").status_code == 409
        again = client.post("/api/removals", json={"report": report, "action": "trash"})
        assert (again.status_code, copy.exists()) == (409, True)
        assert client.post("/api/removals", json={"report": report, "action": "delete"}).status_code == 409


@pytest.fixture
def textured(tmp_path: Path) -> Iterator[ImageIndex]:
    """A photo with detail, a mirrored crop of it, and another photo."""
    photo = scene(1)
    folder = tmp_path / "textured"
    folder.mkdir()
    photo.save(folder / "whole.png")
    ImageOps.mirror(photo.crop((160, 0, 640, 480))).save(folder / "part.png")
    scene(2).save(folder / "other.png")
    with ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as made:
        made.update(folder)
        yield made


def test_a_comparison_says_where_a_part_lies_and_which_points_match(textured: ImageIndex) -> None:
    with serving([textured]) as client:
        known = ids(client)
        pair = {"photo": known["part.png"], "other": known["whole.png"]}
        compared = client.get("/api/compare", params=pair).json()
        x = sorted(corner[0] for corner in compared["corners"])
        assert x == pytest.approx([0.25, 0.25, 1, 1], abs=0.02)
        assert "mirrored" in compared["relation"]
        assert compared["confidence"] > 0.9
        assert len(compared["keypoints"]) > 20
        for left, _, right, _ in compared["keypoints"]:
            assert right == pytest.approx(0.25 + 0.75 * (1 - left), abs=0.02)
        heat = compared["heat"]["photo"]
        assert len(heat["values"]) == heat["rows"] * heat["columns"]
        moved = Image.open(io.BytesIO(client.get("/api/compare/aligned", params=pair).content)).convert("RGBA")
        assert moved.size == (640, 480)
        assert np.asarray(moved)[:, :150, 3].max() == 0
        ours, theirs = (
            np.asarray(each.convert("RGB").crop((240, 20, 600, 300)).reduce(8), float) for each in (moved, scene(1))
        )
        assert np.abs(ours - theirs).mean() < 6
        assert np.abs(ours - theirs[:, ::-1]).mean() > 20
        unrelated = client.get("/api/compare/aligned", params=pair | {"other": known["other.png"]})
        assert unrelated.status_code == 409


def test_an_uploaded_picture_is_compared_as_it_was_searched_for(textured: ImageIndex) -> None:
    file = io.BytesIO()
    scene(1).save(file, "PNG")
    with serving([textured]) as client:
        data = {"crop": "0,0,0.5,1", "rerank": "false"}
        query = client.post("/api/query", files={"image": file.getvalue()}, data=data).json()["query"]["id"]
        compared = client.get("/api/compare", params={"query": query, "other": ids(client)["whole.png"]}).json()
        assert sorted(corner[0] for corner in compared["corners"]) == pytest.approx([0, 0, 0.5, 0.5], abs=0.02)


def test_what_was_asked_is_counted_for_prometheus(client: httpx.Client) -> None:
    client.get("/nowhere")
    client.post("/api/query", files={"image": jpeg(1)}, data={"rerank": "no"})
    lines = client.get("/metrics").text.splitlines()
    assert 'vggsearch_requests_total{route="/api/query",status="200"} 1' in lines
    assert 'vggsearch_requests_total{route="other",status="404"} 1' in lines
    assert "vggsearch_searches_total 1" in lines
    assert "vggsearch_photos 6" in lines


def test_searches_that_come_together_go_through_the_network_together(
    client: httpx.Client, engine: FakeEngine, index: ImageIndex
) -> None:
    expected = [match.path for match in index.query(jpeg(3), 5, rerank=False).matches]
    before = engine.calls

    def ask(_: int) -> list[str]:
        found = client.post("/api/query", files={"image": jpeg(3)}, data={"rerank": "no", "count": "5"}).json()
        return [match["path"] for match in found["matches"]]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(48)))
    assert answers == [expected] * 48
    assert engine.calls - before < 40


def test_a_batch_answers_each_picture_by_itself(client: httpx.Client, index: ImageIndex) -> None:
    files = [("image", ("a.jpg", jpeg(0))), ("image", ("b.jpg", b"garbage")), ("image", ("c.jpg", jpeg(4)))]
    results = client.post("/api/query/batch", files=files, data={"count": "2", "rerank": "no"}).json()["results"]
    assert [result["matches"][0]["path"] for result in (results[0], results[2])] == ["summer/0.jpg", "winter/4.jpg"]
    assert set(results[1]) == {"reason", "kind"}


def test_several_pictures_are_one_query_and_one_is_subtracted(client: httpx.Client, index: ImageIndex) -> None:
    known = ids(client)
    data = {"photo": [known["summer/0.jpg"], known["summer/1.jpg"]], "minus_photo": known["winter/5.jpg"]}
    found = client.post("/api/query", data=data).json()
    root = index.root or Path()
    expected = index.query([root / "summer/0.jpg", root / "summer/1.jpg"], 60, minus=root / "winter/5.jpg")
    assert [match["path"] for match in found["matches"]] == [match.path for match in expected.matches]
    assert client.post("/api/query", data=data | {"crop": "0,0,1,1"}).status_code == 400


def test_a_picture_of_several_that_cannot_be_read_is_named_by_its_number(client: httpx.Client) -> None:
    files = [("image", ("a.jpg", jpeg(0))), ("minus", ("b.jpg", b"garbage"))]
    refused = client.post("/api/query", files=files)
    assert (refused.status_code, refused.json()["detail"]) == (422, "picture 2: not a picture")


def test_filters_are_those_of_the_command_line(client: httpx.Client) -> None:
    found = client.post("/api/query", files={"image": jpeg(0)}, data={"folder": "winter", "rerank": "no"}).json()
    assert {match["path"] for match in found["matches"]} == {"winter/4.jpg", "winter/5.jpg"}
    assert found["total"] == 2
    wrong = client.post("/api/query", files={"image": jpeg(0)}, data={"filter": "taken:yesterday"})
    assert (wrong.status_code, "is not a date" in wrong.json()["detail"]) == (400, True)


def test_a_commit_of_another_process_is_seen(client: httpx.Client, index: ImageIndex, photos: Path) -> None:
    save_photo(photos / "later" / "7.jpg", 70)
    before = ids(client)
    with ImageIndex.open(index.directory, engine=FakeEngine()) as other:
        other.update()
    after = ids(client)
    assert after.keys() - before.keys() == {"later/7.jpg"}
    assert {path: after[path] for path in before} == before
    found = client.post("/api/query", files={"image": jpeg(70)}, data={"rerank": "no"}).json()
    assert found["matches"][0]["id"] == after["later/7.jpg"]


def test_several_indexes_are_searched_as_one(index: ImageIndex, tmp_path: Path) -> None:
    save_photo(tmp_path / "phone" / "9.jpg", 9)
    with ImageIndex.create(tmp_path / "indexes" / "phone", engine=FakeEngine()) as other:
        other.update(tmp_path / "phone")
        with serving([index, other]) as client:
            found = client.post("/api/query", files={"image": jpeg(9)}, data={"rerank": "no"}).json()
            assert (found["matches"][0]["path"], found["matches"][0]["index"], found["total"]) == (
                "9.jpg",
                "phone",
                7,
            )
            photo = found["matches"][0]["id"]
            assert client.get(f"/api/photos/{photo}").json()["index"] == "phone"
            mixed = {"decision": "same", "photos": [photo, ids(client)["summer/0.jpg"]]}
            assert client.post("/api/decisions", json=mixed).status_code == 400


def test_a_job_can_be_stopped_and_tells_what_it_has_done(
    client: httpx.Client, engine: FakeEngine, photos: Path
) -> None:
    for seed in range(30):
        save_photo(photos / "more" / f"{seed}.jpg", 100 + seed)
    is_asked, embed = Event(), engine.embed

    def embed_slowly(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert is_asked.wait(30)
        return embed(squares)

    engine.embed = embed_slowly  # type: ignore[method-assign]
    job = client.post("/api/update", json={}).json()["job"]
    assert client.delete(f"/api/jobs/{job}").status_code == 202
    is_asked.set()
    assert last_event(client, job).startswith("event: error")
    assert client.get(f"/api/jobs/{job}").json()["state"] == "stopped"
    assert client.get("/api/state").json()["photos"] < 36


def test_the_example_in_the_document_runs(
    client: httpx.Client, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [example] = re.findall(r"```py\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (photos.parent / "img.jpg").write_bytes(jpeg(2))
    monkeypatch.chdir(photos.parent)
    monkeypatch.setenv("VGGSEARCH_TOKEN", TOKEN)
    known: dict[str, httpx.Client] = {}
    with calibrated_with(0):
        exec(example.replace("http://127.0.0.1:8765", str(client.base_url)), known)  # noqa: S102 - our own document
    known["server"].close()
    assert capsys.readouterr().out.startswith("1.0 summer/2.jpg")


def test_openapi_describes_every_request_of_the_document(client: httpx.Client) -> None:
    described = client.get("/api/openapi.json").json()["paths"]
    known = {
        (method.upper(), re.sub(r"\{\w+\}", "*", path)) for path, of_it in described.items() for method in of_it
    }
    text = DOCUMENT.read_text(encoding="utf-8").partition("| request | what it does |")[2].partition("\n\n")[0]
    documented = {
        (method, re.sub(r"/[A-Z]+(?=/|$)", "/*", path)) for method, path in re.findall(r"`([A-Z]+) (/\S+)`", text)
    }
    assert documented - {("GET", "/api/openapi.json")} == known
    names = {each["name"] for each in described["/api/photos"]["get"]["parameters"]}
    assert {"order", "offset", "count", "folder", "since"} <= names
    assert "multipart/form-data" in described["/api/query"]["post"]["requestBody"]["content"]


def test_indexes_that_cannot_be_searched_together_are_refused_at_the_start(index: ImageIndex) -> None:
    with pytest.raises(OptionError, match="named twice"), serving([index, index]):
        pass


def test_a_server_ends_at_once_though_a_client_follows_a_job(
    index: ImageIndex, engine: FakeEngine, photos: Path
) -> None:
    save_photo(photos / "new.jpg", 40)
    is_ended, is_followed, embed = Event(), Event(), engine.embed

    def embed_slowly(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert is_ended.wait(30)
        return embed(squares)

    def follow(client: httpx.Client, job: str) -> str:
        with client.stream("GET", f"/api/jobs/{job}", headers={"Accept": "text/event-stream"}) as events:
            text = ""
            for part in events.iter_text():
                is_followed.set()
                text += part
        return text.strip().split("\n\n")[-1]

    engine.embed = embed_slowly  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        with serving([index]) as client:
            follower = stack.enter_context(client_of(client.base_url.port or 0, TOKEN))
            followed = pool.submit(follow, follower, client.post("/api/update", json={}).json()["job"])
            assert is_followed.wait(30)
            Timer(0.3, is_ended.set).start()
            began = time.monotonic()
        assert time.monotonic() - began < 4
        assert followed.result().startswith("event: error")


def test_the_oldest_queries_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggsearch.serve.queries.SERVE", replace(SERVE, remembered=3, remembered_bytes=100))
    remembered = Remembered()
    names = [remembered.add(Query((Upload(bytes(30)),), (), {}, ())) for _ in range(5)]
    for name in names[:2]:
        with pytest.raises(Problem, match="search again"):
            remembered.find(name)
    assert [remembered.find(name).bytes for name in names[2:]] == [30] * 3
    large = remembered.add(Query((Upload(bytes(80)),), (), {}, ()))
    assert remembered.find(large).bytes == 80
    with pytest.raises(Problem):
        remembered.find(names[4])
