"""The map of all photos."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.serving import serving, wait_for
from vggsearch.image_index import ImageIndex
from vggsearch.progress import SILENT
from vggsearch.serve import maps
from vggsearch.serve.maps import placed


def groups_of_vectors(groups: int, of_each: int) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    middles = np.repeat(random.normal(size=(groups, 64)), of_each, axis=0)
    vectors = middles + 0.05 * random.normal(size=middles.shape)
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


@pytest.mark.parametrize("most", [1000, 24])
def test_similar_photos_are_near_each_other(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(maps, "SERVE", type("Few", (), {"map_photos": most}))
    points = placed(groups_of_vectors(3, 15), SILENT)
    assert points.shape == (45, 2)
    assert points.min() >= 0
    assert points.max() <= 1
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distances, 9)
    assert (distances.argmin(axis=1) // 15 == np.arange(45) // 15).all()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_few_photos_have_a_place_too(count: int) -> None:
    assert placed(groups_of_vectors(1, 5)[:count], SILENT).shape == (count, 2)


def test_a_map_is_made_once_for_each_state(index: ImageIndex) -> None:
    with serving([index]) as client:
        assert wait_for(client, client.get("/api/map")) == {"photos": 6}
        found = client.get("/api/map").json()
        assert sorted(found["ids"]) == sorted(photo["id"] for photo in client.get("/api/photos").json()["photos"])
        assert len(found["x"]) == len(found["y"]) == found["total"] == 6
        (index.root / "winter" / "5.jpg").unlink() if index.root else None
        wait_for(client, client.post("/api/update", json={}))
        assert client.get("/api/map").status_code == 202


def test_without_scikit_learn_the_answer_names_the_extra(
    index: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "find_spec", lambda _: None)
    with serving([index]) as client:
        answer = client.get("/api/map")
    assert (answer.status_code, "vggsearch[eval]" in answer.json()["detail"]) == (501, True)
