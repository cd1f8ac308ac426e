"""What pict-rs promises, by version, as a suite that runs against the fake and against the real servers: the same calls, other pictures.

A class of tests with one fixture, `rig`, that whoever inherits it gives. Nothing here knows which of the two it talks to.
"""

import base64
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol
from urllib.parse import quote

import pytest
from tests.support.fake_pictrs import as_kept
from tests.support.media_makers import movie, scene, still, truncated

from fediwarden.errors import Gone, Lost, Refused
from fediwarden.platforms.pictrs.hashes import Hash
from fediwarden.platforms.pictrs.server import Server

SECONDS = 30.0  # how long a queued job may take
EARLY = "0.5.16"
ABSENT: dict[
    str, dict[str, str | None]
] = {  # what the 404 of each question about an unknown alias says: (path, code), by version; None: an empty body
    EARLY: {"identifier": "alias-not-found", "purge": "alias-not-found", "delete": None, "original": None},
    "0.5.25": {"identifier": "alias-not-found", "purge": "alias-not-found", "delete": "alias-not-found", "original": None},
    "0.6.0-rc.6": {"identifier": "not-found", "purge": "not-found", "delete": "not-found", "original": "not-found"},
}
AGENTS = {EARLY: "pict-rs v0.5.0-main", "0.5.25": "pict-rs 0.5.25", "0.6.0-rc.6": "pict-rs 0.6.0-rc.6"}
GENERATIONS = {EARLY: "0.5 up to 0.5.16", "0.5.25": "0.5.17 or newer", "0.6.0-rc.6": "0.6"}


@dataclass(frozen=True)
class Got:
    """What the validator was sent."""

    head: tuple[str, ...]  # the lines, as they came
    wire: bytes  # the body with its chunks
    body: bytes


