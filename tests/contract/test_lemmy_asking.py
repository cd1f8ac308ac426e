"""A trace by an administrator's token, of both Lemmys: what it finds, on which roads, and how exactly it says what it did not ask."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest
from tests.support.fake_lemmy import (
    ADMIN,
    ADMIN_JWT,
    ALIAS,
    ALICE,
    BOB,
    OTHER,
    PICS,
    PREVIEW,
    SECOND,
    FakeLemmy,
    running_lemmy,
)

from fediwarden.errors import Unreached
from fediwarden.platforms.lemmy import http_tracer as asking_module
from fediwarden.platforms.lemmy.api import PATIENCE, Api, Token
from fediwarden.platforms.lemmy.http_tracer import AT_ITS_ORIGIN, NOT_TO_THE_END, Asking
from fediwarden.platforms.lemmy.model import Trace, UseKind

ORIGIN = "https://img.example/x y.png?a=1&b=2"


@dataclass
class Time:
    """Seconds that pass when somebody waits, and at no other time."""

    now: float = 0.0
    waits: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture(params=["0.19", "1.0"])
def lemmy(request: pytest.FixtureRequest) -> Iterator[FakeLemmy]:
    """Each version in turn; its one uploader is alice."""
    with running_lemmy(request.param) as server:
        yield server


@pytest.fixture
def time(lemmy: FakeLemmy) -> Time:
    """The server's, and ours."""
    lemmy.clock = Time()
    return lemmy.clock


def traced(lemmy: FakeLemmy, *aliases: str, urls: tuple[str, ...] = ()) -> Trace:
    """One trace by the administrator's token."""
    with closing(Asking(Api(lemmy.url, Token(ADMIN_JWT), 5, wait=lambda _: None))) as asking:
        return asking.trace(aliases, urls, private_messages=True)


def shown(trace: Trace) -> set[tuple[str, int, str]]:
    """What shows it, and where."""
    return {(use.kind.value, use.id, use.field) for use in trace.uses}


# -- what is found --------------------------------------------------------------------------------------------------------


def test_posts_of_others_whose_address_is_the_picture_are_found_and_so_are_their_authors(lemmy: FakeLemmy) -> None:
    lemmy.add_post(410, SECOND, url=lemmy.address(ALIAS))
    lemmy.add_post(411, BOB, url=lemmy.address(OTHER))

    trace = traced(lemmy, ALIAS)

    assert {("post", 401, "url"), ("post", 410, "url")} <= shown(trace)
    assert ("post", 411, "url") not in shown(trace)
    assert {person.name for person in trace.owners} == {"alice", "bob", "erin"}
    assert trace.complete is False


def test_what_0_19_wrote_is_found_after_an_upgrade_to_1_0() -> None:
    with running_lemmy("1.0") as lemmy:
        lemmy.add_post(410, SECOND, url=f"{lemmy.base}/pictrs/image/{ALIAS}")

        assert ("post", 410, "url") in shown(traced(lemmy, ALIAS))


def test_removed_posts_of_the_uploader_are_found_and_said_to_be_removed(lemmy: FakeLemmy) -> None:
    lemmy.add_post(410, ALICE, url=lemmy.address(ALIAS), removed=True)
    lemmy.add_post(411, ALICE, body=f"![]({lemmy.address(ALIAS)})", removed=True)

    found = {use.id: use.removed for use in traced(lemmy, ALIAS).uses if use.kind is UseKind.POST}

    assert found == {401: False, 403: False, 410: True, 411: True}


def test_a_post_that_has_only_the_preview_is_found_among_what_its_uploader_wrote(lemmy: FakeLemmy) -> None:
    lemmy.add_post(410, ALICE, url="https://news.example/a", thumbnail_url=lemmy.address(ALIAS))
    lemmy.add_post(411, BOB, url="https://news.example/b", thumbnail_url=lemmy.address(ALIAS))

    trace = traced(lemmy, ALIAS)

    assert ("post", 410, "thumbnail_url") in shown(trace)
    assert ("post", 411, "thumbnail_url") not in shown(trace)
    assert any("searches previews" in limit for limit in trace.limits)


