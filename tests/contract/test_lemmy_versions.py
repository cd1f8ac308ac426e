"""The fake Lemmys against the recordings, call by call, and both again with other pictures, orders and deletions than those.

The second half speaks HTTP only. Against a real server of one's own, which it fills with posts: FEDIWARDEN_REAL_LEMMY names a JSON
file with "url", its public "base" and the tokens "admin", "alice", "bobby" and "carol" of four accounts without a rate limit in their
way. All of them have to be fresh for each run: what they posted before would be met again, and 0.19 ends the session of carol, whom
one test bans and no other needs, since they come in any order.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import numpy as np
import pytest
from PIL import Image
from tests.support.fake_lemmy import NEW, OLD, FakeLemmy, serving

Json = dict[str, Any]

RECORDINGS = Path(__file__).parents[1] / "recordings"
REAL = os.environ.get("FEDIWARDEN_REAL_LEMMY", "")
PERSONS = {OLD: {"ADMIN-JWT": 2, "ALICE-JWT": 3, "BOBBY-JWT": 4}, NEW: {"ADMIN-JWT": 2, "ALICE-JWT": 4, "BOBBY-JWT": 5}}

# what a fake need not know: times, counts, and whole parts that nobody here reads
UNREAD = {"site", "local_site", "local_site_rate_limit", "instance", "counts", "local_user_vote_display_mode", "all_languages"}
UNREAD |= {"discussion_languages", "follows", "moderates", "details"}
OPTIONAL = {
    "post_actions",
    "community_actions",
    "comment_actions",
    "my_vote",
    "newest_comment_time_at",
    "updated",
    "updated_at",
    "recipient_ids",
}
VALUES = {
    "id",
    "name",
    "url",
    "thumbnail_url",
    "body",
    "content",
    "alt_text",
    "url_content_type",
    "post_id",
    "community_id",
    "comment_id",
}
VALUES |= {
    "creator_id",
    "removed",
    "deleted",
    "nsfw",
    "resolved",
    "banned",
    "read",
    "hidden",
    "reason",
    "error",
    "cause",
    "message",
}
VALUES |= {
    "success",
    "version",
    "ap_id",
    "actor_id",
    "link",
    "type_",
    "is_admin",
    "pictrs_alias",
    "person_id",
    "msg",
    "kind",
    "admin",
}
VALUES |= {"resolver_id", "original_post_name", "original_post_url", "original_comment_text", "show_nsfw", "show_bot_accounts"}
VALUES |= {
    "show_read_posts",
    "creator_is_admin",
    "creator_banned",
    "filename",
    "image_url",
    "local",
    "file",
}
VALUES |= {"bot_account", "recipient_id", "prev_page", "next_page", "is_revert", "mod_person_id"}
HEADERS = ("content-type", "x-ratelimit-limit", "cache-control")
ALIAS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?=\.)")


def picture(suffix: str, seed: int) -> bytes:
    """Noise, as a file of this kind."""
    noise = np.random.default_rng(seed).integers(0, 255, (16, 20, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise).save(file, {"jpg": "jpeg"}.get(suffix, suffix))
    return file.getvalue()


@dataclass
class Names:
    """One side's aliases, in the order in which they were met."""

    known: dict[str, str] = field(default_factory=dict)

    def plain(self, value: object, key: str = "") -> object:
        """A value of an answer without what is different each time."""
        if isinstance(value, str):
            if key.endswith("_page"):
                return ",".join("none" if part == "none" else "cursor" for part in value.split(","))
            return ALIAS.sub(lambda found: self.known.setdefault(found[0], f"alias {len(self.known)}"), value)
        return value

    def shape(self, answer: object, key: str = "") -> object:
        """An answer, with the values that are compared and the keys of all the rest."""
        if key in UNREAD:
            return "unread"
        if isinstance(answer, dict):
            return {name: self.shape(answer[name], name) for name in sorted(answer) if name not in OPTIONAL}
        if isinstance(answer, list):
            return [self.shape(each, key) for each in answer]
        return self.plain(answer, key) if key in VALUES or answer is None else "a value"


@dataclass
class Met:
    """What was recorded, and what the fake answered to the same."""

    note: str
    recorded: object
    answered: object


def recorded_world(version: str) -> FakeLemmy:
    """A server as that of the recordings was before the first call."""
    lemmy = FakeLemmy(version, base="http://localhost")
    for token, name in (("ADMIN-JWT", "lemmy"), ("ALICE-JWT", "alice"), ("BOBBY-JWT", "bobby")):
        lemmy.add_person(PERSONS[version][token], name, admin=name == "lemmy")
        lemmy.tokens[token] = PERSONS[version][token]
    return lemmy


