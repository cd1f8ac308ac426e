"""The fake pict-rs against the recordings of the real ones, call by call, and against what pict-rs promises by version."""

import base64
import json
import random
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.fake_pictrs import KEY, RECORDED, FakePictrs, as_kept, running_pictrs
from tests.support.pictrs_suite import EARLY, Answer, Judge, PictrsPromises, Rig, ask, judging, original, page, send

RECORDINGS = Path(__file__).parents[1] / "recordings"
UPLOADS = (  # what was uploaded, in its order: the tool that did not take it, if any did not
    *[""] * 9,
    "magick",
    "exiftool",
    "ffprobe",
    "blurhash",  # JPEG XL, which 0.5.16 takes
)
SHAPES = (
    ("time", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"),
    ("date", r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"),
    ("token", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    ("key", r"([0-9a-f]{2}/){10}[0-9a-f]{12}\.[a-z0-9]+"),
)


@dataclass
class FakeRig:
    """The fake as the suite sees it."""

    fake: FakePictrs
    judge: Judge

    @property
    def url(self) -> str:
        return self.fake.url

    @property
    def key(self) -> str:
        return KEY

    @property
    def version(self) -> str:
        return self.fake.version

    @property
    def repository(self) -> str:
        return self.fake.repo

    def settle(self) -> None:
        self.fake.tick()

    def lose(self, alias: str) -> None:
        self.fake.lose(alias)

    def early(self, pictures: Sequence[bytes]) -> list[str]:
        now = self.fake.version
        self.fake.upgrade(EARLY)
        aliases = [self.fake.put(data, "image/png") for data in pictures]
        self.fake.upgrade(now)
        return aliases

    def name_the_validator(self) -> None:
        self.fake.validator = self.judge.url.replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def judge() -> Generator[Judge]:
    with judging() as started:
        yield started


def fresh(judge: Judge, version: str, repo: str) -> FakePictrs:
    judge.status, judge.location = 200, ""
    judge.got.clear()
    return FakePictrs(version=version, repo=repo, validator=judge.url, job_delay=None)


class TestPromises(PictrsPromises):
    """The fake of every version that was recorded."""

    @pytest.fixture(params=RECORDED)
    def rig(self, request: pytest.FixtureRequest, judge: Judge) -> Generator[FakeRig]:
        repo = "fjall" if request.param.startswith("0.6") else "sled"
        with running_pictrs(fresh(judge, request.param, repo)) as fake:
            yield FakeRig(fake, judge)

    def cut_off(self, rig: Rig, data: bytes) -> bytes:
        assert isinstance(rig, FakeRig)
        return rig.fake.breaks(data, "magick")


# -- the recordings -------------------------------------------------------------------------------------------------------


@dataclass
class Replay:
    """One recording against one fake. What was named by chance is paired with what the fake names so, one to one."""

    recorded: dict[str, Any]
    fake: FakePictrs
    rig: FakeRig
    ours: dict[str, str] = field(default_factory=dict)  # of each recorded name: the fake's
    sizes: dict[str, tuple[int, str]] = field(default_factory=dict)  # of each recorded alias: stored bytes, and type

    def __post_init__(self) -> None:
        for entry in self.recorded["calls"][-1]["answer"]["page"]["hashes"]:
            for alias in entry["aliases"]:
                self.sizes[alias] = (int(entry["hex"][64:76], 16), entry["details"]["content_type"])

    def pair(self, recorded: str, ours: str, where: str) -> None:
        assert self.ours.setdefault(recorded, ours) == ours, f"{where}: {recorded}"

    def path(self, call: dict[str, Any]) -> str:
        """The call's own path and query with the fake's names in them."""
        path = "/".join(self.ours.get(part, part) for part in call["path"].split("/"))
        query = {name: self.ours.get(str(value), str(value)) for name, value in (call["query"] or {}).items()}
        return path + ("?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items()) if query else "")

    def compare(self, recorded: object, ours: object, where: str) -> None:
        """The same keys and the same words; numbers and names that chance made are of the same kind."""
        if isinstance(recorded, dict):
            assert isinstance(ours, dict), where
            assert set(ours) == set(recorded), where
            for name, value in recorded.items():
                if name in ("width", "height", "frames"):  # of pictures that the fake does not open
                    continue
                self.compare(value, ours[name], f"{where}.{name}")
        elif isinstance(recorded, list) and where.endswith("aliases"):
            assert isinstance(ours, list), where
            in_order = sorted(ours, key=as_kept), sorted(recorded, key=as_kept)
            assert (ours, recorded) == in_order, where  # and names are made by chance
            known = [self.ours[name] for name in recorded if name in self.ours]
            new = [name for name in recorded if name not in self.ours]
            assert (len(ours), set(known) - set(ours)) == (len(recorded), set()), where
            for name, other in zip(new, sorted(set(ours) - set(known)), strict=True):
                self.pair(name, other, where)
        elif isinstance(recorded, list):
            assert isinstance(ours, list), where
            assert len(ours) == len(recorded), where
            for number, value in enumerate(recorded):
                self.compare(value, ours[number], f"{where}[{number}]")
        elif isinstance(recorded, str) and isinstance(ours, str):
            self.compare_text(recorded, ours, where)
        else:
            assert ours == recorded, where

    def compare_text(self, recorded: str, ours: str, where: str) -> None:
        name = where.rpartition(".")[2].partition("[")[0]
        shape = next((kind for kind, pattern in SHAPES if re.fullmatch(pattern, recorded)), "")
        if name in ("hex", "aliases", "file", "alias"):
            self.pair(recorded, ours, where)
            if name == "hex":
                assert ours[64:] == recorded[64:], where  # size and format
                self.pair(slug(recorded), slug(ours), where)
                self.pair(etag(recorded), etag(ours), where)
        elif name in ("current", "next", "prev", "etag"):
            self.pair(recorded, ours, where)
        elif name == "blurhash":
            assert ours, where
        elif shape:
            assert re.fullmatch(dict(SHAPES)[shape], ours), where
        else:
            assert ours == recorded, where


def slug(name: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(name)).decode()


def etag(name: str) -> str:
    return f'"{base64.b64encode(bytes.fromhex(name)).decode()}"'


def headers_that_matter(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in ("date", "server", "connection")}


@pytest.mark.parametrize("version", RECORDED)
def test_every_recorded_call_is_answered_as_it_was(version: str, judge: Judge) -> None:
    recorded = json.loads((RECORDINGS / f"pictrs-{version}.json").read_text())
    fake = fresh(judge, version, recorded["repository"])
    fake.validator = ""
    fake.render = lambda data, variant: bytes(3850 if variant.startswith("thumbnail/96") else 5512)
    with running_pictrs(fake) as running:
        replay = Replay(recorded, running, FakeRig(running, judge))
        compared = [replayed(replay, number, call) for number, call in enumerate(recorded["calls"])]

    assert sum(compared) == 56
    assert len(recorded["calls"]) == 57  # one is a note about three hashes


def replayed(replay: Replay, number: int, call: dict[str, Any]) -> bool:
    """Ask the fake what was asked, and hold its answer to the one on record. False for what is no call."""
    fake, note = replay.fake, call["note"]
    if "method" not in call:
        stored, imported = call["stored"], call["imported"]
        assert (stored == imported, call["sent"] == stored) == (True, False)
        return False
    where = f"call {number} ({note})"
    if note.startswith("lost file") and fake.row(named := replay.ours[lost_of(replay)]) in fake.rows.values():
        fake.objects.pop(fake.row(named).identifier, None)  # type: ignore[union-attr]
    answer = sent(replay, number, call)
    fake.tick()
    assert answer.status == call["status"], where
    ours = headers_that_matter(answer)
    assert set(ours) == set(call["headers"]), where
    for name, value in call["headers"].items():
        if name == "content-length" and "json" in ours.get("content-type", "") and answer.status < 400:
            continue  # as long as the names in it
        replay.compare(value, ours[name], f"{where}.{name}")
    if isinstance(call["answer"], str):
        match = re.match(r"<(\d+) bytes, sha256 ([0-9a-f]+)>", call["answer"])
        assert match is not None
        assert len(answer.body) == int(match[1]), where
    else:
        replay.compare(call["answer"], answer.told, f"{where}.answer")
    return True


def lost_of(replay: Replay) -> str:
    path = next(call["path"] for call in replay.recorded["calls"] if call["note"] == "lost file: original")
    return str(path.rpartition("/")[2])


def sent(replay: Replay, number: int, call: dict[str, Any]) -> Answer:
    """The call, with bytes of the recorded sizes for bodies that were not recorded."""
    fake, rig, note = replay.fake, replay.rig, call["note"]
    judge = rig.judge
    fake.remote.clear()
    fake.validator = ""
    if note in ("proxied", "proxied by name", "download"):
        url = next(iter(call["query"].values()))
        fake.remote[url] = bytes_of(replay, "webp" if url.endswith("webp") else "exif")
        fake.moving.add(bytes_of(replay, "webp")[0])
    if note == "limits":
        fake.validator, fake.validator_timeout = "http://127.0.0.1:8971/validate/SECRET", 15
    if call["body"] != "(form)":
        headers = {"Range": "bytes=0-9"} if call["note"].endswith("range") else {}
        return ask(rig, call["method"], replay.path(call), headers=headers, key=KEY if call["key"] else "wrong")
    if note.startswith(("the validator", "an upload that the validator")):
        judge.status = 302 if "redirects" in note else 503 if "503" in note else 406
        judge.location = f"http://127.0.0.1:{judge.port}/elsewhere" if "redirects" in note else ""
        fake.validator = judge.url
    data, kind = body_of(replay, number, call)
    name = {"import": "chosen-name.png", "import of a video": "my-video.mp4"}.get(note, "any")
    if note == "import under a name that is taken":
        name = "chosen-name.png"
    return send(rig, data, kind, name, call["path"])


def body_of(replay: Replay, number: int, call: dict[str, Any]) -> tuple[bytes, str]:
    """What was uploaded: bytes that the fake makes as many of as pict-rs stored."""
    note = call["note"]
    if note == "the same bytes again":
        return bytes_of(replay, "1")
    if note == "import":
        return bytes_of(replay, "2")
    if note == "import of a video":
        return bytes_of(replay, "7")
    if "redirects" in note or note == "the validator answers 503":
        return bytes_of(replay, "exif")
    if note != "an upload":
        return bytes_of(replay, note)
    data, kind = bytes_of(replay, str(number))
    if UPLOADS[number - 1]:
        replay.fake.breaks(data, UPLOADS[number - 1])
    return data, kind


def bytes_of(replay: Replay, what: str) -> tuple[bytes, str]:
    """The same for the same words, in the size that was stored under the alias which this upload was given."""
    calls = replay.recorded["calls"]
    size, kind = 1000, "image/jpeg"
    if what == "1":
        size = 189737  # purged before the last listing
    elif what == "exif":
        size = 180959
    elif what == "webp":
        size, kind = 126756, "image/webp"
    elif what.isdecimal() and "files" in calls[int(what)]["answer"]:
        size, kind = replay.sizes[calls[int(what)]["answer"]["files"][0]["file"]]
    elif what == "13":
        size, kind = 130064, "image/jxl"
    mark = 8 + len("Lavf7.1") if kind.startswith("video/") else 0
    return random.Random(what).randbytes(size - mark), kind


@pytest.mark.parametrize("version", RECORDED)
def test_every_recorded_validation_is_sent_as_it_was(version: str, judge: Judge) -> None:
    recorded = json.loads((RECORDINGS / f"pictrs-{version}.json").read_text())["validation"]
    fake = fresh(judge, version, "sled")

    once = {told["head"][1]: told for told in recorded}  # of each type
    for number, told in enumerate(once.values()):
        kinds = [line.partition(": ")[2] for line in told["head"] if line.startswith("content-type: ")]
        size = size_of(told["body_bytes"], kinds)
        mark = 8 + len("Lavf7.1") if kinds[0].startswith("video/") else 0
        assert fake.upload(random.Random(number).randbytes(size - mark), kinds[0]).status == 201
        got = judge.got[-1]

        assert [masked(line) for line in got.head] == [masked(line) for line in told["head"]]
        assert len(got.wire) == told["body_bytes"]
        begins = told["body_begins"].encode()
        assert masked(got.wire[: len(begins)].decode()) == masked(told["body_begins"])
        assert masked(got.wire[-len(told["body_ends"]) :].decode() if told["body_ends"] else "") == masked(told["body_ends"])


def size_of(wire: int, kinds: list[str]) -> int:
    """How many bytes a picture has that takes so many on the wire: in chunks of 8 KiB, and in a form where there is a second type."""

    def chunk(size: int) -> int:
        return len(f"{size:x}") + size + 4

    form = 0
    if len(kinds) == 2:
        boundary = 2 + 67 + 2
        name = len("Content-Disposition: form-data; name*=utf-8''") + 10 * 5 + 12 + 1 + len(kinds[0].partition("/")[2]) + 4
        form = chunk(boundary) + chunk(name) + chunk(2) + chunk(boundary + 2)
    whole = wire - form - len("0\r\n\r\n")
    full, rest = divmod(whole, chunk(8192))
    left = next((size for size in range(rest) if chunk(size) == rest), 0)
    return full * 8192 + left


def masked(text: str) -> str:
    """Without what chance made of it, and without the place of the validator."""
    text = re.sub(r"(%2F[0-9a-f]{2}){9}%2F[0-9a-f]{12}", "%2F...", re.sub(r"name\*=utf-8''[0-9a-f]{2}", "name*=...", text))
    text = re.sub(r"(?:[0-9a-f]{0,16}-){1,3}[0-9a-f]{16}", "(boundary)", text)
    return re.sub(r"^(POST|host:) .*", r"\1", text)


def test_0_5_19_and_later_know_that_nothing_is_there_and_say_so() -> None:
    """Seen of 0.5.19, of which there is no recording."""
    with running_pictrs(FakePictrs(version="0.5.19")) as fake:
        rig = FakeRig(fake, Judge())

        answer = ask(rig, "GET", "/internal/aliases?alias=nobody.png")

        assert (answer.status, answer.code) == (404, "alias-not-found")


@pytest.mark.parametrize("version", ["0.5.25", "0.6.0-rc.6"])
def test_an_upgrade_that_opens_a_new_repository_shows_nothing_and_the_old_one_can_be_named(version: str, judge: Judge) -> None:
    with running_pictrs(fresh(judge, EARLY, "sled")) as fake:
        alias = fake.put(b"kept")
        fake.upgrade(version, empty=True)
        rig = FakeRig(fake, judge)

        assert page(rig, limit=9)["hashes"] == []
        assert original(rig, alias).status == 404
        assert list(fake.objects.values()) == [b"kept"]  # the store is the old one
        fake.found_again()
        assert original(rig, alias).body == b"kept"


def test_an_alias_without_a_delete_token_outlives_its_purge(judge: Judge) -> None:
    with running_pictrs(fresh(judge, "0.5.25", "postgres")) as fake:
        rig, one, two = FakeRig(fake, judge), fake.put(b"same"), fake.put(b"same")
        fake.lose_token(two)

        purged = ask(rig, "POST", f"/internal/purge?alias={one}")
        fake.tick()

        assert purged.told["aliases"] == [one, two]
        assert ask(rig, "GET", f"/internal/aliases?alias={two}").told["aliases"] == [two]
        assert original(rig, two).body == b"same"
        refused = ask(rig, "POST", f"/internal/delete?alias={two}")
        assert (refused.status, refused.code) == (404, "alias-not-found")  # and it is there


@pytest.mark.parametrize("job", ["hash", "alias", "identifier"])
def test_a_purge_whose_job_fails_said_ok_all_the_same(job: str, judge: Judge) -> None:
    with running_pictrs(fresh(judge, "0.5.25", "sled")) as fake:
        rig, alias = FakeRig(fake, judge), fake.put(b"kept")
        fake.job_fails = job.__eq__

        purged = ask(rig, "POST", f"/internal/purge?alias={alias}")
        fake.tick()

        assert purged.status == 200
        assert original(rig, alias).status == (404 if job == "identifier" else 200)
        assert len(fake.objects) == 1


def test_a_proxied_picture_has_no_blurhash_before_a_listing_shows_it_and_none_can_be_made_of_a_lost_one(judge: Judge) -> None:
    with running_pictrs(fresh(judge, "0.6.0-rc.6", "fjall")) as fake:
        rig = FakeRig(fake, judge)
        url = "https://pictures.example/a.png"
        fake.remote[url] = (b"far", "image/png")
        address = "/image/original?proxy=" + quote(url, safe="")

        assert ask(rig, "HEAD", address).status == 404  # which fetches nothing
        assert ask(rig, "GET", address).body == b"far"
        fake.lose(fake.proxies[url])

        failed = ask(rig, "GET", "/internal/hashes?limit=1")
        assert (failed.status, failed.code) == (500, "decode-image")


def test_a_heic_picture_is_stored_as_a_video_and_what_a_tool_does_not_take_leaves_an_empty_file(judge: Judge) -> None:
    with running_pictrs(fresh(judge, EARLY, "sled")) as fake:
        rig = FakeRig(fake, judge)
        taken = send(rig, b"one frame", "image/heic")
        failed = send(rig, fake.breaks(b"cut", "exiftool"))
        fake.tick()

        assert taken.told["files"][0]["details"]["format"] == "Video"
        assert taken.told["files"][0]["file"].endswith(".mp4")
        assert (failed.status, failed.code) == (500, "command-failure")
        assert sorted(len(data) for data in fake.objects.values())[0] == 0
        assert len(page(rig, limit=9)["hashes"]) == 1
