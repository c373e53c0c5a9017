"""The HTTP API of `vggsearch serve`."""

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.fakes import picture, save_photo
from tests.helpers.calibration import calibrated_with
from tests.helpers.serving import duplicates, serving, wait_for
from vggsearch.image_index import ImageIndex


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


def test_photos_are_listed_filtered_and_counted_by_folder(client: httpx.Client) -> None:
    listed = client.get("/api/photos", params={"count": 2, "offset": 1}).json()
    assert (listed["total"], [photo["path"] for photo in listed["photos"]]) == (6, ["summer/1.jpg", "summer/2.jpg"])
    assert listed["folders"] == [{"path": "summer", "count": 4}, {"path": "winter", "count": 2}]
    assert {"width": 320, "height": 240, "taken": None}.items() <= listed["photos"][0].items()
    winter = client.get("/api/photos", params={"folder": "winter"}).json()
    assert (winter["total"], winter["folders"]) == (2, [{"path": "winter", "count": 2}])
    assert client.get("/api/photos", params={"orientation": "portrait"}).json()["total"] == 0


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


def test_a_picture_finds_what_the_command_line_finds(client: httpx.Client, index: ImageIndex) -> None:
    found = client.post("/api/query", files={"image": jpeg(2)}, data={"count": "3"}).json()
    expected = index.query(jpeg(2), 3)
    assert [(match["path"], match["similarity"]) for match in found["matches"]] == [
        (match.path, match.similarity) for match in expected.matches
    ]
    assert found["matches"][0]["id"] == ids(client)["summer/2.jpg"]
    assert (found["total"], found["counts"]["folders"][0]) == (6, {"path": "summer", "count": 4})


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