def replayed(version: str) -> list[Met]:
    """Every recorded call, made again; what it names is named as this side calls it."""
    calls = json.loads((RECORDINGS / f"lemmy-{version}.json").read_text("utf-8"))["calls"]
    theirs, ours = Names(), Names()
    met: list[Met] = []
    cursor = ""
    uploads = [ALIAS.search(json.dumps(call["answer"])) for call in calls if isinstance(call["body"], str)]
    world = recorded_world(version)
    world.names = iter([found[0] for found in uploads if found])  # 1.0 tells them in an order that their names decide
    with serving(world) as lemmy, httpx2.Client(base_url=lemmy.url, verify=False, trust_env=False) as client:
        for number, call in enumerate(calls):
            headers = {"Authorization": f"Bearer {call['token']}"} if call["token"] else {}
            back = {name: alias for alias, name in ours.known.items()}

            def here(text: str, back: dict[str, str] = back) -> str:
                return ALIAS.sub(lambda found: back.get(theirs.known.get(found[0], ""), found[0]), text)

            sent: dict[str, Any] = {"params": {name: here(_text(value)) for name, value in (call["query"] or {}).items()}}
            if "page_cursor" in sent["params"]:
                sent["params"]["page_cursor"] = cursor
            if isinstance(call["body"], dict):
                sent["json"] = json.loads(here(json.dumps(call["body"])))
            elif call["body"]:
                told = json.dumps(call["answer"])
                suffix = next((one for one in ("jpeg", "png", "webp", "gif") if f".{one}" in told), "png")
                sent["files"] = {"images[]": (f"a.{suffix}", picture(suffix, number), f"image/{suffix}")}
            answer = client.request(call["method"], call["path"], headers=headers, **sent)
            content = answer.json() if answer.content else ""
            cursor = content.get("next_page") or cursor if isinstance(content, dict) else cursor
            seen = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
            held = {name: call["headers"][name] for name in HEADERS if name in call["headers"]}
            met.append(
                Met(
                    call["note"],
                    (call["status"], held, "x-ratelimit-remaining" in call["headers"], theirs.shape(call["answer"])),
                    (answer.status_code, seen, "x-ratelimit-remaining" in answer.headers, ours.shape(content)),
                )
            )
    return met


def differences(recorded: object, answered: object, place: str = "") -> Iterator[str]:
    """Where two answers differ, in words that a person can read."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        for name in sorted(recorded.keys() | answered.keys()):
            if name not in answered:
                yield f"{place}.{name} is missing"
            elif name not in recorded:
                yield f"{place}.{name} is too much"
            else:
                yield from differences(recorded[name], answered[name], f"{place}.{name}")
    elif isinstance(recorded, list | tuple) and isinstance(answered, list | tuple) and len(recorded) == len(answered):
        for number, (one, other) in enumerate(zip(recorded, answered, strict=True)):
            yield from differences(one, other, f"{place}[{number}]")
    elif recorded != answered:
        yield f"{place} was {recorded!r:.300}, and is {answered!r:.300}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.fixture(scope="module")
def replays() -> dict[str, list[Met]]:
    """Both versions, once."""
    return {version: replayed(version) for version in (OLD, NEW)}


@pytest.mark.parametrize(("version", "number"), [(OLD, number) for number in range(50)] + [(NEW, number) for number in range(56)])
def test_each_recorded_call_is_answered_as_it_was(replays: dict[str, list[Met]], version: str, number: int) -> None:
    met = replays[version][number]

    assert list(differences(met.recorded, met.answered)) == [], met.note


def test_no_recorded_call_is_left_out(replays: dict[str, list[Met]]) -> None:
    assert {version: len(met) for version, met in replays.items()} == {OLD: 50, NEW: 56}


# -- with other pictures, orders and deletions, over HTTP only -----------------------------------------------------------


@dataclass
class Server:
    """A Lemmy that is there: the fake one, or one of your own."""

    url: str
    base: str
    tokens: dict[str, str]
    new: bool
    client: httpx2.Client
    community: int = 0

    def call(self, method: str, path: str, who: str = "admin", /, **values: object) -> tuple[int, Json]:
        """One request: status and answer. What is named goes into the query of a GET, and else into the body."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        whole = f"{self.url}/api/{'v4' if self.new else 'v3'}{path}"
        if method == "GET":
            answer = self.client.get(whole, headers=headers, params={name: _text(value) for name, value in values.items()})
        else:
            answer = self.client.request(method, whole, headers=headers, json=values)
        return answer.status_code, answer.json() if answer.content else {}

    def upload(self, suffix: str, seed: int, who: str) -> str:
        """The alias that an uploaded picture gets."""
        path = "/api/v4/image" if self.new else "/pictrs/image"
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        file = {"images[]": (f"a.{suffix}", picture(suffix, seed), f"image/{suffix}")}
        answer = self.client.post(self.url + path, headers=headers, files=file).json()
        return str(answer["filename"] if self.new else answer["files"][0]["file"])

    def address(self, alias: str) -> str:
        return f"{self.base}/{'api/v4' if self.new else 'pictrs'}/image/{alias}"

    def post(self, who: str, **values: object) -> Json:
        """A new post's row."""
        status, answer = self.call("POST", "/post", who, **{"community_id": self.community, "name": "a post", **values})
        assert status == 200, answer
        row: Json = answer["post_view"]["post"]
        return row

    def at(self, address: str, **more: object) -> list[int]:
        """Posts whose address this is, as an administrator is told, newest first."""
        kind = {"search_term": address, "type_": "posts", "post_url_only": True} if self.new else {"q": address, "type_": "Url"}
        order = {} if self.new else {"sort": "New", "listing_type": "All"}
        return [view["post"]["id"] for view in self.call("GET", "/search", **{**kind, **order, **more})[1]["posts"]]

    def having(self, words: str) -> tuple[list[int], list[int]]:
        """Posts and comments with these words."""
        found = self.call("GET", "/search", **({"search_term": words} if self.new else {"q": words, "listing_type": "All"}))[1]
        return [view["post"]["id"] for view in found["posts"]], [view["comment"]["id"] for view in found["comments"]]

    def written(self, person: int) -> list[int]:
        """The posts of an account, newest first."""
        if self.new:
            items = self.call("GET", "/person/content", person_id=person, limit=50)[1]["items"]
            return [view["post"]["id"] for view in items if "comment" not in view]
        return [view["post"]["id"] for view in self.call("GET", "/user", person_id=person, sort="New", limit=50)[1]["posts"]]

    def remove(self, post: int) -> None:
        assert self.call("POST", "/post/remove", post_id=post, removed=True, reason="rules")[0] == 200


