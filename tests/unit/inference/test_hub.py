"""Fetching from a hub on its bad days: a real server on this machine that breaks off, lies and changes its mind."""

import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from tests.support.disks import largest_file, small_disk
from tests.support.hub_server import REPOSITORY, REVISION, HubServer, Mood, at_once, hub_server

from fediwarden.errors import CannotWrite, Exit, Misconfigured, Refused, Unreached
from fediwarden.inference.hub import Fetched, Hub, HubFile

FILE = "data.safetensors"
DATA = random.Random(7).randbytes(3_000_000)
DIGEST = sha256(DATA).hexdigest()


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server({FILE: DATA}) as running:
        yield running


@pytest.fixture
def part(tmp_path: Path) -> Path:
    (tmp_path / "models" / ".pulling-x").mkdir(parents=True)
    return tmp_path / "models" / ".pulling-x" / f"{FILE}.part"


def hub_of(server: HubServer, waited: list[float] | None = None) -> Hub:
    return Hub(server.address, timeout=5, sleep=at_once if waited is None else waited.append)


def wanted(**known: object) -> HubFile:
    return HubFile(REPOSITORY, REVISION, FILE, **known)  # type: ignore[arg-type]


def test_a_file_arrives_whole_with_the_hash_that_the_hub_names(server: HubServer, part: Path) -> None:
    told: list[tuple[int, int]] = []

    got = hub_of(server).fetch(wanted(), part, lambda done, total: told.append((done, total)))

    assert got == Fetched(DIGEST, len(DATA), promised=True)
    assert part.read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_revision_is_asked_of_the_hub(server: HubServer) -> None:
    assert hub_of(server).revision(REPOSITORY) == REVISION


def test_a_transfer_that_breaks_off_goes_on_from_there(server: HubServer, part: Path) -> None:
    server.moods[FILE].break_after = [1_000_000, 500_000]

    hub_of(server).fetch(wanted(), part)

    assert part.read_bytes() == DATA
    assert server.ranges(FILE) == ["", "bytes=1000000-", "bytes=1500000-"]


def test_another_run_goes_on_from_what_an_earlier_one_left(server: HubServer, part: Path) -> None:
    server.moods[FILE].break_after = [1_200_000, 0, 0, 0, 0]
    with pytest.raises(Unreached):
        hub_of(server).fetch(wanted(), part)
    server.asked.clear()
    server.moods[FILE].break_after = []

    hub_of(server).fetch(wanted(), part)

    assert part.read_bytes() == DATA
    assert server.ranges(FILE) == ["bytes=1200000-"]


def test_a_whole_file_that_was_not_yet_put_in_place_is_not_fetched_again(server: HubServer, part: Path) -> None:
    hub_of(server).fetch(wanted(), part)
    server.moods[FILE].break_after = [0]

    assert hub_of(server).fetch(wanted(), part).sha256 == DIGEST


def test_a_server_that_ignores_ranges_is_read_from_the_beginning(server: HubServer, part: Path) -> None:
    server.moods[FILE] = Mood(break_after=[1_000_000], ranges=False)

    hub_of(server).fetch(wanted(), part)

    assert part.read_bytes() == DATA


def test_an_entity_tag_that_changed_between_two_tries_starts_over(server: HubServer, part: Path) -> None:
    server.moods[FILE] = Mood(break_after=[1_000_000], etags=['"one"', '"two"'])

    hub_of(server).fetch(wanted(), part)

    assert part.read_bytes() == DATA
    assert server.ranges(FILE) == ["", "bytes=1000000-"]  # and the answer to the second was the whole


def test_another_piece_than_the_one_asked_for_is_never_glued_on(server: HubServer, part: Path) -> None:
    server.moods[FILE] = Mood(break_after=[1_000_000], wrong_range=True)

    hub_of(server).fetch(wanted(), part)

    assert part.read_bytes() == DATA
    assert server.ranges(FILE) == ["", "bytes=1000000-", ""]


def test_without_a_tag_or_a_hash_nothing_can_be_gone_on_from(server: HubServer, part: Path) -> None:
    server.moods[FILE] = Mood(break_after=[1_000_000], linked="", etags=['W/"weak"'])

    got = hub_of(server).fetch(wanted(), part)

    assert not got.promised
    assert server.ranges(FILE) == ["", ""]


def test_what_another_revision_left_is_not_gone_on_from(server: HubServer, part: Path) -> None:
    server.moods[FILE].break_after = [1_200_000, 0, 0, 0, 0]
    with pytest.raises(Unreached):
        hub_of(server).fetch(wanted(), part)
    server.asked.clear()
    server.moods[FILE].break_after = []
    server.revision = "f" * 40

    hub_of(server).fetch(HubFile(REPOSITORY, server.revision, FILE), part)

    assert server.ranges(FILE) == [""]