def test_a_picture_leads_to_the_preview_that_lemmy_made_of_it(lemmy: FakeLemmy) -> None:
    lemmy.previews = True
    mine = lemmy.upload(b"", "image/png", ALICE)
    number = lemmy.publish(ALICE, url=lemmy.address(mine), community_id=PICS)
    preview = str(lemmy.posts[number]["thumbnail_url"])

    (copy,) = traced(lemmy, mine).copies

    assert (copy.address, copy.alias, copy.post) == (preview, preview.rpartition("/")[2], number)
    assert (copy.preview, copy.by_lemmy) == (True, True)


def test_a_preview_that_somebody_uploaded_is_told_apart(lemmy: FakeLemmy) -> None:
    lemmy.add_post(410, ALICE, url=lemmy.address(ALIAS), thumbnail_url=lemmy.address(OTHER))

    (copy,) = traced(lemmy, ALIAS).copies

    assert (copy.alias, copy.preview, copy.by_lemmy) == (OTHER, True, False)


def test_a_preview_leads_to_the_picture_that_it_shows_in_1_0_and_0_19_says_that_it_cannot(lemmy: FakeLemmy) -> None:
    lemmy.posts[404] |= {"url": lemmy.address(OTHER), "thumbnail_url": lemmy.address(PREVIEW), "url_content_type": "image/png"}

    trace = traced(lemmy, PREVIEW)

    told = [(copy.alias, copy.post, copy.preview) for copy in trace.copies]
    assert told == ([(OTHER, 404, False)] if lemmy.new else [])
    assert ({("post", 404, "thumbnail_url")} if lemmy.new else set()) == shown(trace)
    assert any("searches previews" in limit for limit in trace.limits)


def test_the_preview_of_an_article_leads_to_no_picture(lemmy: FakeLemmy) -> None:
    lemmy.add_post(410, ALICE, url="https://news.example/a", thumbnail_url=lemmy.address(ALIAS))

    assert traced(lemmy, ALIAS).copies == ()


def test_the_site_its_administrators_and_in_1_0_biographies_and_sidebars_are_looked_through() -> None:
    with running_lemmy("1.0") as lemmy:
        lemmy.persons[SECOND]["avatar"] = lemmy.address(ALIAS)

        assert ("profile", SECOND, "avatar") in shown(traced(lemmy, ALIAS))


def test_every_text_that_lemmy_tells_of_itself_is_read(lemmy: FakeLemmy) -> None:
    here = f"see ![]({lemmy.address(ALIAS)})"
    lemmy.site_texts = {
        "site": {"sidebar": here, "content_warning": here, "summary" if lemmy.new else "description": here},
        "local_site": {"legal_information": here, "application_question": here, "default_theme": "browser"},
    }

    trace = traced(lemmy, ALIAS)

    told = {use.field for use in trace.uses if use.kind is UseKind.SITE}
    assert told == {*lemmy.site_texts["site"], "legal_information", "application_question"}


def test_the_mod_log_and_what_else_the_api_does_not_search_is_named(lemmy: FakeLemmy) -> None:
    limits = " ".join(traced(lemmy, ALIAS).limits)

    for what in ("reasons in the mod log", "copies and reasons of reports", "applications", "private messages", "sessions"):
        assert what in limits


def test_an_alias_that_is_spelled_otherwise_is_found_in_texts_and_everywhere_in_what_its_uploader_wrote(lemmy: FakeLemmy) -> None:
    mine = lemmy.upload(b"", "image/png", ALICE)
    base, (name, _, extension) = lemmy.address(mine).removesuffix(mine), mine.partition(".")
    lemmy.add_post(410, BOB, body=f"![]({base}{name.upper().replace('-', '')}.{extension})")
    lemmy.add_post(411, ALICE, url=f"{base}%{ord(mine[0]):02x}{mine[1:]}", thumbnail_url=lemmy.address(OTHER))

    trace = traced(lemmy, mine)

    assert {("post", 410, "body"), ("post", 411, "url")} <= shown(trace)
    assert [(copy.alias, copy.post) for copy in trace.copies] == [(OTHER, 411)]
    assert any("addresses written in unusual ways" in limit for limit in trace.limits)


