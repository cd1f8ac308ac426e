"""Lemmy's API of both versions: what we ask of it and do with it. tests/contract/test_lemmy_versions.py holds the fake ones."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import httpx2
import pytest
from tests.support.fake_lemmy import (
    ADMIN,
    ADMIN_JWT,
    ALIAS,
    ALICE,
    ALICE_JWT,
    BOB,
    OTHER,
    PREVIEW,
    SECOND,
    FakeLemmy,
    running_lemmy,
)

from fediwarden.errors import Misconfigured, Refused, Unreached
from fediwarden.ledger import Ledger
from fediwarden.model import DeedState, Sha256
from fediwarden.platforms.lemmy.acting import ModerationChoice, ModerationPlan, Moderator, plan, sent_before
from fediwarden.platforms.lemmy.api import Api, NotThere, Token, UserReport
from fediwarden.platforms.lemmy.http_tracer import Asking

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
BAD = Sha256("b" * 64)


@pytest.fixture(params=["0.19", "1.0"])
def lemmy(request: pytest.FixtureRequest) -> Iterator[FakeLemmy]:
    """Each version in turn."""
    with running_lemmy(request.param) as server:
        yield server


@pytest.fixture
def api(lemmy: FakeLemmy) -> Iterator[Api]:
    """With an administrator's token."""
    made = an_api(lemmy)
    yield made
    made.close()


def an_api(lemmy: FakeLemmy, token: str = ADMIN_JWT) -> Api:
    """A client that waits next to nothing."""
    return Api(lemmy.url, Token(token), 5, pause=0.001, wait=lambda _: None)


# -- the fake one -----------------------------------------------------------------------------------------------------