def test_a_damaged_beginning_is_found_out_and_everything_fetched_again(server: HubServer, part: Path) -> None:
    server.moods[FILE].break_after = [1_200_000, 0, 0, 0, 0]
    with pytest.raises(Unreached):
        hub_of(server).fetch(wanted(), part)
    with part.open("r+b") as out:
        out.write(b"\0" * 4096)  # a block that a power cut never let reach the disk
    server.moods[FILE].break_after = []

    got = hub_of(server).fetch(wanted(), part)

    assert (got.sha256, part.read_bytes()) == (DIGEST, DATA)


def test_other_bytes_than_the_hub_names_are_thrown_away(server: HubServer, part: Path) -> None:
    server.moods[FILE].linked = "0" * 64

    with pytest.raises(Misconfigured, match="not what the hub names"):
        hub_of(server).fetch(wanted(), part)
    assert list(part.parent.iterdir()) == []


def test_other_bytes_than_the_pinned_ones_are_thrown_away_before_they_are_fetched(server: HubServer, part: Path) -> None:
    with pytest.raises(Misconfigured, match="pinned"):
        hub_of(server).fetch(wanted(sha256="0" * 64), part)
    assert list(part.parent.iterdir()) == []


def test_other_bytes_than_the_pinned_ones_are_found_out_where_the_hub_names_nothing(server: HubServer, part: Path) -> None:
    server.moods[FILE].linked = ""

    with pytest.raises(Misconfigured, match="pinned"):
        hub_of(server).fetch(wanted(sha256="0" * 64), part)
    assert list(part.parent.iterdir()) == []


@pytest.mark.parametrize("mood", [Mood(linked_size=5), Mood(linked_size=10**12)])
def test_two_accounts_of_one_length_are_refused(server: HubServer, part: Path, mood: Mood) -> None:
    server.moods[FILE] = mood

    with pytest.raises(Misconfigured, match="by one account"):
        hub_of(server).fetch(wanted(), part)
    assert list(part.parent.iterdir()) == []


def test_a_length_that_promises_more_than_comes_ends_in_one_line(server: HubServer, part: Path) -> None:
    server.moods[FILE] = Mood(linked="", length=len(DATA) + 1000, break_after=[len(DATA)])

    with pytest.raises(Misconfigured, match="3,001,000 bytes long by one account and 3,000,000 by another"):
        hub_of(server).fetch(wanted(), part)
    assert list(part.parent.iterdir()) == []


def test_a_file_without_a_length_arrives_all_the_same(server: HubServer, part: Path) -> None:
    server.moods[FILE] = Mood(chunked=True, linked="")

    assert hub_of(server).fetch(wanted(), part) == Fetched(DIGEST, len(DATA), promised=False)


def test_a_server_that_sends_without_end_is_not_read_without_end(server: HubServer, part: Path) -> None:
    server.moods[FILE] = Mood(chunked=True, linked="")

    with pytest.raises(Misconfigured, match="more than its 1,000,000 bytes"):
        hub_of(server).fetch(wanted(most=1_000_000), part)
    assert list(part.parent.iterdir()) == []