def test_a_remote_picture_is_found_by_its_address_and_by_its_proxied_one(lemmy: FakeLemmy) -> None:
    proxy = f"{lemmy.base}/api/{'v4/image/proxy' if lemmy.new else 'v3/image_proxy'}?url={quote(ORIGIN, safe='')}"
    lemmy.add_post(410, BOB, url=proxy)
    lemmy.add_post(411, BOB, url=ORIGIN)
    lemmy.add_comment(502, SECOND, f"![]({ORIGIN})")
    lemmy.add_comment(503, SECOND, f"![]({proxy})")

    trace = traced(lemmy, urls=(ORIGIN,))

    assert shown(trace) >= {("post", 410, "url"), ("comment", 502, "content"), ("comment", 503, "content")}
    assert (("post", 411, "url") in shown(trace)) is not lemmy.new
    assert (AT_ITS_ORIGIN in trace.limits) is lemmy.new


def test_1_0_is_given_no_address_that_it_would_fetch_from_elsewhere() -> None:
    with running_lemmy("1.0") as lemmy:
        traced(lemmy, ALIAS, urls=(ORIGIN, "https://far.example/@them/a.png"))

        terms = [query["search_term"] for path, query in lemmy.asked if path.endswith("/search")]
        assert len(terms) >= 6
        assert [term for term in terms if "@" in term or ("://" in term and not term.startswith(lemmy.base))] == []


def test_1_0_is_asked_for_nsfw_posts_whatever_the_account_sees_and_0_19_has_no_way_to_ask(lemmy: FakeLemmy) -> None:
    lemmy.add_post(410, BOB, url=lemmy.address(ALIAS), nsfw=True)

    trace = traced(lemmy, ALIAS)

    assert (("post", 410, "url") in shown(trace)) is lemmy.new


# -- what is not, and how it is said --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"show_nsfw": True}, []),
        ({}, ["NSFW posts (show_nsfw)"]),
        ({"show_nsfw": True, "show_bot_accounts": False}, ["what bots post (show_bot_accounts)"]),
        ({"show_nsfw": True, "show_read_posts": False}, ["posts that it has read (show_read_posts)"]),
    ],
)
def test_exactly_the_filters_of_the_account_that_are_on_are_named(
    lemmy: FakeLemmy, settings: dict[str, bool], said: list[str]
) -> None:
    lemmy.settings[ADMIN] = settings

    limits = [limit for limit in traced(lemmy, ALIAS).limits if limit.startswith("not shown to dave")]

    if lemmy.new:  # whose search of posts can be told to show them
        said = [what.replace("NSFW posts", "comments under NSFW posts") for what in said]
    assert [limit.partition("settings: ")[2] for limit in limits] == said


def test_blocked_persons_and_languages_that_are_not_read_are_named(lemmy: FakeLemmy) -> None:
    lemmy.settings[ADMIN] = {"show_nsfw": True}
    lemmy.blocks[ADMIN] = {BOB}
    lemmy.languages[ADMIN] = [37]

    limits = [limit for limit in traced(lemmy, ALIAS).limits if limit.startswith("not shown to dave")]

    assert [limit.partition("settings: ")[2] for limit in limits] == ["blocked persons", "languages that it does not read"]


def test_where_lemmy_1_0_breaks_off_its_list_of_pictures_the_trace_says_so_and_finds_the_posts_all_the_same() -> None:
    with running_lemmy("1.0") as lemmy:
        lemmy.images += [(f"AAA-{number:03}.png", ALICE, None) for number in range(60)]

        trace = traced(lemmy, ALIAS)

        assert trace.uploaders == ()
        assert ("post", 401, "url") in shown(trace)
        assert any("told 50 of its pictures" in limit for limit in trace.limits)


def test_a_road_that_fails_is_named_and_what_the_others_find_stands(lemmy: FakeLemmy) -> None:
    lemmy.fails = {"/search"}

    trace = traced(lemmy, ALIAS)

    assert {("post", 401, "url"), ("post", 403, "body")} <= shown(trace)  # by what alice wrote
    assert [limit for limit in trace.limits if NOT_TO_THE_END in limit]
    assert not any("list of uploads: " in limit for limit in trace.limits)


def test_where_no_road_answers_there_is_no_trace(lemmy: FakeLemmy) -> None:
    lemmy.fails = {"/search", "/image/list", "/admin/list_all_media"}

    with pytest.raises(Unreached):
        traced(lemmy, ALIAS)