@dataclass
class Judge:
    """A validator on loopback that answers as it is told and keeps what it was sent."""

    port: int = 0
    status: int = 200
    location: str = ""
    got: list[Got] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/validate/obvious-dummy"

    def answer(self, wire: socket.socket) -> None:
        with wire:
            wire.settimeout(10)
            begun = b""
            while b"\r\n\r\n" not in begun:
                begun += (piece := wire.recv(65536))
                if not piece:
                    return
            head, _, rest = begun.partition(b"\r\n\r\n")
            # a boundary may end in 0 as well: the last chunk begins a line
            while b"chunked" in head.lower() and not (b"\r\n" + rest).endswith(b"\r\n0\r\n\r\n"):
                rest += (piece := wire.recv(65536))
                if not piece:
                    return
            lines = tuple(head.decode().split("\r\n"))
            self.got.append(Got(lines, rest, _joined(rest)))
            elsewhere = lines[0].split()[1] == "/elsewhere"
            status = 200 if elsewhere else self.status
            more = f"Location: {self.location}\r\n" if self.location and not elsewhere else ""
            wire.sendall(f"HTTP/1.1 {status} Told\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())


def _joined(wire: bytes) -> bytes:
    body = b""
    while wire:
        size, _, rest = wire.partition(b"\r\n")
        length = int(size, 16)
        body, wire = body + rest[:length], rest[length + 2 :]
        if not length:
            break
    return body


@contextmanager
def judging() -> Generator[Judge]:
    """A validator, until the block ends."""
    judge = Judge()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        judge.port = listening.getsockname()[1]
        listening.settimeout(0.2)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    wire, _ = listening.accept()
                except TimeoutError:
                    continue
                except OSError:
                    return
                threading.Thread(target=judge.answer, args=(wire,), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield judge
        finally:
            over.set()
            thread.join()


class Rig(Protocol):
    """One pict-rs, and the hands of its administrator."""

    @property
    def url(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def repository(self) -> str:
        """ "sled", "fjall" or "postgres"."""
        ...

    @property
    def judge(self) -> Judge:
        """The validator that it asks."""
        ...

    def settle(self) -> None:
        """Have queued jobs done, if that can be asked for."""
        ...

    def lose(self, alias: str) -> None:
        """Take the file of an original out of the store. Skips the test where there is no way."""
        ...

    def early(self, pictures: Sequence[bytes]) -> list[str]:
        """Have these taken in by 0.5.16, and be this version again, in place; aliases. Skips where there is no way."""
        ...

    def name_the_validator(self) -> None:
        """Ask the same validator by its name, `localhost`, from now on."""
        ...


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def code(self) -> str | None:
        return self.told["code"] if self.body else None


def ask(
    rig: Rig, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, *, key: str | None = None
) -> Answer:
    """One call, with the API key where it is an internal one."""
    address = rig.url.removeprefix("http://")
    sent = {"X-Api-Token": rig.key if key is None else key} if path.startswith("/internal/") else {}
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request(method, path, body or None, sent | (headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def send(rig: Rig, data: bytes, content_type: str = "image/png", name: str = "picture.png", path: str = "/image") -> Answer:
    """An upload as a form, or an import."""
    head = f'--frontier\r\nContent-Disposition: form-data; name="images[]"; filename="{name}"\r\nContent-Type: {content_type}\r\n\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=frontier"}
    return ask(rig, "POST", path, head.encode() + data + b"\r\n--frontier--\r\n", form)


def uploaded(rig: Rig, data: bytes, content_type: str = "image/png") -> str:
    answer = send(rig, data, content_type)
    assert answer.status == 201, answer
    return str(answer.told["files"][0]["file"])


def original(rig: Rig, alias: str, method: str = "GET", **headers: str) -> Answer:
    return ask(rig, method, f"/image/original/{quote(alias)}", headers=headers)


def page(rig: Rig, **query: object) -> Any:
    asked = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
    answer = ask(rig, "GET", f"/internal/hashes?{asked}")
    assert answer.status == 200, answer
    return answer.told["page"]


def slug_of(entry: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(entry["hex"])).decode()


def until(rig: Rig, true: Callable[[], bool]) -> None:
    """Wait for a queued job."""
    ends = time.monotonic() + SECONDS
    rig.settle()
    while not true():
        assert time.monotonic() < ends, "the job was never done"
        time.sleep(0.05)


def png(seed: int) -> bytes:
    return still("png", 64, 48, seed)


class PictrsPromises:
    """Inherit it and give it a fixture `rig`: an empty pict-rs whose validator is `rig.judge`."""

    @pytest.fixture
    def server(self, rig: Rig) -> Generator[Server]:
        with closing(Server(rig.url, key=rig.key, seconds=30)) as opened:
            yield opened

    def test_an_unknown_alias_is_absent_in_the_words_of_its_version(self, rig: Rig, server: Server) -> None:
        expected = ABSENT[rig.version]
        uploaded(rig, png(1))

        aliases = ask(rig, "GET", "/internal/aliases?alias=no%20body.png")
        found = {
            "identifier": ask(rig, "GET", "/internal/identifier?alias=no%20body.png"),
            "purge": ask(rig, "POST", "/internal/purge?alias=no%20body.png"),
            "delete": ask(rig, "POST", "/internal/delete?alias=no%20body.png"),
            "original": original(rig, "no body.png"),
        }

        assert {name: (answer.status, answer.code) for name, answer in found.items()} == {
            name: (404, code) for name, code in expected.items()
        }
        if rig.version == EARLY:
            assert (aliases.status, aliases.told) == (200, {"msg": "ok", "aliases": []})
        else:
            assert (aliases.status, aliases.code) == (404, expected["identifier"])
        assert ask(rig, "DELETE", "/image/delete/00000000-0000-0000-0000-000000000000/no%20body.png").status == 204
        assert (server.aliases("no body.png"), server.identifier("no body.png"), server.find_alias("no body.png")) == (
            (),
            None,
            None,
        )
        for refuses in (server.purge, server.head, server.hash_of):
            with pytest.raises(Gone):
                refuses("no body.png")

    def test_a_key_that_is_wrong_opens_nothing_and_the_version_is_told_by_what_it_can_do(self, rig: Rig, server: Server) -> None:
        word = "Token" if rig.version.startswith("0.6") else "Key"

        wrong = ask(rig, "GET", "/internal/hashes", key="wrong")

        assert (wrong.status, wrong.told) == (401, {"code": "invalid-api-token", "msg": f"Invalid API {word}"})
        assert (server.version, server.generation) == ("0.5", GENERATIONS[rig.version])
        with closing(Server(rig.url, key="wrong", seconds=30)) as stranger:
            with pytest.raises(Refused, match="API key"):
                stranger.aliases("any.png")
            assert stranger.generation == ("0.6" if word == "Token" else "0.5")

    def test_only_0_6_tells_its_limits_and_ours_never_show_the_secret(self, rig: Rig, server: Server) -> None:
        limits = server.limits()

        if not rig.version.startswith("0.6"):
            assert limits is None
            return
        assert limits is not None
        assert (limits.validator, limits.size, limits.videos) == (rig.judge.url, 40 << 20, True)
        assert limits.animation.frames == 900
        assert "obvious-dummy" not in repr(limits)

    def test_equal_bytes_are_one_content_under_many_names_that_go_one_by_one(self, rig: Rig, server: Server) -> None:
        data = png(2)
        first, other, second = uploaded(rig, data), uploaded(rig, png(3)), uploaded(rig, data)
        stored = original(rig, first).body

        imported = send(rig, stored, name="by hand.png", path="/internal/import")

        assert imported.status == 201
        assert imported.told["files"][0]["file"] == "by hand.png"
        names = sorted([first, second, "by hand.png"])
        told = ask(rig, "GET", f"/internal/aliases?alias={second}").told["aliases"]
        assert sorted(told) == names
        assert rig.repository == "postgres" or told == sorted(told, key=as_kept)
        assert sorted(server.aliases("by hand.png")) == names
        assert len(page(rig, limit=10)["hashes"]) == 2
        assert ask(rig, "POST", "/internal/delete?alias=by%20hand.png").status == 200
        until(rig, lambda: server.aliases("by hand.png") == ())
        assert (original(rig, second).body, sorted(server.aliases(first))) == (stored, sorted([first, second]))
        token = imported.told["files"][0]["delete_token"]
        wrong = ask(rig, "DELETE", f"/image/delete/{token}/{first}")
        assert (wrong.status, wrong.code) == (403, "invalid-delete-token")
        assert original(rig, other).status == 200

    def test_a_name_that_is_taken_is_refused_by_its_code_and_nothing_is_overwritten(self, rig: Rig, server: Server) -> None:
        taken = uploaded(rig, png(4))
        before = original(rig, taken).body

        again = send(rig, png(5), name=taken, path="/internal/import")

        assert (again.status, again.code) == (500 if rig.version.startswith("0.6") else 400, "duplicate-alias")
        assert server.import_(taken, png(5), "image/png") is False
        assert server.import_(taken, before, "image/png") is False  # the same bytes as well
        assert original(rig, taken).body == before
        assert server.import_("free name.png", png(5), "image/png") is True

    def test_a_purge_takes_every_name_and_the_same_bytes_may_come_again(self, rig: Rig, server: Server) -> None:
        kept, data = uploaded(rig, png(6)), png(7)
        names = [uploaded(rig, data) for _ in range(3)]
        name = Hash.of(original(rig, names[0]).body, 7)

        assert sorted(server.purge(names[1])) == sorted(names)
        until(rig, lambda: server.find_hash(bytes(name)) is None)

        assert [server.aliases(alias) for alias in names] == [(), (), ()]
        assert [original(rig, alias).status for alias in names] == [404, 404, 404]
        with pytest.raises(Gone):
            server.purge(names[0])
        assert uploaded(rig, data) not in names
        assert [len(entry["aliases"]) for entry in page(rig, limit=9)["hashes"]] == [1, 1]
        assert original(rig, kept).status == 200

    def test_a_listing_goes_from_the_newest_and_names_what_is_before_and_after(self, rig: Rig, server: Server) -> None:
        aliases = [uploaded(rig, png(10 + number)) for number in range(5)][::-1]
        whole = page(rig, limit=50)
        slugs = [slug_of(entry) for entry in whole["hashes"]]

        middle = page(rig, limit=2, slug=slugs[2])

        assert [entry["aliases"] for entry in whole["hashes"]] == [[alias] for alias in aliases]
        assert "prev" not in whole
        assert "next" not in whole
        assert (middle["current"], middle["prev"], middle["next"]) == (slugs[2], slugs[0], slugs[4])
        assert [slug_of(entry) for entry in middle["hashes"]] == slugs[2:4]
        one = page(rig, limit=1, slug=slugs[3])
        assert (one["prev"], one["next"]) == (slugs[2], slugs[4])
        assert page(rig, limit=1, slug="AAAA")["current"] == slugs[0]  # what means nothing begins anew
        nothing = page(rig, limit=0, slug=slugs[3])
        assert (nothing["hashes"], nothing["next"]) == ([], slugs[3])
        assert (server.peek(), server.peek(slugs[4]), server.peek("AAAA")) == (slugs[0], slugs[4], slugs[0])
        old = page(rig, limit=1, timestamp="2000-01-01T00:00:00Z")
        if rig.repository == "postgres":
            assert old["current"] == slugs[0]
        else:
            assert (old["hashes"], old["prev"]) == ([], slugs[3])  # one too far: `limit` is counted from the next one
        assert page(rig, limit=1, timestamp="2100-01-01T00:00:00Z")["current"] == slugs[0]

    def test_an_original_tells_its_size_and_later_its_hash(self, rig: Rig, server: Server) -> None:
        alias = uploaded(rig, png(20))
        whole = original(rig, alias)
        name = Hash.of(whole.body, 7)

        head, part = original(rig, alias, "HEAD"), original(rig, alias, Range="bytes=2-5")
        rendering = ask(rig, "GET", f"/image/process.webp?src={alias}&thumbnail=16")

        assert (part.status, part.body) == (206, whole.body[2:6])
        assert part.headers["content-range"] == f"bytes 2-5/{len(whole.body)}"
        assert (server.head(alias).size, server.head(alias).content_type) == (len(whole.body), "image/png")
        assert ask(rig, "HEAD", f"/image/process.webp?src={alias}&thumbnail=17").status == 404
        if rig.version == EARLY:
            assert (head.headers["content-length"], "etag" in head.headers, server.hash_of(alias)) == ("0", False, None)
        else:
            etags = {answer.headers["etag"] for answer in (whole, head, part, rendering)}  # a rendering has the original's
            assert (head.headers["content-length"], etags) == (str(len(whole.body)), {f'"{name.base64}"'})
            assert server.hash_of(alias) == name
        found = server.find_alias(alias)
        assert found is not None
        assert (found.key, found.aliases) == (name.hex, (alias,))

    def test_the_picture_that_stands_for_missing_ones_is_never_the_object(self, rig: Rig, server: Server) -> None:
        stand_in = uploaded(rig, png(21))
        set_so = ask(
            rig,
            "POST",
            "/internal/set_not_found",
            json.dumps({"alias": stand_in}).encode(),
            {"Content-Type": "application/json"},
        )

        missing, head = original(rig, "nobody.png"), original(rig, "nobody.png", "HEAD")

        assert set_so.status == 201
        assert (missing.status, missing.body, head.status) == (404, original(rig, stand_in).body, 404)
        assert server.aliases("nobody.png") == ()
        for ask_for in (lambda: server.fetch("nobody.png", 1 << 20), lambda: server.head("nobody.png")):
            with pytest.raises(Gone):
                ask_for()

    def test_a_lost_file_is_not_gone_and_can_be_purged(self, rig: Rig, server: Server) -> None:
        kept, lost = uploaded(rig, png(22)), uploaded(rig, png(23))
        twin = uploaded(rig, png(23))
        rig.lose(lost)

        got, head = original(rig, lost), original(rig, lost, "HEAD")

        assert (got.status, got.code) == (500, "not-found")
        assert head.status == (200 if rig.version == EARLY else 500)
        assert len(page(rig, limit=9)["hashes"]) == 2  # its blurhash was there
        assert ask(rig, "GET", f"/image/details/original/{lost}").status == 200
        assert sorted(server.aliases(lost)) == sorted([lost, twin])
        for asked in (lambda: server.fetch(lost, 1 << 20), lambda: server.head(twin)):
            with pytest.raises(Lost):
                asked()
        assert sorted(server.purge(twin)) == sorted([lost, twin])
        until(rig, lambda: server.aliases(lost) == ())
        assert original(rig, kept).status == 200

    @pytest.mark.parametrize("places", [[0], [1, 2, 4]])
    def test_what_was_taken_in_before_blurhashes_and_is_lost_fails_every_page_that_shows_it(
        self, rig: Rig, server: Server, places: list[int]
    ) -> None:
        aliases = rig.early([png(30 + number) for number in range(5)])[::-1]
        names = [Hash.of(original(rig, alias).body, 7) for alias in aliases]
        for place in places:
            rig.lose(aliases[place])

        def answers(place: int, limit: int) -> int:
            asked = f"/internal/hashes?limit={limit}&slug={quote(names[place].slug, safe='')}"
            return ask(rig, "GET", asked).status

        early = rig.version == EARLY
        for place in range(5):
            for limit in (1, 2):
                shows = not early and any(place <= lost < place + limit for lost in places)
                assert answers(place, limit) == (500 if shows else 200), (place, limit)
            assert server.peek(names[place].slug) == names[place].slug
        assert server.version == "0.5"
        absent = Hash(names[0].sha256, 7, 7)
        assert server.find_hash(bytes(absent)) is None
        if not early:
            failed = ask(rig, "GET", "/internal/hashes?limit=9")
            assert (failed.status, failed.code) == (500, "decode-image")
            for place in places:
                with pytest.raises(Lost):
                    server.find_hash(bytes(names[place]))
            for place in places:
                assert server.purge(aliases[place]) == (aliases[place],)
                until(rig, lambda place=place: server.aliases(aliases[place]) == ())  # type: ignore[misc]
            until(rig, lambda: ask(rig, "GET", "/internal/hashes?limit=9").status == 200)
        assert len(page(rig, limit=9)["hashes"]) == (5 if early else 5 - len(places))

    def test_what_the_validator_is_sent_is_what_is_stored(self, rig: Rig) -> None:
        rig.judge.got.clear()
        aliases = [uploaded(rig, png(40)), uploaded(rig, still("jpeg", 320, 200, 41, quality=95), "image/jpeg")]
        again = uploaded(rig, png(40))

        got = list(rig.judge.got)

        assert len(got) == 3  # known bytes are asked about again
        stored = [original(rig, alias).body for alias in (*aliases, again)]
        for sent, data, kind in zip(got, stored, ("image/png", "image/jpeg", "image/png"), strict=True):
            body = sent.body
            head = [f"content-type: {kind}"]
            if rig.version.startswith("0.6"):
                form = sent.head[2]
                boundary = form.partition("boundary=")[2]
                head.append(f"content-type: multipart/form-data; boundary={boundary}")
                start, _, body = body.partition(b"\r\n\r\n")
                body, end = body[: -len(boundary) - 8], body[-len(boundary) - 8 :]
                assert end == f"\r\n--{boundary}--\r\n".encode()
                lines = start.decode().split("\r\n")
                assert (lines[0], len(lines)) == (f"--{boundary}", 2)
                assert lines[1].startswith("Content-Disposition: form-data; name*=utf-8''01%2F")
            head += ["accept: */*", f"user-agent: {AGENTS[rig.version]}", f"host: 127.0.0.1:{rig.judge.port}"]
            assert sent.head == ("POST /validate/obvious-dummy HTTP/1.1", *head, "transfer-encoding: chunked")
            assert sha256(body).hexdigest() == sha256(data).hexdigest()

    def test_only_a_success_of_the_validator_lets_an_upload_in(self, rig: Rig) -> None:
        judge, let_in = rig.judge, 0
        for number, status in enumerate((204, 301, 302, 303, 307, 308, 406, 503)):
            judge.got.clear()
            judge.status = status
            judge.location = f"http://127.0.0.1:{judge.port}/elsewhere" if 300 <= status < 400 else ""
            followed = status in (301, 302, 303) and rig.version == EARLY  # as a GET, and what that says is believed

            answer = send(rig, png(100 + number))

            if status == 204 or followed:
                assert answer.status == 201
                let_in += 1
            else:
                assert (answer.status, answer.code) == (400, "failed-external-validation")
            asked = [got.head[0].split()[0] for got in judge.got]
            assert asked == (["POST", "GET"] if followed else ["POST"])
        assert len(page(rig, limit=20)["hashes"]) == let_in

    def test_a_validator_that_goes_by_a_name_is_not_reached_by_later_versions(self, rig: Rig, server: Server) -> None:
        rig.name_the_validator()

        answer = send(rig, png(51))

        if rig.version == EARLY:
            assert (answer.status, len(rig.judge.got)) == (201, 1)
        else:
            assert (answer.status, answer.code, rig.judge.got) == (500, "http-client-error", [])

    def test_a_video_is_written_anew_and_what_came_of_it_stays_the_same(self, rig: Rig) -> None:
        film = movie("mp4", [scene(64, 48, number) for number in range(12)])
        first = uploaded(rig, film, "video/mp4")
        stored = original(rig, first)

        again = send(rig, stored.body, "video/mp4", "again.mp4", "/internal/import")

        assert (stored.headers["content-type"], stored.body == film) == ("video/mp4", False)
        assert again.status == 201
        assert original(rig, "again.mp4").body == stored.body

    def test_an_upload_that_is_cut_off_is_refused_and_leaves_no_row(self, rig: Rig) -> None:
        kept = uploaded(rig, png(60))
        cut = self.cut_off(rig, truncated(png(61), 0.1))

        answer = send(rig, cut)

        assert answer.status in (400, 500)
        assert answer.code == "command-failure"
        assert send(rig, b"").code == "validate-file-empty"
        assert [entry["aliases"] for entry in page(rig, limit=9)["hashes"]] == [[kept]]

    def cut_off(self, rig: Rig, data: bytes) -> bytes:
        """Bytes that no tool takes; the fake, which has none, is told so."""
        return data

    def test_an_upgrade_in_place_keeps_names_hashes_and_bytes(self, rig: Rig, server: Server) -> None:
        pictures = [png(70 + number) for number in range(3)]
        aliases = rig.early(pictures)

        listed = page(rig, limit=9)["hashes"]

        assert [entry["aliases"] for entry in listed] == [[alias] for alias in aliases[::-1]]
        for alias, entry in zip(aliases[::-1], listed, strict=True):
            assert entry["hex"] == Hash.of(original(rig, alias).body, 7).hex
            assert ("blurhash" in entry["details"]) is (rig.version != EARLY)
