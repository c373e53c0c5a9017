"""`vggsearch serve --at`: what is published answers as the index does, from any number of servers."""

import socket
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from tests.fakes import FakeEngine, picture
from tests.helpers.postgres import postgres_folder, postgres_server, running
from tests.helpers.published import FILTERS, change, path_of, photo
from tests.helpers.serving import serving, serving_published
from tests.helpers.waiting import wait_until
from tests.make_golden_index import SMALL_SPEC
from vggsearch.cli import cli
from vggsearch.defaults import SERVE
from vggsearch.image_index import ImageIndex
from vggsearch.published.index import published_of
from vggsearch.serve.published import id_of
from vggsearch.store.store import Store

names = count()
REFUSED = (
    ("GET", "/api/duplicates"),
    ("GET", "/api/map"),
    ("GET", "/api/journals"),
    ("GET", f"/api/compare?photo={id_of(path_of(1))}&other={id_of(path_of(2))}"),
    ("POST", "/api/decisions"),
    ("POST", "/api/removals"),
    ("POST", "/api/removals/1/apply"),
    ("POST", "/api/journals/1/undo"),
    ("POST", "/api/update"),
    ("POST", f"/api/photos/{id_of(path_of(1))}/reveal"),
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    pytest.importorskip("psycopg")
    with postgres_server() as url:
        yield url


@pytest.fixture(
    params=[
        pytest.param("PostgreSQL", marks=pytest.mark.cluster),
        pytest.param("LanceDB", marks=pytest.mark.cluster),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place where nothing is published yet."""
    if request.param == "PostgreSQL":
        return f"{request.getfixturevalue('postgres')}#s{next(names)}"
    pytest.importorskip("lancedb")
    return f"lance+file://{tmp_path}/lance/photos"


@pytest.fixture
def lance(tmp_path: Path) -> str:
    """A place in a folder, which needs no server."""
    pytest.importorskip("lancedb")
    return f"lance+file://{tmp_path}/lance/photos"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An index of 120 pictures, whitened; there are no files of them."""
    change(tmp_path / "index", [photo(seed) for seed in range(120)])
    return tmp_path / "index"


@contextmanager
def local(directory: Path) -> Iterator[httpx.Client]:
    with ImageIndex.open(directory, engine=FakeEngine()) as index, serving([index]) as client:
        yield client


@contextmanager
def at(place: str, root: Path | None = None) -> Iterator[httpx.Client]:
    with ImageIndex.at(place, engine=FakeEngine(), root=root) as index, serving_published(index) as client:
        yield client


def publish(directory: Path, place: str) -> None:
    with ImageIndex.open(directory, engine=FakeEngine()) as index:
        index.publish(place)


def png(seed: int) -> bytes:
    file = BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


def ask(client: httpx.Client, *images: bytes, **data: Any) -> Any:
    files = [("image", image) for image in images]
    answer = client.post("/api/query", files=files, data={"rerank": "false", **data})
    assert answer.status_code == 200, answer.text
    return answer.json()


def without_ids(answer: Any) -> Any:
    """Return an answer without what is different at each server."""
    matches = [{name: value for name, value in match.items() if name != "id"} for match in answer["matches"]]
    return {"matches": matches, "total": answer["total"], "searched": answer["searched"]}


def test_two_servers_answer_as_the_index_does(directory: Path, place: str) -> None:
    publish(directory, place)
    with local(directory) as own, at(place) as one, at(place) as other:
        clients = [one, other]

        def compare(seed: int) -> None:
            client = clients[seed % 2]
            for options in ({}, {"count": 5, "offset": 3}, {"min_similarity": 0.1}, {"filter": FILTERS[seed % 8]}):
                wanted = without_ids(ask(own, png(seed), **options))
                assert without_ids(ask(client, png(seed), **options)) == wanted

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(compare, range(24)))
        files = [("image", png(1)), ("image", png(2)), ("minus", png(3))]
        answers = [
            client.post("/api/query", files=files, data={"rerank": "false"}).json() for client in (own, one, other)
        ]
        assert without_ids(answers[0]) == without_ids(answers[1]) == without_ids(answers[2])
        batch = [("image", png(seed)) for seed in range(10)]
        found = [
            client.post("/api/query/batch", files=batch, data={"rerank": "false", "count": 3}).json()["results"]
            for client in (own, other)
        ]
        assert [[match["path"] for match in each["matches"]] for each in found[0]] == [
            [match["path"] for match in each["matches"]] for each in found[1]
        ]


def test_a_published_photo_is_searched_for_by_its_vector(directory: Path, place: str) -> None:
    publish(directory, place)
    with ImageIndex.open(directory) as index:
        searcher = index._session.latest.searcher()
        expected = searcher.similarities_of_row(searcher.paths.index(path_of(8)))
    best = {searcher.paths[row]: float(expected[row]) for row in range(120) if row % 50 != 3}
    with at(place) as client:
        found = ask(client, photo=id_of(path_of(8)), count=200)["matches"]
        assert found[0]["path"] == path_of(8)
        assert {match["path"]: match["similarity"] for match in found} == pytest.approx(best, abs=1e-4)
        assert found[1]["path"] == path_of(9)  # the same picture
        assert (found[1]["similarity"], found[1]["relation"]) == (1.0, "same picture")
        blank = ask(client, photo=id_of(path_of(3)))["matches"]
        assert [match["path"] for match in blank] == [path_of(3)]
        apart = ask(client, photo=id_of(path_of(8)), exclude_same_folder="true", count=200)["matches"]
        assert {match["path"] for match in apart} == {
            path for path in best if path.rpartition("/")[0] != path_of(8).rpartition("/")[0]
        }
        several = {"photo": [id_of(path_of(8)), id_of(path_of(14))], "minus_photo": id_of(path_of(20))}
        assert ask(client, **several)["matches"][0]["path"] in {path_of(8), path_of(9), path_of(14)}
        mixed = ask(client, png(1), photo=id_of(path_of(8)))
        assert len(mixed["matches"]) == 60
        gone = client.post("/api/query", data={"photo": id_of("2001/none.jpg")})
        assert (gone.status_code, "no longer published" in gone.json()["detail"]) == (422, True)


def test_photos_are_listed_counted_and_filtered_as_those_of_the_index(directory: Path, place: str) -> None:
    publish(directory, place)
    with local(directory) as own, at(place) as client:
        for rule in ("", *FILTERS):
            given: Any = (
                {"filter": rule, "order": "taken", "count": 200} if rule else {"order": "path", "count": 200}
            )
            wanted, found = (each.get("/api/photos", params=given).json() for each in (own, client))
            paths = [[photo["path"] for photo in each["photos"]] for each in (wanted, found)]
            assert (found["total"], paths[1]) == (wanted["total"], paths[0])
            assert client.get("/api/counts", params=given).json() == own.get("/api/counts", params=given).json()
            assert found["photos"][:1] == [{**each, "id": id_of(each["path"])} for each in wanted["photos"][:1]]
        browsed = [each.get("/api/browse", params={"order": "taken"}).json() for each in (own, client)]
        assert browsed[0]["aspect"] == browsed[1]["aspect"]
        assert browsed[0]["months"] == browsed[1]["months"]
        facts = client.get(f"/api/photos/{id_of(path_of(7))}").json()
        assert (facts["path"], facts["width"], facts["format"]) == (path_of(7), 407, "JPEG")
        for wrong in ("x", "!!", id_of("none.jpg"), id_of("../etc/passwd"), id_of("/etc/passwd"), "AA"):
            assert client.get(f"/api/photos/{wrong}").status_code == 404
            assert client.get(f"/api/photos/{wrong}/original").status_code == 404


def test_what_is_published_anew_is_found_without_a_restart(directory: Path, place: str) -> None:
    publish(directory, place)
    with at(place) as one, at(place) as other:
        before = ask(one, png(1))
        assert one.get("/api/photos").json()["total"] == other.get("/api/photos").json()["total"] == 120
        change(directory, [photo(seed) for seed in range(120, 125)], [path_of(0)])  # no new whitening
        publish(directory, place)
        assert one.get("/api/photos").json()["total"] == other.get("/api/photos").json()["total"] == 124
        change(directory, [photo(seed) for seed in range(125, 300)])  # a new one
        publish(directory, place)
        with local(directory) as own:
            for client in (one, other):
                wanted, found = ask(own, png(1)), ask(client, png(1))
                assert without_ids(found) == without_ids(wanted)
                assert found["matches"] != before["matches"]
                assert client.get("/api/counts").json() == own.get("/api/counts").json()
                assert client.get("/api/state").json()["photos"] == 299


def test_what_needs_the_index_is_refused_and_not_offered(directory: Path, lance: str) -> None:
    publish(directory, lance)
    with at(lance) as client:
        for method, address in REFUSED:
            answer = client.request(method, address, json={} if method == "POST" else None)
            assert answer.status_code == 403, address
            assert "published" in answer.json()["detail"], address
        for option in ("rerank", "containing"):
            answer = client.post("/api/query", files={"image": png(1)}, data={option: "true"})
            assert (answer.status_code, "published" in answer.json()["detail"]) == (400, True)
        state = client.get("/api/state").json()
        assert (state["can_change"], state["can_reveal"], state["actions"]) == (False, False, [])
        assert {"duplicates", "map", "compare", "photos"} <= set(state["missing"])
        assert f'data-missing="{" ".join(state["missing"])}"' in client.get("/").text
        name = id_of(path_of(1))
        for what in ("thumbnail", "original"):
            answer = client.get(f"/api/photos/{name}/{what}")
            assert (answer.status_code, "--root" in answer.json()["detail"]) == (404, True)
        cropped = client.post("/api/query", data={"photo": name, "crop": "0,0,0.5,0.5"})
        assert (cropped.status_code, "--root" in cropped.json()["detail"]) == (404, True)


def test_photos_within_reach_are_shown(index: ImageIndex, photos: Path, lance: str, tmp_path: Path) -> None:
    index.publish(lance)
    with at(lance, photos) as client:
        assert "photos" not in client.get("/api/state").json()["missing"]
        name = id_of("summer/1.jpg")
        assert client.get(f"/api/photos/{name}/thumbnail").headers["content-type"] == "image/webp"
        assert client.get(f"/api/photos/{name}/original").content == (photos / "summer" / "1.jpg").read_bytes()
        cropped = ask(client, photo=name, crop="0,0,1,1")["matches"][0]
        assert (cropped["path"], cropped["similarity"]) == ("summer/1.jpg", 1.0)
        (tmp_path / "secret.jpg").write_bytes(png(1))  # a file that is not published
        (photos / "winter" / "unpublished.jpg").write_bytes(png(1))
        for path in ("../secret.jpg", "winter/unpublished.jpg", str(tmp_path / "secret.jpg")):
            assert client.get(f"/api/photos/{id_of(path)}/original").status_code == 404


def test_photos_in_tar_files_within_reach_are_shown(photos: Path, lance: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "1.tar", "w") as tar:
        tar.add(photos / "summer" / "1.jpg", "a.jpg")
    root = Path(f"tar:{tmp_path}")
    with ImageIndex.for_photos(root, tmp_path / "made", engine=FakeEngine()) as index:
        index.update(root)
        index.publish(lance)
    with at(lance, root) as client:
        name = id_of("1.tar/a.jpg")
        assert client.get(f"/api/photos/{name}/thumbnail").headers["content-type"] == "image/webp"
        assert client.get(f"/api/photos/{name}/original").content == (photos / "summer" / "1.jpg").read_bytes()
        assert ask(client, photo=name, crop="0,0,1,1")["matches"][0]["similarity"] == 1.0


def test_more_photos_than_are_listed_are_searched(
    directory: Path, lance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(directory, lance)
    monkeypatch.setattr("vggsearch.serve.published.SERVE", replace(SERVE, listed_photos=100))
    with local(directory) as own, at(lance) as client:
        assert without_ids(ask(client, png(1))) == without_ids(ask(own, png(1)))
        assert without_ids(ask(client, png(1), filter="2001/**")) == without_ids(ask(own, png(1), filter="2001/**"))
        assert client.get(f"/api/photos/{id_of(path_of(1))}").json()["path"] == path_of(1)
        for what in ("photos", "browse", "counts"):
            answer = client.get(f"/api/{what}")
            assert (answer.status_code, "at most 100" in answer.json()["detail"]) == (403, True)
        assert "list" in client.get("/api/state").json()["missing"]


@pytest.mark.cluster
def test_a_server_outlives_its_database(directory: Path) -> None:
    pytest.importorskip("psycopg")
    with postgres_folder() as folder, ExitStack() as stack:
        with running(folder) as url:
            publish(directory, url)
            client = stack.enter_context(at(url))
            before = without_ids(ask(client, png(1)))
        for _ in range(2):
            for answer in (
                client.post("/api/query", files={"image": png(1)}),
                client.get("/api/photos"),
                client.get("/api/state"),
                client.get(f"/api/photos/{id_of(path_of(1))}"),
            ):
                assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
                assert "cannot be reached" in answer.json()["detail"]
            for path in ("/", "/healthz", "/metrics"):
                assert client.get(path).status_code == 200
        with running(folder):
            wait_until(lambda: client.get("/api/state").status_code == 200)
            assert without_ids(ask(client, png(1))) == before
            assert client.get("/api/photos").json()["total"] == 120


@pytest.mark.cluster
def test_requests_do_not_queue_for_a_database_that_never_answers(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres = pytest.importorskip("vggsearch.published.postgres")
    tried = list[object]()
    connect = postgres.psycopg.connect

    def counted(**options: Any) -> Any:
        tried.append(options)
        return connect(**options)

    with ExitStack() as stack:
        folder = stack.enter_context(postgres_folder())
        with running(folder) as url:
            publish(directory, url)
            index = stack.enter_context(ImageIndex.at(url, engine=FakeEngine()))
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # it accepts, and says nothing
        table: Any = published_of(index).table
        table.close()
        table._options = {"host": "127.0.0.1", "port": silent.getsockname()[1], "dbname": "postgres"}
        monkeypatch.setattr(postgres, "CONNECT_S", 2)
        monkeypatch.setattr(postgres, "AGAIN_S", 60.0)
        client = stack.enter_context(serving_published(index))
        monkeypatch.setattr(postgres.psycopg, "connect", counted)
        pool = stack.enter_context(ThreadPoolExecutor(12))
        answers = list(pool.map(lambda _: client.get("/api/state"), range(12)))
        assert {answer.status_code for answer in answers} == {503}
        assert len(tried) <= 1  # the first attempt may have been that of the warm-up


def test_another_network_is_an_error_that_says_what_to_do(directory: Path, lance: str, tmp_path: Path) -> None:
    publish(directory, lance)
    with at(lance) as client:
        Store.create(tmp_path / "other", SMALL_SPEC)
        with ImageIndex.open(tmp_path / "other", engine=FakeEngine(SMALL_SPEC.dim)) as other:
            other.publish(lance, replace=True)
        answer = client.post("/api/query", files={"image": png(1)})
        assert (answer.status_code, "Run the same command again" in answer.json()["detail"]) == (409, True)


def test_a_login_at_one_server_holds_at_another(directory: Path, lance: str) -> None:
    publish(directory, lance)
    with at(lance) as one, at(lance) as other, closing(httpx.Client()) as browser:
        token = one.headers["Authorization"].removeprefix("Bearer ")
        browser.get(f"{one.base_url}/login", params={"token": token})
        assert browser.get(f"{other.base_url}/api/state").status_code == 200


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--at", "lance+file:///x/y", "--index", "here"], "without --index"),
        (["--at", "lance+file:///x/y", "--allow-changes"], "--allow-changes"),
        (["--root", "."], "--root goes with --at"),
        (["--at", "nonsense"], "lance+s3://BUCKET/NAME"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], why: str) -> None:
    result = CliRunner().invoke(cli, ["serve", *words])
    assert result.exit_code != 0
    assert why in result.output