def test_a_file_that_is_too_long_by_its_own_word_is_not_fetched(server: HubServer, part: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot have more"):
        hub_of(server).fetch(wanted(most=1_000_000), part)
    assert not part.exists()


def test_a_busy_hub_is_waited_for_as_long_as_it_asks(server: HubServer, part: Path) -> None:
    server.moods[FILE].statuses = [(429, {"Retry-After": "7"}), (503, {}), (500, {})]
    waited: list[float] = []

    hub_of(server, waited).fetch(wanted(), part)

    assert part.read_bytes() == DATA
    assert waited[0] == 7
    assert len(waited) == 3


def test_a_hub_that_asks_to_wait_for_an_hour_is_not_waited_for(server: HubServer, part: Path) -> None:
    server.moods[FILE].statuses = [(429, {"Retry-After": "3600"})]

    with pytest.raises(Unreached, match="asks to wait 3600 s"):
        hub_of(server).fetch(wanted(), part)


def test_a_hub_that_stays_away_is_given_up_with_the_way_out(server: HubServer, part: Path) -> None:
    server.moods[FILE].statuses = [(503, {})] * 50
    waited: list[float] = []

    with pytest.raises(Unreached, match="answers 503") as caught:
        hub_of(server, waited).fetch(wanted(), part)
    assert "models import" in caught.value.hint
    assert len(waited) < 10
    assert caught.value.exit == Exit.UNREACHED


def test_a_line_that_breaks_every_so_often_gets_there_in_the_end(server: HubServer, part: Path) -> None:
    server.moods[FILE].break_after = [1 << 20, 100, 1 << 20, 100, 100, 100]
    waited: list[float] = []

    hub_of(server, waited).fetch(wanted(), part)

    assert part.read_bytes() == DATA
    assert max(waited) <= 30


@pytest.mark.parametrize(
    ("status", "kind"), [(404, Misconfigured), (401, Refused), (403, Refused), (410, Refused), (418, Refused)]
)
def test_a_no_is_not_asked_again(server: HubServer, part: Path, status: int, kind: type[Exception]) -> None:
    server.moods[FILE].statuses = [(status, {})]

    with pytest.raises(kind):
        hub_of(server).fetch(wanted(), part)
    assert len(server.ranges(FILE)) == 1


def test_a_repository_that_is_not_there_is_a_matter_of_configuration(server: HubServer) -> None:
    with pytest.raises(Misconfigured, match="nobody/nothing"):
        hub_of(server).revision("nobody/nothing")


@pytest.mark.parametrize(
    "place", ["http://example.org/x", "ftp://example.org/x", "file:///etc/passwd", "http://[bad", "https://"]
)
def test_a_redirect_leads_to_https_only(server: HubServer, part: Path, place: str) -> None:
    server.moods[FILE].redirect = place

    with pytest.raises((Refused, Unreached)):
        hub_of(server).fetch(wanted(), part)
    assert not part.exists()


def test_redirects_in_circles_end(server: HubServer, part: Path) -> None:
    server.moods[FILE].redirect = f"/{REPOSITORY}/resolve/{REVISION}/{FILE}"

    with pytest.raises(Refused, match="circles"):
        hub_of(server).fetch(wanted(), part)


def test_a_hub_elsewhere_cannot_send_on_to_this_machine() -> None:
    hub = Hub("https://hub.example.org")

    with pytest.raises(Refused, match="not HTTPS"):
        hub._onward("https://hub.example.org/x", "http://127.0.0.1:1/private")


@pytest.mark.parametrize("address", ["http://hub.example.org", "hub.example.org", "ftp://127.0.0.1", "", "http://10.0.0.1"])
def test_a_hub_without_https_is_refused(address: str) -> None:
    with pytest.raises(Misconfigured, match=r"models\.hub"):
        Hub(address).revision(REPOSITORY)


def test_a_page_that_is_no_hub_is_told_from_one(server: HubServer) -> None:
    server.revision = "<html>"

    with pytest.raises(Refused, match="no revision"):
        hub_of(server).revision(REPOSITORY)


def test_bytes_that_came_packed_are_refused(server: HubServer, part: Path) -> None:
    server.moods[FILE].packed = True

    with pytest.raises(Refused, match="packed"):
        hub_of(server).fetch(wanted(), part)


def test_nobody_there_is_said_in_one_line() -> None:
    with pytest.raises(Unreached, match="cannot be reached") as caught:
        Hub("http://127.0.0.1:9", sleep=at_once).revision(REPOSITORY)
    assert "\n" not in str(caught.value)
    assert "models.proxy" in caught.value.hint


def test_the_password_of_a_mirror_is_in_no_line() -> None:
    hub = Hub("http://somebody:secret@127.0.0.1:9", sleep=at_once)

    with pytest.raises(Unreached) as told:
        hub.revision(REPOSITORY)
    assert "127.0.0.1:9" in str(told.value)
    assert "secret" not in f"{told.value} {told.value.hint} {hub.host} {hub.place}"
    with pytest.raises(Misconfigured) as told_of_http:
        Hub("http://somebody:secret@hub.example.org").revision(REPOSITORY)
    assert "secret" not in str(told_of_http.value)


def test_a_proxy_that_cannot_be_used_is_said_by_its_setting() -> None:
    with pytest.raises(Misconfigured, match="proxy"):
        Hub("https://hub.example.org", proxy="gopher://x").revision(REPOSITORY)


def test_everything_goes_through_the_proxy(server: HubServer) -> None:
    """The server on this machine stands in for the proxy: what it is asked names the hub."""
    hub = Hub("http://localhost:9", proxy=server.address, sleep=at_once)

    with pytest.raises(Misconfigured):
        hub.revision(REPOSITORY)
    assert server.asked[0][0] == f"http://localhost:9/api/models/{REPOSITORY}/revision/main"


def test_a_write_that_fails_keeps_what_came_so_far(server: HubServer, part: Path) -> None:
    with largest_file(1 << 20), pytest.raises(CannotWrite, match="models cannot be written"):
        hub_of(server).fetch(wanted(), part)

    hub_of(server).fetch(wanted(), part)
    assert part.read_bytes() == DATA
    assert server.ranges(FILE)[1] != ""


def test_a_disk_without_room_is_said_before_anything_is_fetched(server: HubServer, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as mounted:
        if not mounted:
            pytest.skip("this user may not mount")
        (tmp_path / "disk" / ".pulling-x").mkdir()
        part = tmp_path / "disk" / ".pulling-x" / "x.part"

        with pytest.raises(CannotWrite, match="MB free"):
            hub_of(server).fetch(wanted(), part)
        assert not part.exists()


def test_a_hub_that_falls_silent_is_not_waited_for_without_end(server: HubServer, part: Path) -> None:
    server.moods[FILE].slow = 2

    with pytest.raises(Unreached, match=r"gave no answer for 0\.3 s; 0\.\d MB are kept"):
        Hub(server.address, timeout=0.3, sleep=at_once).fetch(wanted(), part)