def test_what_somebody_wrote_and_what_was_uploaded_is_gone_through_as_far_as_it_says(
    lemmy: FakeLemmy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking_module, "MOST_WRITTEN", 70)
    monkeypatch.setattr(asking_module, "MOST_IMAGES", 20)
    for number in range(1000, 1100):
        lemmy.add_post(number, ALICE, name=f"post {number}")
    lemmy.images = [*((f"d-{number:02}.png", ALICE, None) for number in range(30)), *lemmy.images]

    limits = traced(lemmy, ALIAS).limits

    assert any("newest 70 posts and comments of alice" in limit for limit in limits)
    assert any("newest 20 uploads" in limit for limit in limits)


def test_a_long_list_of_uploads_is_gone_through_once_and_then_only_as_far_as_it_is_new() -> None:
    with running_lemmy("0.19") as lemmy, closing(Asking(Api(lemmy.url, Token(ADMIN_JWT), 5))) as asking:
        lemmy.images += [(f"d-{number:03}.png", BOB, None) for number in range(300)]
        first = asking.trace([ALIAS], [], private_messages=False)
        pages = lemmy.calls.count("GET /api/v3/admin/list_all_media")
        lemmy.images.append(("new.png", SECOND, None))
        again = asking.trace([ALIAS], [], private_messages=False)
        newest = asking.trace(["new.png"], [], private_messages=False)

    assert pages == 7
    assert lemmy.calls.count("GET /api/v3/admin/list_all_media") == pages + 2
    assert first.uploads == again.uploads
    assert [person.name for person in newest.uploaders] == ["erin"]


# -- how often Lemmy may be asked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("says_retry_after", [True, False])
def test_thirty_pictures_are_traced_to_the_end_within_the_limits_that_lemmy_has_from_the_start(
    lemmy: FakeLemmy, time: Time, says_retry_after: bool
) -> None:
    lemmy.limits = {"search": (60, 600.0), "message": (180, 60.0)}
    lemmy.says_retry_after = says_retry_after
    told: list[float] = []
    api = Api(lemmy.url, Token(ADMIN_JWT), 5, wait=time.wait, clock=time, tell=told.append)
    with closing(Asking(api)) as asking:
        traces = [asking.trace([ALIAS], [], private_messages=False) for _ in range(30)]

    assert [limit for trace in traces for limit in trace.limits if NOT_TO_THE_END in limit] == []
    assert all(shown(trace) == shown(traces[0]) for trace in traces)
    assert told == time.waits
    assert 240 <= sum(time.waits) <= 660  # ninety searches, sixty of which may be made at once
    assert max(time.waits) <= 601


@pytest.mark.parametrize("says_retry_after", [True, False])
def test_others_at_the_same_address_may_have_used_up_the_limit(lemmy: FakeLemmy, time: Time, says_retry_after: bool) -> None:
    lemmy.limits["search"] = (60, 600.0)
    lemmy.says_retry_after = says_retry_after
    while lemmy.over("search") is None:
        pass  # somebody else searches
    api = Api(lemmy.url, Token(ADMIN_JWT), 5, wait=time.wait, clock=time, jitter=lambda: 0.5)

    with closing(Asking(api)) as asking:
        trace = asking.trace([ALIAS], [], private_messages=False)

    assert [limit for limit in trace.limits if NOT_TO_THE_END in limit] == []
    assert 0 < sum(time.waits) <= PATIENCE


def test_what_takes_longer_than_a_question_waits_is_left_out_by_name(lemmy: FakeLemmy, time: Time) -> None:
    lemmy.limits["search"] = (1, 3600.0)
    api = Api(lemmy.url, Token(ADMIN_JWT), 5, wait=time.wait, clock=time)

    with closing(Asking(api)) as asking:
        trace = asking.trace([ALIAS], [], private_messages=False)

    automatic = [limit for limit in trace.limits if NOT_TO_THE_END in limit]
    assert any(limit.startswith(f"texts with {ALIAS}") and "rate limit" in limit for limit in automatic)
    assert [person.name for person in trace.uploaders] == ["alice"]
    assert sum(time.waits) <= PATIENCE


def test_nothing_is_waited_for_once_the_program_is_asked_to_stop(lemmy: FakeLemmy, time: Time) -> None:
    from threading import Event

    stop = Event()
    stop.set()
    lemmy.limited = 5
    with closing(Api(lemmy.url, Token(ADMIN_JWT), 5, stop=stop, wait=time.wait, clock=time)) as api, pytest.raises(Unreached):
        api.need_admin()

    assert time.waits == []
