"""What strangers and their files may try on `vggsearch serve`: the table of attacks in docs/serve.md."""

import json
import os
import re
import socket
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.fakes import FakeEngine, save_photo
from tests.helpers.calibration import calibrated_with
from tests.helpers.serving import TOKEN, client_of, duplicates, serving
from vggsearch.defaults import SERVE
from vggsearch.image_index import ImageIndex
from vggsearch.photos.opening import HAS_DESCRIPTORS
from vggsearch.serve import run
from vggsearch.serve.guard import Access
from vggsearch.serve.library import Located
from vggsearch.serve.originals import Originals
from vggsearch.serve.service import IndexService

DOCUMENT = Path(__file__).parent.parent / "docs" / "serve.md"
EVIL = "http://evil.example"


@pytest.fixture
def client(index: ImageIndex) -> Iterator[httpx.Client]:
    with serving([index]) as client:
        yield client


@pytest.fixture
def page(client: httpx.Client) -> Iterator[httpx.Client]:
    """A browser that has opened the link: it has the cookie, and no Authorization header."""
    with client_of(port_of(client)) as browser:
        answer = browser.get("/login", params={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        yield browser


def port_of(client: httpx.Client) -> int:
    port = client.base_url.port
    assert port is not None
    return port


def first_photo(client: httpx.Client) -> str:
    photo: str = client.get("/api/photos").json()["photos"][0]["id"]
    return photo


def raw(client: httpx.Client, request: bytes) -> bytes:
    """Send bytes as they are, and read until the server closes."""
    with socket.create_connection(("127.0.0.1", port_of(client)), timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_the_document_lists_these_attacks() -> None:
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT.read_text(encoding="utf-8")))
    assert named == {name for name in globals() if name.startswith("test_")} - {
        "test_the_document_lists_these_attacks"
    }


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1:1", "192.168.0.1", ""]
)
def test_rebinding_of_a_name_to_this_machine(client: httpx.Client, host: str) -> None:
    port = port_of(client)
    for named in (host, f"{host}:{port}") if "." in host and ":" not in host else (host,):
        answer = client.get("/api/state", headers={"Host": named})
        assert (answer.status_code, "photos" in answer.text) == (421, False), named
    for own in ("localhost", f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert client.get("/api/state", headers={"Host": own}).status_code == 200


def test_two_host_headers_or_none(client: httpx.Client) -> None:
    token = f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n".encode()
    twice = b"GET /api/state HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n" + token
    assert raw(client, twice).split()[1] in (b"400", b"421")
    assert raw(client, b"GET /api/state HTTP/1.0\r\n" + token).split()[1] == b"421"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN} {TOKEN}"},
        {"Authorization": TOKEN},
        {"Cookie": f"vggsearch_1={TOKEN}"},
        {"Cookie": "{cookie}=\xff"},
    ],
)
def test_a_stranger_without_the_token(client: httpx.Client, headers: dict[str, str]) -> None:
    headers = {
        name: value.replace("{cookie}", Access(TOKEN, "", 0, can_change=False).cookie)
        for name, value in headers.items()
    }
    raw_headers = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    with client_of(port_of(client)) as stranger:
        for path in ("/api/state", "/web/app.js", "/metrics", "/healthz", "/api/openapi.json", "/nowhere"):
            answer = stranger.get(path, params={"token": TOKEN}, headers=raw_headers)
            assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
        assert stranger.post("/api/update", json={}, headers=raw_headers).status_code == 401
        page = stranger.get("/", headers=raw_headers)
        assert (page.status_code, page.headers["content-type"]) == (401, "text/html; charset=utf-8")
        login = stranger.get("/login", params={"token": "wrong"}, headers=raw_headers)
        assert (login.status_code, "set-cookie" in login.headers) == (401, False)