@pytest.fixture(params=[OLD, NEW, *([REAL] if REAL else [])])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each fake one in turn, and yours."""
    with httpx2.Client(verify=False, trust_env=False, timeout=60) as client:  # a Lemmy that was built for debugging is slow
        if request.param == REAL:
            facts = json.loads(Path(REAL).read_text("utf-8"))
            new = client.get(f"{facts['url']}/api/v4/site").status_code == 200
            tokens = {name: str(facts[name]) for name in ("admin", "alice", "bobby", "carol")}
            yield _with_community(Server(facts["url"], facts["base"], tokens, new, client))
            return
        lemmy = FakeLemmy(request.param)
        for number, name in ((31, "admin"), (7, "bobby"), (52, "alice"), (60, "carol")):
            lemmy.add_person(number, name, admin=name == "admin")
            lemmy.tokens[f"SECRET-{name}"] = number
        with serving(lemmy):
            tokens = {name: f"SECRET-{name}" for name in ("admin", "alice", "bobby", "carol")}
            yield _with_community(Server(lemmy.url, lemmy.base, tokens, lemmy.new, client))


def _with_community(server: Server) -> Server:
    name = f"c{uuid4().hex[:12]}"
    server.community = server.call("POST", "/community", name=name, title=name)[1]["community_view"]["community"]["id"]
    return server


def test_an_address_is_found_as_a_whole_only_and_words_in_texts_only(server: Server) -> None:
    first, second = server.upload("png", 1, "bobby"), server.upload("webp", 2, "alice")
    older = server.post("bobby", url=server.address(second), alt_text=f"as in {first}")
    newer = server.post("alice", url=server.address(second))
    body = server.post("alice", body=f"![]({server.address(first)})")
    comment = server.call("POST", "/comment", "bobby", post_id=older["id"], content=server.address(second))[1]["comment_view"][
        "comment"
    ]

    assert server.at(server.address(second)) == [newer["id"], older["id"]]
    assert server.at(server.address(first)) == server.at(second) == []
    assert server.having(second) == ([], [comment["id"]])
    assert sorted(server.having(first)[0]) == (
        [body["id"]] if server.new else [older["id"], body["id"]]
    )  # 1.0 leaves alt texts out


def test_what_was_removed_is_told_by_1_0_and_by_0_19_only_with_its_creator(server: Server) -> None:
    alias = server.upload("gif", 3, "alice")
    kept, gone = server.post("bobby", url=server.address(alias)), server.post("alice", url=server.address(alias))
    server.remove(gone["id"])

    assert server.at(server.address(alias)) == ([gone["id"], kept["id"]] if server.new else [kept["id"]])
    assert server.at(server.address(alias), creator_id=gone["creator_id"]) == [gone["id"]]
    assert gone["id"] in server.written(gone["creator_id"])


def test_what_its_author_deleted_is_in_no_search(server: Server) -> None:
    alias = server.upload("jpeg", 4, "alice")
    post = server.post("alice", url=server.address(alias))
    comment = server.call("POST", "/comment", "bobby", post_id=post["id"], content=f"see {alias}")[1]["comment_view"]["comment"]
    way = ("DELETE", "/comment") if server.new else ("POST", "/comment/delete")
    assert server.call(*way, "bobby", comment_id=comment["id"], deleted=True)[1]["comment_view"]["comment"]["content"] == ""

    refused = server.call("POST", "/comment/remove", comment_id=comment["id"], removed=True, reason="rules")
    assert (refused[0], refused[1]["error"]) == (400, "couldnt_update" if server.new else "couldnt_update_comment")
    assert server.at(server.address(alias)) == [post["id"]]


def test_nsfw_posts_are_left_out_unless_1_0_is_asked_for_them(server: Server) -> None:
    alias = server.upload("png", 5, "alice")
    post = server.post("alice", url=server.address(alias), nsfw=True)

    assert server.at(server.address(alias)) == []
    assert server.at(server.address(alias), show_nsfw=True) == ([post["id"]] if server.new else [])
    assert (post["id"] in server.written(post["creator_id"])) is server.new


def test_no_search_finds_a_preview_and_its_post_names_it(server: Server) -> None:
    alias = server.upload("webp", 6, "bobby")
    post = server.post("bobby", url=server.address(alias))
    preview = post.get("thumbnail_url") or post["url"]

    if preview == post["url"]:
        assert server.new  # it keeps no second picture unless its image mode says so
    else:
        assert server.at(preview) == []
        assert server.having(preview.rpartition("/")[2]) == ([], [])
    assert post["id"] in server.written(post["creator_id"])


def test_a_list_of_pictures_goes_on_in_0_19_and_breaks_off_in_1_0(server: Server) -> None:
    mine = [server.upload(suffix, seed, "alice") for seed, suffix in enumerate(("png", "gif", "webp"), 7)]
    path = "/image/list" if server.new else "/admin/list_all_media"

    first = server.call("GET", path, limit=2)[1]
    rows = first["items" if server.new else "images"]
    assert len(rows) == 2
    if server.new:
        status, told = server.call("GET", path, limit=2, page_cursor=first["next_page"])
        assert (status, told["error"]) == (404, "not_found")
        assert "syntax error" in told["cause"]
    else:
        more = server.call("GET", path, limit=2, page=2)[1]["images"]
        assert [row["local_image"]["pictrs_alias"] for row in (*rows, *more)][:3] == mine[::-1]


def test_what_is_not_there_is_said_so_by_name(server: Server) -> None:
    missing = 2_000_000_000
    told = [
        server.call("GET", "/post", id=missing),
        server.call("POST", "/post/remove", post_id=missing, removed=True, reason="x"),
        server.call("POST", "/admin/purge/post", post_id=missing, reason="x"),
        server.call("PUT", "/post/report/resolve", report_id=missing, resolved=True),
    ]

    old = [(400, "couldnt_find_post")] * 3 + [(400, "couldnt_find_post_report")]
    assert [(status, answer["error"]) for status, answer in told] == ([(404, "not_found")] * 4 if server.new else old)


def test_a_purged_post_is_in_no_answer_and_whoever_is_no_administrator_purges_none(server: Server) -> None:
    alias = server.upload("png", 10, "bobby")
    first, second = server.post("alice", url=server.address(alias)), server.post("bobby", url=server.address(alias))

    assert server.call("POST", "/admin/purge/post", "alice", post_id=first["id"], reason="x")[1]["error"] == "not_an_admin"
    assert server.call("POST", "/admin/purge/post", post_id=first["id"], reason="x") == (200, {"success": True})
    assert server.at(server.address(alias)) == [second["id"]]
    assert first["id"] not in server.written(first["creator_id"])


def test_a_ban_ends_sessions_in_0_19_and_stops_no_upload_in_1_0(server: Server) -> None:
    person = server.post("carol")["creator_id"]
    path, data = ("/admin/ban", "remove_or_restore_data") if server.new else ("/user/ban", "remove_data")
    assert server.call("POST", path, person_id=person, ban=True, reason="rules", **{data: False})[0] == 200

    status, told = server.call("POST", "/post", "carol", community_id=server.community, name="after the ban")
    assert (status, told["error"]) == ((400, "site_ban") if server.new else (401, "incorrect_login"))
    if server.new:
        assert server.upload("png", 11, "carol")
    assert server.call("POST", path, person_id=person, ban=False, reason="over", **{data: False})[0] == 200
