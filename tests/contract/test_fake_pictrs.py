"""The fake pict-rs held to what pict-rs' source says of its HTTP interface, spoken to with a plain client and none of our code."""

import base64
import http.client
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.fake_pictrs import KEY, FakePictrs, Refusal, Seen, hash_of, running_pictrs

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def ask(
    fake: FakePictrs, method: str, path: str, *, key: str | None = KEY, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", fake.port, timeout=5)
    try:
        connection.request(method, path, body or None, ({"X-Api-Token": key} if key else {}) | (headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def told(fake: FakePictrs, method: str, path: str, **more: Any) -> tuple[int, Any]:
    status, body, _ = ask(fake, method, path, **more)
    return status, json.loads(body) if body else None


def multipart(name: str, data: bytes, content_type: str = "image/jpeg") -> dict[str, Any]:
    head = f'--frontier\r\nContent-Disposition: form-data; name="images[]"; filename="{name}"\r\nContent-Type: {content_type}\r\n\r\n'
    return {
        "body": head.encode() + data + b"\r\n--frontier--\r\n",
        "headers": {"Content-Type": "multipart/form-data; boundary=frontier"},
    }


@pytest.fixture
def fake() -> Generator[FakePictrs]:
    with running_pictrs(FakePictrs(job_delay=None)) as running:
        yield running


@pytest.fixture
def old() -> Generator[FakePictrs]:
    with running_pictrs(FakePictrs(version="0.4", job_delay=None)) as running:
        yield running


class _Judge(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        self.rfile.readline()
        self.server.got.append((self.path, dict(self.headers.items()), body))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


@contextmanager
def judge(status: int) -> Generator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Judge)
    server.status = status  # type: ignore[attr-defined]
    server.got = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_hash_is_sha256_length_and_format() -> None:
    name = hash_of(b"abc", "image/jpeg")

    assert name.hex() == ABC + "000000000003" + "05"
    assert base64.urlsafe_b64encode(name) == b"ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0AAAAAAAMF"
    assert [hash_of(b"", kind, animated=True)[-1] for kind in ("image/webp", "image/webp", "image/png")] == [3, 3, 7]


def test_internal_routes_ask_for_the_key(fake: FakePictrs, old: FakePictrs) -> None:
    refused = {"msg": "Invalid API Key", "code": "invalid-api-token"}

    assert told(fake, "GET", "/internal/hashes", key=None) == (401, refused)
    assert told(fake, "GET", "/internal/hashes", key="wrong") == (401, refused)
    assert told(old, "GET", "/internal/aliases?alias=x", key="wrong") == (401, {"msg": "Invalid API Key"})
    fake.api_key = ""
    assert told(fake, "GET", "/internal/hashes", key="") == (401, refused)


def test_hashes_come_newest_first_and_next_is_the_first_of_the_next_page(fake: FakePictrs) -> None:
    aliases = [fake.put(bytes([number])) for number in range(5)][::-1]

    status, answer = told(fake, "GET", "/internal/hashes?limit=2")
    page = answer["page"]
    _, second = told(fake, "GET", f"/internal/hashes?limit=2&slug={quote(page['next'])}")
    _, last = told(fake, "GET", f"/internal/hashes?limit=2&slug={quote(second['page']['next'])}")

    assert (status, answer["msg"], page["limit"]) == (200, "ok", 2)
    assert [entry["aliases"] for entry in page["hashes"]] == [[aliases[0]], [aliases[1]]]
    assert "prev" not in page
    assert second["page"]["current"] == page["next"]
    assert [entry["aliases"] for entry in second["page"]["hashes"] + last["page"]["hashes"]] == [[name] for name in aliases[2:]]
    assert "next" not in last["page"]
    assert set(page["hashes"][0]["details"]) == {"width", "height", "frames", "content_type", "created_at", "format"}
    assert len(page["hashes"][0]["hex"]) == 78


@pytest.mark.parametrize("slug", ["not base64!", "AAAA", "deleted"])
def test_a_slug_that_means_nothing_begins_at_the_first_page_again(fake: FakePictrs, slug: str) -> None:
    aliases = [fake.put(bytes([number])) for number in range(4)]
    if slug == "deleted":
        row = fake.row(aliases[0])
        assert row is not None
        slug = base64.urlsafe_b64encode(row.hash).decode()
        fake.forget(aliases[0])

    _, answer = told(fake, "GET", f"/internal/hashes?limit=1&slug={quote(slug)}")

    assert answer["page"]["hashes"][0]["aliases"] == [aliases[3]]


def test_a_timestamp_wins_over_a_slug_and_is_strict(fake: FakePictrs) -> None:
    base = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(3):
        fake.put(bytes([number]), alias=f"{number}.jpeg", at=base + timedelta(hours=number))
    stamp = quote((base + timedelta(hours=1)).isoformat())
    too_old = quote((base - timedelta(hours=1)).isoformat())

    def first(query: str) -> list[str]:
        return [entry["aliases"][0] for entry in told(fake, "GET", f"/internal/hashes?{query}")[1]["page"]["hashes"]]

    assert first(f"timestamp={stamp}&slug=whatever") == ["0.jpeg"]
    assert first(f"timestamp={too_old}") == ["2.jpeg", "1.jpeg", "0.jpeg"]
    fake.repo = "sled"
    assert first(f"timestamp={too_old}") == []


def test_rows_are_younger_than_the_details_by_the_validation(fake: FakePictrs) -> None:
    with judge(200) as server:
        fake.validator = f"http://127.0.0.1:{server.server_address[1]}/validate"
        now = iter(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=20 * number) for number in range(9))
        fake.clock = lambda: next(now)
        upload = fake.upload(b"picture")

    row = fake.row(upload.alias)
    assert row is not None
    assert row.details is not None
    assert (row.at - datetime.fromisoformat(row.details["created_at"])).total_seconds() == 20


def test_a_purge_is_queued_and_takes_every_alias_and_variant(fake: FakePictrs, old: FakePictrs) -> None:
    for server in (fake, old):
        one, two = server.put(b"same"), server.put(b"same")
        server.variant(one)
        assert len(server.objects) == 3  # the second upload's object is dropped by a job
        server.tick()
        assert len(server.objects) == 2

        status, answer = told(server, "POST", f"/internal/purge?alias={one}")
        assert (status, sorted(answer["aliases"])) == (200, sorted([one, two]))
        assert server.row(two) is not None
        server.tick()

        assert server.purged()
    assert told(fake, "POST", "/internal/purge?alias=x")[0] == 404
    assert told(old, "POST", "/internal/purge?alias=x") == (400, {"msg": "No images associated with provided alias"})


def test_delete_takes_one_alias(fake: FakePictrs, old: FakePictrs) -> None:
    one, two = fake.put(b"same"), fake.put(b"same")

    assert told(fake, "POST", f"/internal/delete?alias={one}") == (200, {"msg": "ok"})
    fake.tick()

    assert (fake.row(one), fake.data(two)) == (None, b"same")
    assert ask(fake, "POST", "/internal/delete?alias=x")[:2] == (404, b"")
    assert ask(old, "POST", f"/internal/delete?alias={old.put(b'x')}")[0] == 404


def test_aliases_and_identifier(fake: FakePictrs, old: FakePictrs) -> None:
    for server in (fake, old):
        one, two = server.put(b"same"), server.put(b"same")
        row = server.row(one)
        assert row is not None
        assert told(server, "GET", f"/internal/aliases?alias={two}") == (200, {"msg": "ok", "aliases": [one, two]})
        assert told(server, "GET", "/internal/aliases?alias=x") == (200, {"msg": "ok", "aliases": []})
        assert told(server, "GET", f"/internal/identifier?alias={two}") == (200, {"msg": "ok", "identifier": row.identifier})
        assert told(server, "GET", "/internal/identifier?alias=x")[0] == 404
    assert ask(old, "GET", "/internal/hashes")[0] == 404
    cached = fake.proxied("https://img.example/x.png?a=1&b=2", b"remote")
    asked = quote("https://img.example/x.png?a=1&b=2", safe="")
    assert told(fake, "GET", f"/internal/aliases?proxy={asked}")[1]["aliases"] == [cached]


def test_import_takes_the_file_name_as_alias_and_refuses_a_second(fake: FakePictrs) -> None:
    status, answer = told(fake, "POST", "/internal/import", **multipart("old name.png", b"\x00\r\n--bytes", "image/png"))

    assert (status, answer["files"][0]["file"]) == (201, "old name.png")
    assert fake.data("old name.png") == b"\x00\r\n--bytes"
    status, answer = told(fake, "POST", "/internal/import", **multipart("old name.png", b"other", "image/png"))
    assert (status, answer["code"]) == (400, "duplicate-alias")
    fake.tick()
    assert len(fake.objects) == 1
    fake.read_only = True
    assert told(fake, "POST", "/internal/import", **multipart("a.png", b"x"))[1]["code"] == "read-only"


def test_originals_are_public_and_a_missing_one_is_a_404_with_a_picture(fake: FakePictrs) -> None:
    stand_in, alias = fake.put(b"placeholder"), fake.put(b"0123456789", "image/png")

    assert ask(fake, "GET", "/image/original/none.png", key=None)[:2] == (404, b"")
    assert told(fake, "POST", "/internal/set_not_found", body=json.dumps({"alias": stand_in}).encode())[0] == 201
    status, body, headers = ask(fake, "GET", "/image/original/none.png", key=None)
    assert (status, body, headers["content-type"]) == (404, b"placeholder", "image/jpeg")
    status, body, headers = ask(fake, "GET", f"/image/original/{alias}", key=None)
    assert (status, body, headers["content-type"]) == (200, b"0123456789", "image/png")
    assert ask(fake, "GET", f"/image/original?alias={alias}", key=None, headers={"Range": "bytes=2-4"})[:2] == (206, b"234")
    assert ask(fake, "HEAD", f"/image/original/{alias}", key=None)[2]["content-length"] == "0"
    fake.upgrade("0.5.25")
    assert ask(fake, "HEAD", f"/image/original/{alias}", key=None)[2]["content-length"] == "10"


def test_a_public_endpoint_is_a_303_elsewhere(fake: FakePictrs) -> None:
    alias = fake.put(b"bytes")
    fake.public = True

    status, body, headers = ask(fake, "GET", f"/image/original/{alias}")

    assert (status, body) == (303, b"")
    assert headers["location"].startswith(f"http://127.0.0.1:{fake.public_port}/")


def test_every_upload_is_posted_whole_to_the_validator_and_duplicates_again(fake: FakePictrs) -> None:
    data = bytes(range(256)) * 100
    with judge(204) as server:
        fake.validator = f"http://127.0.0.1:{server.server_address[1]}/validate/secret?x=1"
        first, second = fake.upload(data, "image/png"), fake.upload(data, "image/png")
        got = server.got  # type: ignore[attr-defined]

    assert (first.status, second.status, len(fake.rows)) == (201, 201, 1)
    assert [(path, body == data) for path, _, body in got] == [("/validate/secret?x=1", True)] * 2
    headers = got[0][1]
    assert headers["user-agent"] == "pict-rs v0.5.0-main"
    assert headers["content-type"] == "image/png"
    assert headers["transfer-encoding"] == "chunked"
    assert "content-length" not in headers
    assert "x-api-token" not in headers


@pytest.mark.parametrize("status", [199 + 102, 403, 500])
def test_a_refused_upload_leaves_nothing_behind(fake: FakePictrs, status: int) -> None:
    with judge(status) as server:
        fake.validator = f"http://127.0.0.1:{server.server_address[1]}/"
        upload = fake.upload(b"x")
        again = told(fake, "POST", "/image", key=None, **multipart("any.jpeg", b"x"))

    assert (upload.status, upload.code) == (400, "failed-external-validation")
    assert again == (400, {"msg": "Failed external validation", "code": "failed-external-validation"})
    fake.tick()
    assert fake.purged()


def test_no_answer_from_the_validator_fails_the_upload(fake: FakePictrs) -> None:
    fake.validator = "http://127.0.0.1:9/"

    upload = fake.upload(b"x")

    assert (upload.status, upload.code) == (500, "http-client-error")
    fake.tick()
    assert fake.purged()


def test_a_proxied_picture_is_validated_when_it_is_not_cached(fake: FakePictrs) -> None:
    fake.remote["https://img.example/a.png"] = (b"far", "image/png")
    with judge(200) as server:
        fake.validator = f"http://127.0.0.1:{server.server_address[1]}/"
        path = "/image/original?proxy=" + quote("https://img.example/a.png", safe="")
        answers = [ask(fake, "GET", path, key=None)[:2] for _ in range(3)]
        assert len(server.got) == 1  # type: ignore[attr-defined]

    assert answers == [(200, b"far")] * 3


def test_a_variant_is_another_object_and_in_no_listing(fake: FakePictrs) -> None:
    alias = fake.put(b"picture")

    status, _, headers = ask(fake, "GET", f"/image/process.webp?src={alias}&thumbnail=256", key=None)

    assert (status, headers["content-type"]) == (200, "image/webp")
    assert len(fake.objects) == 2
    assert len(told(fake, "GET", "/internal/hashes")[1]["page"]["hashes"]) == 1
    assert ask(fake, "DELETE", "/internal/variants")[0] == 204
    fake.tick()
    assert len(fake.objects) == 1


def test_a_delete_token_is_held_to(fake: FakePictrs) -> None:
    alias = fake.put(b"x")
    row = fake.row(alias)
    assert row is not None

    assert told(fake, "DELETE", f"/image/delete/wrong/{alias}", key=None)[1]["code"] == "invalid-delete-token"
    assert ask(fake, "DELETE", f"/image/delete/{row.aliases[alias]}/{alias}", key=None)[0] == 204
    fake.tick()
    assert fake.purged()


def test_keys_tell_their_time_and_health_checks_leave_an_object(fake: FakePictrs) -> None:
    alias = fake.put(b"x", "image/png", created=datetime(2026, 1, 2, tzinfo=UTC))
    row = fake.row(alias)
    assert row is not None

    parts = row.identifier.split("/")
    assert [len(part) for part in parts] == [2] * 10 + [16]
    assert int("".join(parts[:6]), 16) == int(datetime(2026, 1, 2, tzinfo=UTC).timestamp() * 1000)
    assert parts[6][0] == "7"
    ask(fake, "GET", "/healthz", key=None)
    assert fake.objects["health-check"] == b""


def test_a_hook_sees_each_request_first_and_may_refuse_it(fake: FakePictrs) -> None:
    def busy(seen: Seen) -> None:
        raise Refusal(500, "no", "panic")

    fake.before = busy

    assert told(fake, "GET", "/internal/hashes") == (500, {"msg": "no", "code": "panic"})
    assert fake.seen[0].query == {}