def ask(lemmy: FakeLemmy, method: str, path: str, token: str = "", **body: object) -> httpx2.Response:
    """One request past the client."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    version = "v4" if lemmy.new else "v3"
    return httpx2.request(method, f"{lemmy.url}/api/{version}{path}", headers=headers, json=body or None)


def test_fake_a_wrong_token_is_nobody_and_no_error(lemmy: FakeLemmy) -> None:
    assert ask(lemmy, "GET", "/site", "wrong").status_code == 200
    assert ask(lemmy, "POST", "/post/remove", "wrong", post_id=401, removed=True, reason="x").status_code == 401


def test_fake_versions_are_told_apart_by_their_paths(lemmy: FakeLemmy) -> None:
    four = httpx2.get(f"{lemmy.url}/api/v4/site").status_code
    three = httpx2.post(
        f"{lemmy.url}/api/v3/admin/purge/post", headers={"Authorization": f"Bearer {ADMIN_JWT}"}, json={"post_id": 1}
    )

    assert four == (200 if lemmy.new else 404)
    assert three.status_code == (404 if lemmy.new else 400)  # gone in 1.0; no such post in 0.19
    assert three.content == (b"" if lemmy.new else b'{"error": "couldnt_find_post"}')


def test_fake_pages_hold_fifty_at_most_and_previews_are_left_out_by_0_19(lemmy: FakeLemmy) -> None:
    path = "/image/list" if lemmy.new else "/admin/list_all_media"
    listed = ask(lemmy, "GET", f"{path}?limit=50", ADMIN_JWT).json()

    aliases = [each["local_image"]["pictrs_alias"] for each in listed["items" if lemmy.new else "images"]]
    assert aliases == ([ALIAS, PREVIEW, OTHER] if lemmy.new else [OTHER, ALIAS])  # in no order, and newest first
    assert ask(lemmy, "GET", f"{path}?limit=51", ADMIN_JWT).status_code == 400


def test_fake_a_ban_ends_the_sessions_in_0_19_only(lemmy: FakeLemmy) -> None:
    path, keep = ("/admin/ban", "remove_or_restore_data") if lemmy.new else ("/user/ban", "remove_data")

    assert ask(lemmy, "POST", path, ADMIN_JWT, person_id=ALICE, ban=True, reason="x", **{keep: False}).status_code == 200

    assert (ALICE_JWT in lemmy.tokens) is lemmy.new


def test_fake_1_0_wants_a_reason(lemmy: FakeLemmy) -> None:
    assert ask(lemmy, "POST", "/admin/purge/post", ADMIN_JWT, post_id=401).status_code == (400 if lemmy.new else 200)


# -- asking -----------------------------------------------------------------------------------------------------------


def test_the_version_and_the_account_are_asked_once(lemmy: FakeLemmy, api: Api) -> None:
    assert (api.version, api.version) == (lemmy.short, lemmy.short)
    assert (api.need_admin().person, api.account.name) == (ADMIN, "dave")
    assert len(lemmy.calls) == 2


def test_a_token_that_lemmy_does_not_know_is_refused_and_so_is_one_of_no_administrator(lemmy: FakeLemmy) -> None:
    for token, words in (("wrong", "does not know"), (ALICE_JWT, "no administrator")):
        with closing(an_api(lemmy, token)) as api, pytest.raises(Refused, match=words):
            api.need_admin()


def test_no_token_is_in_a_message_or_a_repr(lemmy: FakeLemmy, api: Api) -> None:
    lemmy.down = True
    with pytest.raises(Unreached) as error:
        api.need_admin()

    assert "SECRET" not in f"{error.value} {error.value.hint} {api!r} {Token(ADMIN_JWT)!r}"


def test_a_reached_rate_limit_is_waited_for_and_not_for_ever(lemmy: FakeLemmy, api: Api) -> None:
    lemmy.limited = 3
    assert api.version == lemmy.short

    lemmy.limited = 1000
    before = len(lemmy.calls)
    with pytest.raises(Unreached, match="rate limit"):
        api.remove("post", 401, "x")
    assert len(lemmy.calls) - before <= 6


def test_the_api_traces_what_it_can_and_says_what_it_cannot(lemmy: FakeLemmy, api: Api) -> None:
    trace = Asking(api).trace([ALIAS], [], private_messages=True)

    assert (trace.version, trace.source) == (lemmy.short, "API")
    assert [person.name for person in trace.uploaders] == ["alice"]
    assert {(use.kind.value, use.id, use.field) for use in trace.uses} == {
        ("post", 401, "url"),
        ("post", 403, "body"),
        ("comment", 501, "content"),
        ("profile", ALICE, "avatar"),
    }
    assert {person.name for person in trace.owners} == {"alice", "bob"}
    assert [upload.alias for upload in trace.other_uploads] == [OTHER]
    assert any("sessions" in limit for limit in trace.limits)
    assert "SECRET" not in str(trace.as_json())


def test_every_page_is_asked_for_and_a_list_that_ends_too_early_is_no_whole_one(lemmy: FakeLemmy, api: Api) -> None:
    lemmy.images = [(f"{number:03}.png", ALICE, None) for number in range(120)]

    if lemmy.new:
        with pytest.raises(Unreached, match="told 50 of its pictures"):
            list(Asking(api).aliases())
    else:
        assert len(set(Asking(api).aliases())) == 120


# -- acting -----------------------------------------------------------------------------------------------------------


def planned(api: Api, choice: ModerationChoice, *, sent: list[str] | None = None) -> ModerationPlan:
    """A plan about the alias."""
    admins = {ADMIN: "https://lemmy.example/u/dave", SECOND: "https://lemmy.example/u/erin"}
    trace = Asking(api).trace([ALIAS], [], private_messages=False)
    return plan(trace, choice, reports=list(api.reports()), admins=admins, me=ADMIN, sent=sent or [])


@pytest.fixture
def acting(api: Api, tmp_path: Path) -> Iterator[Moderator]:
    """With a ledger of its own."""
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        yield Moderator(api, ledger, ledger.begin("test", {}, NOW), lambda: NOW, "eve", wait=lambda _: None)


ALL = ModerationChoice("purge", "remove", ban=True, persons=("alice",), resolve_reports=True, message="look at the queue")


def test_a_plan_changes_nothing_and_names_what_is_left(lemmy: FakeLemmy, api: Api) -> None:
    made = planned(api, ALL)

    assert [(step.act, step.number) for step in made.steps] == [
        ("resolve report", 902 if lemmy.new else 901),
        ("resolve report", 901 if lemmy.new else 902),
        ("purge post", 401),
        ("purge post", 403),
        ("remove comment", 501),
        ("ban person", ALICE),
        ("message", SECOND),
    ]
    assert made.forgets
    assert any("avatar" in line for line in made.left)
    assert all(call.startswith("GET ") for call in lemmy.calls)


def test_what_is_planned_is_done_and_nothing_else(lemmy: FakeLemmy, api: Api, acting: Moderator) -> None:
    done = list(acting.apply(planned(api, ALL), BAD))

    assert [each.problem for each in done] == [""] * 7
    assert set(lemmy.posts) == {404}
    assert lemmy.comments[501]["removed"] is True
    assert lemmy.persons[ALICE]["banned"] is True
    assert {number for number, row in lemmy.reports.items() if not row["resolved"]} == {903}
    assert lemmy.messages == [(SECOND, "look at the queue")]
    assert not any("/report" in call and call.startswith("POST") for call in lemmy.calls)  # a report of 0.19 would travel
    deeds = acting._ledger.platforms.deeds(BAD)
    assert [deed.state for deed in deeds] == [DeedState.BEGUN, DeedState.DONE] * 7
    assert {deed.actor for deed in deeds} == {"eve"}


def test_a_second_time_is_as_once(lemmy: FakeLemmy, api: Api, acting: Moderator) -> None:
    first = planned(api, ALL)
    list(acting.apply(first, BAD))
    again = list(acting.apply(first, BAD))  # from before: what is purged is not there any more, and that is no failure

    assert [each.problem for each in again] == [""] * 7
    sent = sent_before(acting._ledger.platforms.deeds(BAD))
    anew = planned(api, ModerationChoice("purge", "remove", message="look at the queue"), sent=sent)
    assert anew.steps == ()
    assert len(anew.already) == (2 if lemmy.new else 1)  # what was removed is in no search of 0.19


def test_where_several_are_behind_it_nobody_is_banned_unnamed(lemmy: FakeLemmy, api: Api) -> None:
    lemmy.images = [image for image in lemmy.images if image[0] != ALIAS]  # the uploader is not known

    with pytest.raises(Misconfigured, match="2 persons"):
        planned(api, ModerationChoice(ban=True))
    with pytest.raises(Misconfigured, match="names no"):
        planned(api, ModerationChoice(ban=True, persons=("stranger",)))
    assert [step.number for step in planned(api, ModerationChoice(ban=True, persons=("bob",))).steps] == [BOB]


def test_a_name_that_two_servers_have_bans_neither_by_accident(lemmy: FakeLemmy, api: Api) -> None:
    lemmy.add_person(BOB, "alice", domain="remote.example")

    with pytest.raises(Misconfigured, match="'alice' is the name of 2") as refused:
        planned(api, ModerationChoice(ban=True, persons=("alice",)))
    assert "https://remote.example/u/alice" in str(refused.value)
    chosen = planned(api, ModerationChoice(ban=True, persons=("https://remote.example/u/alice",)))
    assert [step.number for step in chosen.steps] == [BOB]


def test_an_administrator_is_not_banned_from_here(lemmy: FakeLemmy, api: Api) -> None:
    lemmy.images.append((ALIAS, SECOND, None))
    lemmy.images.remove((ALIAS, ALICE, None))

    with pytest.raises(Misconfigured, match="administrator"):
        planned(api, ModerationChoice(ban=True))


def test_a_refused_step_is_told_and_the_next_goes_on(lemmy: FakeLemmy, api: Api, acting: Moderator) -> None:
    made = planned(api, ModerationChoice("remove", "remove"))
    del lemmy.posts[401]  # somebody else purged it meanwhile
    lemmy.admins.discard(ADMIN)

    done = list(acting.apply(made, BAD))

    assert ["not there any more" in each.note for each in done] == [True, False, False]
    assert ["not_a_mod_or_admin" in each.problem for each in done] == [False, True, True]
    states = [DeedState.BEGUN, DeedState.DONE, DeedState.BEGUN, DeedState.FAILED, DeedState.BEGUN, DeedState.FAILED]
    assert [deed.state for deed in acting._ledger.platforms.deeds(BAD)] == states


def test_no_answer_stops_and_what_was_done_is_on_record(lemmy: FakeLemmy, api: Api, acting: Moderator) -> None:
    going = acting.apply(planned(api, ModerationChoice("remove", "remove")), BAD)
    next(going)
    lemmy.down = True

    with pytest.raises(Unreached):
        next(going)

    states = [deed.state for deed in acting._ledger.platforms.deeds(BAD)]
    assert states == [DeedState.BEGUN, DeedState.DONE, DeedState.BEGUN, DeedState.FAILED]


def test_what_is_not_there_is_told_apart_from_a_refusal(api: Api) -> None:
    with pytest.raises(NotThere):
        api.purge("post", 999, "x")


def test_no_error_of_lemmy_about_a_thing_is_laid_to_the_token(lemmy: FakeLemmy, api: Api) -> None:
    lemmy.comments[501]["deleted"] = True
    kinds: list[Refused] = []
    calls: list[Callable[[], None]] = [
        lambda: api.remove("post", 999, "x"),
        lambda: api.purge("comment", 999, "x"),
        lambda: api.resolve(UserReport(999, "post", 1)),
        lambda: api.ban(999, "x"),
        lambda: api.remove("comment", 501, "x"),
    ]
    for call in calls:
        with pytest.raises(Refused) as refused:
            call()
        kinds.append(refused.value)

    assert [isinstance(kind, NotThere) for kind in kinds] == [True, True, True, True, False]
    assert "cannot be changed any more" in str(kinds[4])
    assert not any("token" in f"{kind} {kind.hint}" for kind in kinds)


def test_a_call_that_this_version_does_not_have_is_no_missing_thing(lemmy: FakeLemmy, api: Api) -> None:
    with pytest.raises(Refused, match="has no POST") as refused:
        api._post("/admin/purge/nothing", {"reason": "x"})

    assert not isinstance(refused.value, NotThere)


@pytest.mark.parametrize(
    ("middle", "ends"),
    [
        ("eyJleHAiOjE3OTAwMDAwMDB9", "2026-09-21"),  # {"exp":1790000000}
        ("eyJleHAiOjgyMTAyNjY4NzY3OTl9", None),  # the end of all calendars: stay_logged_in
        ("eyJpYXQiOjE3OTAwMDAwMDB9", None),  # 0.19 names no end
        ("eyJleHAiOiJ4In0", None),
        ("W10", None),
        ("\xff", None),
    ],
)
def test_when_a_token_ends_is_read_from_it_and_nothing_else_is_believed(middle: str, ends: str | None) -> None:
    read = Token(f"head.{middle}.foot").ends

    assert (read and f"{read:%Y-%m-%d}") == ends
    assert Token("no token at all").ends is None


def test_a_second_factor_and_a_stay_are_asked_for_at_login_as_the_page_says(lemmy: FakeLemmy) -> None:
    lemmy.passwords["dave"], lemmy.second_factors["dave"] = "long words", "123456"
    path = "/account/auth/login" if lemmy.new else "/user/login"
    given = {"username_or_email": "dave", "password": "long words"}

    assert ask(lemmy, "POST", path, **given).json()["error"] == "missing_totp_token"
    jwt = ask(lemmy, "POST", path, **given, totp_2fa_token="123456", stay_logged_in=True).json()["jwt"]
    with closing(an_api(lemmy, jwt)) as api:
        assert api.need_admin().name == "dave"
        assert api.token_ends is None


# -- answers that no Lemmy gives ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("walk", ["images", "search", "reports"])
def test_the_same_page_again_and_again_ends_the_walk_as_unfinished(
    lemmy: FakeLemmy, api: Api, monkeypatch: pytest.MonkeyPatch, walk: str
) -> None:
    row = {"local_image": {"pictrs_alias": "a"}, "type_": "post", "post": {"id": 1}, "post_report": {"id": 1}}
    names = ("images", "posts", "comments", "items", "post_reports", "persons", "communities")
    answer: dict[str, object] = {name: [row] * 50 for name in names}
    answer |= {"next_page": "the same"}
    assert api.version
    monkeypatch.setattr(api, "_call", lambda *_, **__: answer)

    walks: dict[str, Callable[[], Iterator[object]]] = {
        "images": api.images,
        "search": lambda: api.search("a"),
        "reports": api.reports,
    }
    with pytest.raises(Unreached, match="again"):
        list(islice(walks[walk](), 900))


@pytest.mark.parametrize("answer", [{}, {"images": None, "items": 5, "posts": "x", "post_reports": {}}])
def test_an_answer_without_what_was_asked_for_is_no_answer(
    lemmy: FakeLemmy, api: Api, monkeypatch: pytest.MonkeyPatch, answer: dict[str, object]
) -> None:
    assert api.version
    monkeypatch.setattr(api, "_call", lambda *_, **__: answer)

    for walk in (api.images(), api.reports()):
        with pytest.raises(Unreached, match="without"):
            list(walk)