def test_a_cookie_that_scripts_or_other_sites_could_use(client: httpx.Client, page: httpx.Client) -> None:
    with client_of(port_of(client)) as browser:
        cookie = browser.get("/login", params={"token": TOKEN}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert page.get("/api/state").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": EVIL}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "{own}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "{own}", "Sec-Fetch-Site": "same-site"}, 403),
        ({}, 403),
        ({"Origin": "{own}"}, 202),
        ({"Sec-Fetch-Site": "same-origin"}, 202),
    ],
)
def test_forgery_of_a_change_by_another_page(page: httpx.Client, headers: dict[str, str], status: int) -> None:
    headers = {name: value.format(own=f"http://127.0.0.1:{port_of(page)}") for name, value in headers.items()}
    assert page.post("/api/update", json={}, headers=headers).status_code == status


def test_forgery_with_the_forms_of_a_page(page: httpx.Client) -> None:
    own = {"Origin": f"http://127.0.0.1:{port_of(page)}"}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = page.post("/api/update", content=b"{}", headers=own | {"Content-Type": kind})
        assert answer.status_code == 400


def test_pictures_and_scripts_on_the_page_of_another_site(page: httpx.Client) -> None:
    for site in ("cross-site", "same-site"):
        embedded = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        assert page.get(f"/api/photos/{'0' * 16}/thumbnail", headers=embedded).status_code == 403
        assert page.get("/api/state", headers=embedded).status_code == 403
        followed = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert page.get("/login", params={"token": TOKEN}, headers=followed).status_code == 303
        assert page.get("/api/state", headers=followed).status_code == 403


def test_a_frame_or_a_script_in_a_page(client: httpx.Client) -> None:
    for path in ("/", "/api/state", "/nowhere", "/web/nothing.js"):
        headers = client.get(path).headers
        assert "script-src" not in headers["content-security-policy"]
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "'unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "id",
    [
        "../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e",
        "summer/0.jpg",
        "%00",
        "~",
        "/etc/passwd",
    ],
)
def test_traversal_by_id(client: httpx.Client, id: str) -> None:
    for path in (f"/api/photos/{id}/original", f"/api/photos/{id}", f"/web/{id}", f"/api/query/{id}/image"):
        answer = client.get(path)
        assert answer.status_code in (404, 405), path
        assert "root:" not in answer.text
    assert client.post("/api/query", data={"photo": id}).status_code == 404
    assert client.post("/api/decisions", json={"decision": "keep", "photos": [id]}).status_code == 404
    assert client.post(f"/api/journals/{quote(id, safe='')}/undo").status_code in (404, 405)
    assert client.post("/api/update", json={"index": id}).status_code == 404


