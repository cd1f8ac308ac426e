"""What each answer of pict-rs is taken for: absent, lost, refused, unreached; as the versions that people run give it."""

import base64
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from tests.support.fake_pictrs import KEY, FakePictrs, Refusal, Seen, running_pictrs

from fediwarden.errors import Gone, Lost, Refused, Unreached
from fediwarden.platforms.pictrs.server import Server

NOISE = bytes(range(256)) * 40
ABSENT = [(404, "alias-not-found"), (404, "not-found")]  # 0.5.19 and 0.5.25; 0.6


@dataclass
class Told:
    """Answers that the fake gives instead of its own: to `path`, by method."""

    answers: dict[tuple[str, str], Refusal] = field(default_factory=dict)

    def __call__(self, seen: Seen) -> None:
        for (method, path), refusal in self.answers.items():
            if seen.method in method.split() and seen.path.startswith(path):
                raise refusal


@pytest.fixture
def fake() -> Generator[FakePictrs]:
    with running_pictrs(FakePictrs(job_delay=None)) as running:
        running.before = Told()
        yield running


@pytest.fixture
def server(fake: FakePictrs) -> Generator[Server]:
    with closing(Server(fake.url, key=KEY, seconds=5)) as opened:
        yield opened


def answering(fake: FakePictrs, method: str, path: str, status: int, code: str = "", message: str = "no") -> None:
    assert isinstance(fake.before, Told)
    fake.before.answers[method, path] = Refusal(status, message, code)


@pytest.mark.parametrize(("status", "code"), ABSENT)
def test_an_alias_that_pictrs_does_not_know_has_no_aliases_and_no_file(
    fake: FakePictrs, server: Server, status: int, code: str
) -> None:
    answering(fake, "GET", "/internal/aliases", status, code)
    answering(fake, "GET", "/internal/identifier", status, code)

    assert server.aliases("nobody.png") == ()
    assert server.identifier("nobody.png") is None
    assert server.find_alias("nobody.png") is None


def test_a_404_that_is_not_pictrs_own_says_nothing_about_an_alias(fake: FakePictrs, server: Server) -> None:
    answering(fake, "GET", "/internal/aliases", 404, "no-route")

    with pytest.raises(Refused, match="aliases"):
        server.aliases("any.png")


@pytest.mark.parametrize("status", [400, 500])
def test_a_name_that_is_taken_is_told_by_its_code_whatever_the_status(fake: FakePictrs, server: Server, status: int) -> None:
    answering(fake, "POST", "/internal/import", status, "duplicate-alias")

    assert server.import_("taken.png", NOISE, "image/png") is False


def test_an_import_that_fails_otherwise_is_not_taken_for_a_taken_name(fake: FakePictrs, server: Server) -> None:
    answering(fake, "POST", "/internal/import", 500, "http-client-error", "error sending request")

    with pytest.raises(Unreached, match="external validation") as error:
        server.import_("free.png", NOISE, "image/png")

    assert "only an IP address" in error.value.hint


@pytest.mark.parametrize("head", [200, 500])
def test_a_file_that_is_lost_is_neither_gone_nor_tried_again(fake: FakePictrs, server: Server, head: int) -> None:
    alias = fake.put(NOISE)
    row = fake.row(alias)
    assert row is not None
    del fake.objects[row.identifier]
    if head == 500:
        answering(fake, "HEAD", "/image/original", 500, "not-found")

    for ask in (lambda: server.fetch(alias, 1 << 20), lambda: server.head(alias), lambda: server.find_alias(alias)):
        with pytest.raises(Lost, match="file is not there") as lost:
            ask()
        assert lost.value.retry is False


def test_a_server_that_is_broken_is_tried_again(fake: FakePictrs, server: Server) -> None:
    alias = fake.put(NOISE)
    answering(fake, "GET HEAD", "/image/original", 500, "io-error")

    for ask in (lambda: server.fetch(alias, 1 << 20), lambda: server.head(alias)):
        with pytest.raises(Unreached) as error:
            ask()
        assert (error.value.retry, isinstance(error.value, Lost)) == (True, False)


@pytest.mark.parametrize(("status", "code"), ABSENT)
def test_a_404_to_a_deletion_is_no_proof_that_nothing_is_there(fake: FakePictrs, server: Server, status: int, code: str) -> None:
    alias = fake.put(NOISE)
    answering(fake, "POST", "/internal/purge", status, code)

    with pytest.raises(Unreached, match="did not purge"):
        server.purge(alias)
    with pytest.raises(Gone):
        server.purge("nobody.png")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_picture_that_stands_for_missing_ones_is_not_the_object_behind_a_public_endpoint(version: str) -> None:
    with running_pictrs(FakePictrs(version=version)) as fake, closing(Server(fake.url, key=KEY, seconds=5)) as server:
        fake.not_found = fake.put(b"not found", "image/png")
        kept = fake.put(NOISE)
        fake.public = True

        assert server.fetch(kept, 1 << 20)[0] == NOISE
        with pytest.raises(Gone):
            server.fetch("purged.png", 1 << 20)


def test_a_file_that_is_missing_at_the_public_endpoint_is_lost_and_not_gone(fake: FakePictrs, server: Server) -> None:
    alias = fake.put(NOISE)
    row = fake.row(alias)
    assert row is not None
    fake.public = True
    del fake.objects[row.identifier]

    with pytest.raises(Lost):
        server.fetch(alias, 1 << 20)


def test_one_lost_file_hides_neither_the_version_nor_that_another_content_is_not_there(fake: FakePictrs, server: Server) -> None:
    alias = fake.put(NOISE)
    row = fake.row(alias)
    assert row is not None

    def poisoned(seen: Seen) -> None:
        if seen.path == "/internal/hashes" and seen.query.get("limit") != "0":
            raise Refusal(500, "No such file or directory (os error 2)", "not-found")

    fake.before = poisoned

    assert server.version == "0.5"
    assert server.peek() == base64.urlsafe_b64encode(row.hash).decode()
    assert server.find_hash(bytes(38) + b"\5") is None
    with pytest.raises(Lost):
        server.find_hash(row.hash)


@pytest.mark.parametrize(
    ("status", "code", "message", "generation"),
    [
        (0, "", "", "0.5 up to 0.5.16"),
        (404, "alias-not-found", "no", "0.5.17 or newer"),
        (404, "not-found", "no", "0.6"),
        (401, "invalid-api-token", "Invalid API Key", "0.5"),
        (401, "invalid-api-token", "Invalid API Token", "0.6"),
    ],
)
def test_the_version_is_told_by_what_pictrs_can_do(
    fake: FakePictrs, server: Server, status: int, code: str, message: str, generation: str
) -> None:
    if status:
        answering(fake, "GET", "/internal/", status, code, message)

    assert server.generation == generation


@pytest.mark.parametrize("key", [KEY, "wrong"])
def test_0_4_is_told_by_what_it_cannot_do(key: str) -> None:
    with running_pictrs(FakePictrs(version="0.4")) as fake, closing(Server(fake.url, key=key, seconds=5)) as server:
        assert server.generation == "0.4"
