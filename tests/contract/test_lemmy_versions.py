"""The fake Lemmys against the recordings, call by call, and both again with other pictures, orders and deletions than those.

The second half speaks HTTP only. Against a real server of one's own, which it fills with posts: FEDIWARDEN_REAL_LEMMY names a JSON
file with "url", its public "base" and the tokens "admin", "alice" and "bobby" of three accounts without a rate limit in their way.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

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
    with serving(world) as lemmy, httpx2.Client(base_url=lemmy.url) as client:
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