def test_traversal_by_header_or_by_the_name_of_an_upload(
    client: httpx.Client, photos: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    data = (photos / "summer" / "0.jpg").read_bytes()
    for name in ("../../../../tmp/evil.jpg", "/etc/passwd", "~/x.jpg", "http://evil.example/x.jpg", "a\0b.jpg"):
        answer = client.post("/api/query", files={"image": (name, data)}, data={"rerank": "no", "count": "1"})
        assert answer.json()["matches"][0]["path"] == "summer/0.jpg"
    for header in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Host", "Forwarded"):
        assert client.get("/nowhere", headers={header: "/api/state"}).status_code == 404
    assert sorted(tmp_path.rglob("*")) == before


def test_an_address_or_a_path_in_place_of_a_picture(client: httpx.Client, photos: Path) -> None:
    for text in (EVIL, "file:///etc/passwd", str(photos / "summer" / "0.jpg")):
        assert client.post("/api/query", data={"image": text}).status_code == 400
        assert client.post("/api/query", data={"photo": text}).status_code == 404


def test_a_photo_that_became_a_link_out_of_its_folder(client: httpx.Client, photos: Path, tmp_path: Path) -> None:
    photo = first_photo(client)
    secret = save_photo(tmp_path / "secret" / "secret.jpg", 99)
    (photos / "summer" / "0.jpg").unlink()
    (photos / "summer" / "0.jpg").symlink_to(secret)
    assert client.get(f"/api/photos/{photo}/original").status_code == 404
    assert client.get(f"/api/photos/{photo}/thumbnail").status_code == 422
    assert client.post("/api/query", data={"photo": photo}).status_code == 422
    assert client.get("/api/compare", params={"photo": photo, "other": photo}).status_code == 422


@pytest.mark.skipif(not HAS_DESCRIPTORS, reason="needs descriptors of folders")
def test_a_folder_that_becomes_a_link_while_a_photo_is_opened(
    client: httpx.Client, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, resolve = first_photo(client), os.path.realpath
    secret = save_photo(tmp_path / "secret" / "0.jpg", 99).read_bytes()

    def swap_after_the_check(path: str | Path) -> str:
        found = resolve(path)
        if str(path).endswith("0.jpg") and not (photos / "summer").is_symlink():
            (photos / "summer").rename(tmp_path / "away")
            (photos / "summer").symlink_to(tmp_path / "secret")
        return found

    monkeypatch.setattr(os.path, "realpath", swap_after_the_check)
    answer = client.get(f"/api/photos/{photo}/original")
    assert (photos / "summer").is_symlink()
    assert (answer.status_code, secret in answer.content) == (404, False)


def test_a_photo_that_is_replaced_after_it_was_checked(
    client: httpx.Client, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, check = first_photo(client), Originals._check
    before = (photos / "summer" / "0.jpg").read_bytes()

    def replace_after_the_check(self: Originals, found: Located, file: BufferedReader) -> None:
        check(self, found, file)
        (tmp_path / "new").write_bytes(b"<script>alert(1)</script>")
        (tmp_path / "new").rename(photos / "summer" / "0.jpg")

    monkeypatch.setattr(Originals, "_check", replace_after_the_check)
    assert client.get(f"/api/photos/{photo}/original").content == before


def test_a_script_in_a_file_name(tmp_path: Path) -> None:
    hostile = ("<img src=x onerror=alert(1)>.jpg", 'a"; filename="evil.html.jpg', "a\r\nSet-Cookie: x=1.jpg")
    for seed, name in enumerate(hostile):
        save_photo(tmp_path / "photos" / "new.jpg", seed).rename(tmp_path / "photos" / name)
    with ImageIndex.create(tmp_path / "index", engine=FakeEngine()) as index:
        index.update(tmp_path / "photos")
        with serving([index]) as client:
            listed = client.get("/api/photos")
            assert listed.headers["content-type"] == "application/json"
            assert {photo["path"] for photo in listed.json()["photos"]} == set(hostile)
            for photo in listed.json()["photos"]:
                headers = client.get(f"/api/photos/{photo['id']}/original").headers
                assert "set-cookie" not in headers
                assert not re.search(r'filename="[^"]*"[^"]*"', headers["content-disposition"])


def test_a_photo_that_became_something_else(client: httpx.Client, photos: Path) -> None:
    photo = first_photo(client)
    whole = client.get(f"/api/photos/{photo}/original")
    assert whole.headers["content-security-policy"] == "default-src 'none'; sandbox"
    for content in (
        b"<html><script>alert(1)</script></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"key",
    ):
        (photos / "summer" / "0.jpg").write_bytes(content)
        answer = client.get(f"/api/photos/{photo}/original")
        assert (answer.status_code, content in answer.content) == (404, False)
        assert client.get(f"/api/photos/{photo}/thumbnail").status_code == 422
        assert client.post("/api/query", files={"image": ("a.svg", content)}).status_code == 422


def test_a_script_in_a_decision_or_an_option(client: httpx.Client) -> None:
    script = "<script>alert(1)</script>"
    answers = (
        client.post("/api/decisions", json={"decision": script, "photos": []}),
        client.get("/api/photos", params={"orientation": script}),
        client.get(f"/api/photos/{quote(script, safe='')}"),
        client.post("/api/query", files={"image": (script, b"x")}),
    )
    for answer in answers:
        assert answer.status_code >= 400
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "start", [b"", b"GET /api/state HTT", b"GET /api/state HTTP/1.1\r\nHost: localhost\r\nX: "]
)
def test_headers_that_never_end(index: ImageIndex, monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    monkeypatch.setattr("vggsearch.serve.run.SERVE", replace(SERVE, header_seconds=0.3))
    with serving([index]) as client, socket.create_connection(("127.0.0.1", port_of(client)), timeout=20) as slow:
        began = time.monotonic()
        try:
            while time.monotonic() - began < 10:
                slow.sendall(start[:1])
                start = start[1:] + b"a"
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - began < 5
        assert client.get("/healthz").status_code == 200


def test_a_second_request_that_never_ends(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggsearch.serve.run.SERVE", replace(SERVE, header_seconds=0.3, idle_seconds=0))
    with serving([index]) as client:
        whole = f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        began = time.monotonic()
        assert raw(client, whole + b"GET /healthz HTTP/1.1\r\nHo").startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began < 5


def test_a_body_that_never_ends(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggsearch.serve.guard.SERVE", replace(SERVE, body_seconds=0.3))
    with serving([index]) as client:
        head = (
            f"POST /api/query HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
        )
        form = "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n--x\r\n"
        assert raw(client, (head + form).encode()).split()[1] == b"408"


def test_a_body_that_is_too_large(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggsearch.serve.guard.SERVE", replace(SERVE, body_bytes=10_000))
    with serving([index]) as client:
        assert client.post("/api/query", files={"image": bytes(20_000)}).status_code == 413
        parts = (bytes(1000) for _ in range(20))  # of a length that is not announced
        chunked = client.post(
            "/api/query", content=parts, headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
        assert chunked.status_code in (400, 413)
        assert client.get("/healthz").status_code == 200


def test_many_bodies_at_once(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggsearch.serve.guard.SERVE", replace(SERVE, held_bytes=30_000))
    with serving([index]) as client:
        for _ in range(3):  # and what was refused is not held any more
            refused = client.post("/api/query", files={"image": bytes(40_000)})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert client.post("/api/query", files={"image": bytes(1000)}).status_code == 422


def test_more_pictures_or_fields_than_a_query_has(client: httpx.Client) -> None:
    many = [("image", ("a.jpg", b"x")) for _ in range(SERVE.upload_files + 1)]
    assert client.post("/api/query", files=many).status_code == 400
    photos = {"photo": [first_photo(client)] * (SERVE.upload_files + 1)}
    assert client.post("/api/query", data=photos).status_code == 400
    assert client.post("/api/query", data={f"a{number}": "" for number in range(300)}).status_code in (400, 422)
    assert client.post("/api/query", files={"image": b""}).status_code == 400


def test_garbage_in_place_of_pictures(client: httpx.Client) -> None:
    for number in range(20):
        garbage = b"\xff\xd8\xff" * (number % 2) + struct.pack(">I", zlib.crc32(bytes([number]))) * 50
        assert client.post("/api/query", files={"image": garbage}).status_code == 422
    assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"\xff\xfe",
        b"1e999",
        b'{"decision": {"same": 1}, "photos": [["a"]]}',
        b'{"decision": "same", "photos": "abc"}',
        json.dumps({"decision": "same", "photos": ["0" * 16] * 60_000}).encode(),
    ],
)
def test_garbage_in_place_of_json(client: httpx.Client, content: bytes) -> None:
    answer = client.post("/api/decisions", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 404)


def png(width: int, height: int) -> bytes:
    """A picture of so many pixels, all black, in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = zlib.compressobj(9)
    rows = b"".join(row.compress(bytes(1 + width // 8)) for _ in range(height)) + row.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_decompression_bomb(client: httpx.Client) -> None:
    bomb = png(20_000, 20_000)
    assert len(bomb) < 1 << 20
    began = time.monotonic()
    answer = client.post("/api/query", files={"image": bomb})
    assert (answer.status_code, time.monotonic() - began < 5) == (422, True)
    assert client.get("/healthz").status_code == 200


def test_ranges_of_an_original(client: httpx.Client, photos: Path) -> None:
    link = f"/api/photos/{first_photo(client)}/original"
    whole = (photos / "summer" / "0.jpg").read_bytes()
    assert client.get(link, headers={"Range": f"bytes={len(whole) - 5}-"}).content == whole[-5:]
    for wrong in (f"bytes={len(whole)}-", "bytes=0-0," * 10_000 + "0-0", "bytes=9-1", "bytes=-", "bytes=x-y"):
        answer = client.get(link, headers={"Range": wrong[:60_000]})
        assert answer.status_code in (400, 416, 431), wrong[:20]


def test_a_filter_that_takes_for_ever(client: httpx.Client) -> None:
    for text in ("*a" * 50, "[" * 1000, "a" * 10_000):
        assert client.get("/api/photos", params={"filter": text}).status_code == 400


def test_numbers_out_of_range(client: httpx.Client) -> None:
    for values in (
        {"count": "-1"},
        {"count": "1" * 5000},
        {"offset": "NaN"},
        {"count": "1e9"},
        {"count": "100000"},
    ):
        assert client.get("/api/photos", params=values).status_code == 400
    for values in ({"min_similarity": "nan"}, {"crop": "0,0,inf,1"}, {"crop": "2,0,1,1"}, {"crop": "nan,0,1,1"}):
        assert client.post("/api/query", data={"photo": first_photo(client), **values}).status_code == 400


def test_a_stranger_in_the_network_changes_nothing(index: ImageIndex) -> None:
    anywhere = "0.0.0.0"  # noqa: S104 - what the rules are for
    with calibrated_with(0), serving([index], host=anywhere, can_change=False) as client:
        assert client.get("/api/state").json()["can_change"] is False
        assert client.get("/api/state", headers={"Host": "192.168.0.7:8765"}).status_code == 200
        assert client.get("/api/state", headers={"Host": "evil.example"}).status_code == 421
        for path in (
            "/api/update",
            "/api/decisions",
            "/api/removals",
            "/api/removals/x/apply",
            "/api/journals/x/undo",
        ):
            answer = client.post(path, json={})
            assert answer.status_code == 403
            assert "--allow-changes" in answer.json()["detail"]
        assert client.delete("/api/jobs/x").status_code == 403
        assert client.post(f"/api/photos/{first_photo(client)}/reveal").status_code == 403
        assert client.post("/api/query", data={"photo": first_photo(client), "rerank": "no"}).status_code == 200


def test_a_visitor_who_has_duplicates_searched_for(index: ImageIndex, photos: Path) -> None:
    with calibrated_with(0), serving([index], can_change=False) as client:
        found = duplicates(client)  # those of the start
        refused = client.get("/api/duplicates", params={"min_precision": "0.5"})
        assert (refused.status_code, "--allow-changes" in refused.json()["detail"]) == (403, True)
        assert client.get("/api/duplicates").json() == found
        save_photo(photos / "new.jpg", 50)
        index.update(photos)
        assert client.get("/api/duplicates").status_code == 403


def test_a_file_manager_that_strangers_open(client: httpx.Client) -> None:
    refused = client.post(f"/api/photos/{first_photo(client)}/reveal")
    assert (refused.status_code, "no other machine" in refused.json()["detail"]) == (403, True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "photos.example"])  # noqa: S104 - what the rules are for
def test_a_file_manager_beyond_this_machine(index: ImageIndex, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    class Stub:
        def __init__(self, service: IndexService, *_: object, **__: object) -> None:
            given.append(service.file_manager)
            self.serve_until_stopped = service.close

    monkeypatch.setattr(run, "file_manager", lambda platform: platform)
    monkeypatch.setattr(run, "Server", Stub)
    monkeypatch.setattr(run, "listening_on", lambda *_: socket.create_server(("127.0.0.1", 0)))
    for named in (host, "127.0.0.1", "localhost"):
        run.serve([index], host=named, port=0, allow_changes=True, has_desktop=True, started=print)
    run.serve([index], host="127.0.0.1", port=0, has_desktop=False, started=print)
    assert given == [None, sys.platform, sys.platform, None]


def test_more_searches_than_can_wait(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggsearch.serve.search.SERVE", replace(SERVE, waiting=0))
    with serving([index]) as client:
        answer = client.post("/api/query", data={"photo": first_photo(client)})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
