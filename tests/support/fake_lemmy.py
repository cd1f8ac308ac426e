"""A Lemmy's HTTP API to test against, of 0.19.20 or 1.0.0-beta.1: answers as the recordings of those versions do.

It keeps persons, communities, posts, comments, uploads and reports in memory, and searches them as the real ones do: by
equality or by words, leaving out what the asking account does not see. tests/contract/test_lemmy_versions.py holds it call by
call against tests/recordings. Marked [source] is what no recording holds and Lemmy's public source says. What it does not know
of, it answers with an empty 404.
"""

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

Json = dict[str, Any]

OLD, NEW = "0.19.20", "1.0.0-beta.1"
HOST = "lemmy.example"
ADMIN, SECOND, ALICE, BOB = 104, 105, 101, 102
PICS = 301  # the community
ADMIN_JWT, ALICE_JWT, BOB_JWT = "SECRET-admin-jwt", "SECRET-alice-jwt", "SECRET-bob-jwt"
ALIAS, PREVIEW, OTHER = "aaaaaaaa-1.jpeg", "aaaaaaaa-2.webp", "aaaaaaaa-3.png"
MOST = 50  # rows of one page
NEEDS_REASON = ("purge", "remove", "ban")
AT = "2024-02-01T00:00:00.000000Z"
NONE_LEFT = "none,none,none,none,none"
SEARCHED = ("posts", "comments", "persons", "communities", "multi_communities")  # the parts of a cursor of 1.0's search


class Refusal(Exception):
    """An answer that is none of the good ones."""

    def __init__(self, status: int, error: str, cause: str = "", message: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.cause = cause
        self.message = message


@dataclass
class FakeLemmy:
    """The server's state, to arrange and to look into."""

    version: str  # OLD or NEW; "0.19" and "1.0" mean the same
    url: str = ""
    base: str = f"https://{HOST}"  # its own public address, as it writes it into posts
    persons: dict[int, Json] = field(default_factory=dict)
    communities: dict[int, Json] = field(default_factory=dict)
    admins: set[int] = field(default_factory=set)
    settings: dict[int, Json] = field(
        default_factory=dict
    )  # of an account's own view: show_nsfw, show_bot_accounts, show_read_posts
    languages: dict[int, list[int]] = field(default_factory=dict)  # what an account reads; all, where it is not here
    blocks: dict[int, set[int]] = field(default_factory=dict)  # persons whom an account has blocked
    site_texts: dict[str, Json] = field(default_factory=dict)  # what "site" and "local_site" tell besides what they always do
    blocked_communities: dict[int, set[int]] = field(default_factory=dict)
    read: set[tuple[int, int]] = field(default_factory=set)  # person and post
    hidden: set[tuple[int, int]] = field(default_factory=set)
    posts: dict[int, Json] = field(default_factory=dict)
    comments: dict[int, Json] = field(default_factory=dict)
    images: list[tuple[str, int | None, int | None]] = field(
        default_factory=list
    )  # alias, person, post of a preview; oldest first
    reports: dict[int, Json] = field(default_factory=dict)
    modlog: list[Json] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)  # name and password
    second_factors: dict[str, str] = field(default_factory=dict)  # name and the code that is right just now
    messages: list[tuple[int, str]] = field(default_factory=list)
    names: Iterator[str] = field(default_factory=lambda: iter(()))  # of the next uploads; after them, any
    pictures: dict[str, bytes] = field(default_factory=dict)  # what pict-rs got, by alias
    previews: bool | None = None  # whether image posts get a copy of their own as thumbnail: 0.19 does, 1.0 not by default
    calls: list[str] = field(default_factory=list)  # method and path
    asked: list[tuple[str, Json]] = field(default_factory=list)  # path and query of every GET
    limited: int = 0  # so many answers still say that the rate limit is reached
    limits: dict[str, tuple[int, float]] = field(default_factory=dict)  # "search": (60, 600.0); others are not limited
    says_retry_after: bool = True  # with 429; [source] the ErrorHandlers of 1.0.0-beta.1 may drop it
    clock: Callable[[], float] = time.monotonic
    down: bool = False  # every answer is 502
    fails: set[str] = field(default_factory=set)  # ends of paths that answer 500
    lock: threading.Lock = field(default_factory=threading.Lock)
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.version = {"0.19": OLD, "1.0": NEW}.get(self.version, self.version)
        if self.version not in (OLD, NEW):
            raise ValueError(self.version)
        self.limits.setdefault("message", (180, 60.0) if self.new else (9999, 1.0))  # as they were where it was recorded
        self.limits.setdefault("search", (9999, 1.0))

    @property
    def new(self) -> bool:
        return self.version == NEW

    @property
    def short(self) -> str:
        """As our own words call it."""
        return "1.0" if self.new else "0.19"

    def address(self, alias: str) -> str:
        """Where this server shows a picture of its own."""
        return f"{self.base}/{'api/v4' if self.new else 'pictrs'}/image/{alias}"

    @property
    def at(self) -> str:
        return "published_at" if self.new else "published"

    # -- arranging ----------------------------------------------------------------------------------------------------

    def add_person(self, number: int, name: str, *, domain: str = "", admin: bool = False, **more: object) -> None:
        """An account; of this server unless a domain says otherwise."""
        home = f"https://{domain}" if domain else self.base
        facts = {
            "id": number,
            "name": name,
            "address": f"{home}/u/{name}",
            "local": not domain,
            "deleted": False,
            "banned": False,
        }
        self.persons[number] = facts | {
            "bot_account": False,
            "at": AT,
            "instance_id": 2 if domain else 1,
            "local_user": len(self.persons) + 1,
            **more,
        }
        if admin:
            self.admins.add(number)

    def add_community(self, number: int, name: str, *, moderators: Iterable[int] = (), **more: object) -> None:
        """A community."""
        facts = {"id": number, "name": name, "title": name.title(), "removed": False, "deleted": False, "nsfw": False}
        facts |= {"hidden": False, "at": AT, "moderators": list(moderators), "address": f"{self.base}/c/{name}"}
        self.communities[number] = facts | more

    def add_post(self, number: int, by: int, **values: object) -> None:
        """A post, as it is given; nothing is made of its picture (see `publish`)."""
        facts = {"id": number, "name": f"post {number}", "creator_id": by, "ap_id": f"{self.base}/post/{number}"}
        facts |= {"community_id": PICS, "removed": False, "deleted": False, "nsfw": False, "local": True, "language_id": 0}
        self.posts[number] = facts | {"at": AT, **values}

    def add_comment(self, number: int, by: int, content: str, **values: object) -> None:
        """A comment."""
        facts = {"id": number, "creator_id": by, "content": content, "ap_id": f"{self.base}/comment/{number}"}
        facts |= {"post_id": min(self.posts, default=0), "removed": False, "deleted": False, "local": True, "language_id": 0}
        self.comments[number] = facts | {"at": AT, **values}

    def add_report(self, number: int, kind: str, of: int, by: int = 0, reason: str = "look") -> None:
        """A report that nobody has resolved; `kind` is "post" or "comment"."""
        self.reports[number] = {
            "id": number,
            "kind": kind,
            "of": of,
            "by": by,
            "reason": reason,
            "resolved": False,
            "resolver": None,
        }

    def upload(self, data: bytes, content_type: str, by: int) -> str:
        """A picture that an account uploaded; its alias."""
        alias = f"{next(self.names, uuid4())}.{content_type.rpartition('/')[2]}"
        self.images.append((alias, by, None))
        self.pictures[alias] = data
        return alias

    def publish(self, by: int, **values: object) -> int:
        """A post, with what Lemmy makes of its picture: its number."""
        number = max(self.posts, default=0) + 1
        self.add_post(number, by, **values)
        self.read.add((by, number))
        row, alias = self.posts[number], str(values.get("url", "")).rpartition("/")[2]
        own = any(alias == image[0] for image in self.images)
        if own:
            row["url_content_type"] = f"image/{alias.rpartition('.')[2]}"
            row["thumbnail_url"] = row["url"]
            if self.previews if self.previews is not None else not self.new:
                copy = f"{uuid4()}.{alias.rpartition('.')[2]}"
                row["thumbnail_url"] = self.address(copy)
                self.images.append((copy, by, number) if self.new else (copy, None, None))
        return number

    def login(self, name: str, *, stay: bool = False, now: int = 0) -> str:
        """A token as the real ones are made [source]: 0.19's never ends, 1.0's after a week or never."""
        number = next(number for number, row in self.persons.items() if row["name"] == name)
        claims: Json = {
            "sub": str(self.persons[number]["local_user"]),
            "iss": urlsplit(self.base).hostname,
            "iat": now or int(time.time()),
        }
        if self.new:
            claims["exp"] = 8_210_266_876_799 if stay else claims["iat"] + 7 * 86_400
        parts = ({"typ": "JWT", "alg": "HS256"}, claims, {"signature": uuid4().hex})
        token = ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        self.tokens[token] = number
        return token

    # -- answers ------------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: Json, body: Json, who: int | None) -> Json:
        """What one request gets. Raises: Refusal."""
        api = "/api/v4" if self.new else "/api/v3"
        if (method, path) == ("GET", f"{api}/site") or (self.new and path == "/api/v3/site"):
            return self._site(who)
        if not path.startswith(api + "/"):
            raise Refusal(404, "")
        rest = path.removeprefix(api)
        if (method, rest) == ("POST", "/account/auth/login" if self.new else "/user/login"):
            return self._login(body)
        if method == "GET":
            return self._asked(rest, query, who)
        me = self._known(who)
        if self.new and self.persons[me]["banned"] and (method, rest) in (("POST", "/post"), ("POST", "/comment")):
            raise Refusal(400, "site_ban", "SiteBan")
        return self._written(method, rest, body, me)

    def _known(self, who: int | None) -> int:
        if who is None or who not in self.persons:
            raise Refusal(401, "incorrect_login", "IncorrectLogin")
        return who

    def _admin(self, who: int | None) -> int:
        if self._known(who) not in self.admins:
            raise Refusal(400, "not_an_admin", "NotAnAdmin")
        return self._known(who)

    def _login(self, body: Json) -> Json:
        """[source]; its answers to a wrong or missing second factor too."""
        name = str(body.get("username_or_email", ""))
        if name not in self.passwords or self.passwords[name] != body.get("password"):
            raise Refusal(401, "incorrect_login", "IncorrectLogin")
        if (code := self.second_factors.get(name)) is not None:
            if not body.get("totp_2fa_token"):
                raise Refusal(400, "missing_totp_token", "MissingTotpToken")
            if body["totp_2fa_token"] != code:
                raise Refusal(400, "incorrect_totp_token", "IncorrectTotpToken")
        jwt = self.login(name, stay=bool(body.get("stay_logged_in")))
        return {"jwt": jwt, "registration_created": False, "verify_email_sent": False}

    def _asked(self, rest: str, query: Json, who: int | None) -> Json:  # one line for each call, as a table of routes is
        match rest:
            case "/search":
                return self._search(query, who)
            case "/post":
                return self._read_post(int(query["id"]), who)
            case "/comment/list":  # [source]
                rows = [row for row in self._newest(self.comments) if row["post_id"] == int(query["post_id"])]
                views = [self._comment_view(row, who) for row in rows]
                return self._paged("items", views, query) if self.new else {"comments": self._page(views, query)}
            case "/comment":  # [source]
                return {"comment_view": self._comment_view(self._one_comment(int(query["id"])), who)}
            case "/post/list":
                rows = [row for row in self._newest(self.posts) if self._seen(row, who) and not self._off(row)]
                return self._paged("posts", [self._post_view(row, who) for row in rows], query)
            case "/modlog":
                return self._modlog(query)
            case "/user" if not self.new:
                return self._user(query, who)
            case "/person" if self.new:
                return self._person_page(query)
            case "/person/content" if self.new:
                return self._content(query, who)
            case "/account" if self.new:
                return self._mine(self._known(who))
            case "/account/validate_auth" if self.new:
                if who is None:
                    raise Refusal(400, "not_logged_in", "Base64 error: Invalid input length: 1")
                return {"success": True}
            case "/user/validate_auth" if not self.new:
                if who is None:
                    raise Refusal(400, "not_logged_in")
                return {"success": True}
            case "/account/media/list" | "/account/list_media" if self.new == rest.startswith("/account/media"):
                me = self._known(who)
                mine = [image for image in reversed(self.images) if image[1] == me and image[2] is None]
                return self._images(sorted(mine) if self.new else mine, query)
            case "/image/list" if self.new:
                self._admin(who)
                return self._all_images(query)
            case "/admin/list_all_media" if not self.new:
                self._admin(who)
                # an inner join: previews are not told
                return self._images([image for image in reversed(self.images) if image[1] is not None], query)
            case "/report/list" if self.new:
                who = self._known(who)
                rows = [row for row in reversed(self.reports.values()) if not row["resolved"] or "unresolved_only" not in query]
                if "post_id" in query:
                    rows = [row for row in rows if (row["kind"], row["of"]) == ("post", int(query["post_id"]))]
                return self._paged("items", [self._report_view(row, who) for row in rows], query)
            case "/post/report/list" | "/comment/report/list" | "/private_message/report/list" if not self.new:
                who = self._known(who)
                kind = rest.split("/")[1]
                rows = [row for row in reversed(self.reports.values()) if row["kind"] == kind]
                rows = [row for row in rows if not row["resolved"] or query.get("unresolved_only", "") != "true"]
                return {f"{kind}_reports": self._page([self._report_view(row, who) for row in rows], query)}
        raise Refusal(404, "")

    # -- searching ----------------------------------------------------------------------------------------------------

    def _search(self, query: Json, who: int | None) -> Json:
        return self._search_new(query, who) if self.new else self._search_old(query, who)

    def _search_old(self, query: Json, who: int | None) -> Json:
        if "q" not in query:
            raise Refusal(400, "unknown", message="Query deserialize error: missing field `q`")
        words, kind = str(query["q"]), str(query.get("type_", "All"))
        creator = int(query["creator_id"]) if "creator_id" in query else None
        posts, comments = list(self._newest(self.posts)), list(self._newest(self.comments))
        if creator is not None:
            posts = [row for row in posts if row["creator_id"] == creator]
            comments = [row for row in comments if row["creator_id"] == creator]
        posts = [row for row in posts if self._seen(row, who, profile=creator is not None)]
        comments = [row for row in comments if self._comment_seen(row, who)]
        if kind == "Url":
            posts = [row for row in posts if row.get("url") == words]
            if creator is None or who not in self.admins:
                posts = [row for row in posts if not self._off(row)]
        else:
            posts = [row for row in posts if _among(words, row.get("name"), row.get("body"), row.get("alt_text"))]
            posts = [row for row in posts if not self._off(row) and not row["deleted"]]
        comments = [row for row in comments if _among(words, row["content"]) and not row["removed"] and not row["deleted"]]
        return {
            "type_": kind,
            "comments": self._page([self._comment_view(row, who) for row in comments], query)
            if kind in ("All", "Comments")
            else [],
            "posts": self._page([self._post_view(row, who) for row in posts], query) if kind in ("All", "Posts", "Url") else [],
            "communities": [],
            "users": [],
        }

    def _search_new(self, query: Json, who: int | None) -> Json:
        if "search_term" not in query:
            raise Refusal(400, "unknown", message="Query deserialize error: missing field `search_term`")
        words, kind = str(query["search_term"]), str(query.get("type_", "all"))
        creator = int(query["creator_id"]) if "creator_id" in query else None
        url_only = query.get("post_url_only") == "true"
        limit = self._limit(query)
        nsfw = query["show_nsfw"] == "true" if "show_nsfw" in query else None
        posts = [row for row in self._newest(self.posts) if self._seen(row, who, nsfw=nsfw)]
        if url_only:
            posts = [row for row in posts if row.get("url") == words] if urlsplit(words).scheme else []
        else:
            posts = [row for row in posts if _among(words, row.get("name"), row.get("body"))]
        if who not in self.admins:
            posts = [row for row in posts if not self._off(row)]
        comments = [row for row in self._newest(self.comments) if self._comment_seen(row, who) and _among(words, row["content"])]
        found = {
            "posts": [self._post_view(row, who) for row in posts if creator in (None, row["creator_id"])],
            "comments": [self._comment_view(row, who) for row in comments if creator in (None, row["creator_id"])],
        }
        given = str(query.get("page_cursor", ""))
        starts = _starts(given, kind)
        told: dict[str, list[Json]] = {name: [] for name in SEARCHED}
        following = dict.fromkeys(SEARCHED, "none")
        for name, rows in found.items():
            if kind not in ("all", name) or (given and starts.get(name) is None):
                continue
            start = starts.get(name) or 0
            told[name] = rows[start : start + limit]
            if len(told[name]) == limit:
                following[name] = f"S{start + limit}"
        if kind == "all":
            last: str | None = ",".join(following.values())
            first: str | None = NONE_LEFT
        else:
            last = None if following.get(kind, "none") == "none" else following[kind]
            first = None
        return {
            "resolve": None,
            **{name: told[name] for name in ("comments", "posts", "communities", "persons", "multi_communities")},
            "prev_page": first,
            "next_page": last,
        }

    def _off(self, row: Json) -> bool:
        """Removed, or of a removed community."""
        return bool(row["removed"] or self.communities[row["community_id"]]["removed"])

    def _seen(self, row: Json, who: int | None, *, profile: bool = False, nsfw: bool | None = None) -> bool:
        """Whether a list of posts tells this one to an account, whether it was removed left aside.

        profile: [source] 0.19 with a creator: what was read and what was hidden is told too.
        """
        community = self.communities[row["community_id"]]
        mine = self._view_settings(who)
        if community["deleted"] or community["hidden"] or (row["deleted"] and row["creator_id"] != who):
            return False
        if (row["nsfw"] or community["nsfw"]) and not (mine["show_nsfw"] if nsfw is None else nsfw):
            return False
        if self.persons[row["creator_id"]]["bot_account"] and not mine["show_bot_accounts"]:
            return False
        if who is None:
            return True
        if not profile and (((who, row["id"]) in self.read and not mine["show_read_posts"]) or (who, row["id"]) in self.hidden):
            return False
        return self._reads(row, who) and row["community_id"] not in self.blocked_communities.get(who, ())

    def _comment_seen(self, row: Json, who: int | None) -> bool:
        post = self.posts.get(row["post_id"])
        mine = self._view_settings(who)
        if post is not None and (
            self.communities[post["community_id"]]["hidden"] or (self.new and post["nsfw"] and not mine["show_nsfw"])
        ):
            return False
        if self.persons[row["creator_id"]]["bot_account"] and not mine["show_bot_accounts"]:
            return False
        return who is None or self._reads(row, who)

    def _reads(self, row: Json, who: int) -> bool:
        if who in self.languages and row["language_id"] not in self.languages[who]:
            return False
        return row["creator_id"] not in self.blocks.get(who, ())

    def _view_settings(self, who: int | None) -> Json:
        return {"show_nsfw": False, "show_bot_accounts": True, "show_read_posts": True} | self.settings.get(who or 0, {})

    def _newest(self, rows: dict[int, Json]) -> Iterator[Json]:
        return iter(sorted(rows.values(), key=lambda row: (row["at"], row["id"]), reverse=True))

    # -- pages --------------------------------------------------------------------------------------------------------

    def _limit(self, query: Json) -> int:
        limit = int(query.get("limit", 20 if self.new else 10))
        if not 1 <= limit <= MOST:
            raise Refusal(400, "invalid_fetch_limit", "InvalidFetchLimit")
        return limit

    def _page(self, rows: list[Json], query: Json) -> list[Json]:
        """0.19's pages are numbered from 1."""
        limit = self._limit(query)
        start = (int(query.get("page", 1)) - 1) * limit
        return rows[start : start + limit]

    def _paged(self, name: str, rows: list[Json], query: Json) -> Json:
        """A list that tells where it goes on: by a cursor."""
        limit = self._limit(query)
        start = int(str(query.get("page_cursor", "P0"))[1:])
        following = {"next_page": f"P{start + limit}"} if len(rows[start : start + limit]) == limit else {}
        return {"items" if self.new else name: rows[start : start + limit], **following}

    def _images(self, images: list[tuple[str, int | None, int | None]], query: Json) -> Json:
        rows = [self._image(*image) for image in images]
        return self._paged("images", rows, query) if self.new else {"images": self._page(rows, query)}

    def _all_images(self, query: Json) -> Json:
        """1.0.0-beta.1 sorts nothing, and so has no second page: asking for it is an error."""
        if "page_cursor" in query:
            raise Refusal(404, "not_found", 'syntax error at or near ")"')
        return self._images(sorted(image for image in self.images if image[1] is not None), query)

    def _image(self, alias: str, person: int | None, preview_of: int | None) -> Json:
        row: Json = {"pictrs_alias": alias, self.at: AT}
        if self.new:
            row |= {"person_id": person} | ({"thumbnail_for_post_id": preview_of} if preview_of else {})
            post = {"post": self._post(self.posts[preview_of])} if preview_of in self.posts else {}
            return {"local_image": row, "person": self._person(self.persons[person or 0]), **post}
        row |= {"local_user_id": self.persons[person or 0]["local_user"], "pictrs_delete_token": "SECRET"}
        return {"local_image": row, "person": self._person(self.persons[person or 0])}

    # -- rows and views, with the keys of each version ------------------------------------------------------------------

    def _mine(self, who: int) -> Json:
        local = {"id": self.persons[who]["local_user"], "person_id": who, "admin": who in self.admins, "totp_2fa_enabled": False}
        local |= (_LOCAL_USER_NEW if self.new else _LOCAL_USER_OLD) | self._view_settings(who)
        view: Json = {"local_user": local, "person": self._person(self.persons[who])}
        mine: Json = {"local_user_view": view, "follows": [], "moderates": []}
        persons = [self._person(self.persons[number]) for number in sorted(self.blocks.get(who, ()))]
        places = [self._community(self.communities[number]) for number in sorted(self.blocked_communities.get(who, ()))]
        if self.new:
            view |= {"banned": False, "ban_expires_at": None}
            mine |= {"multi_community_follows": [], "community_blocks": places, "instance_communities_blocks": []}
            mine |= {"instance_persons_blocks": [], "person_blocks": persons, "keyword_blocks": []}
            return mine | {"discussion_languages": self.languages.get(who, list(range(184)))}
        view |= {"local_user_vote_display_mode": {}, "counts": {}}
        me = self._person(self.persons[who])
        mine |= {"community_blocks": [{"person": me, "community": place} for place in places], "instance_blocks": []}
        mine |= {"person_blocks": [{"person": me, "target": person} for person in persons]}
        return mine | {"discussion_languages": self.languages.get(who, [])}  # none stands for all

    def _site(self, who: int | None) -> Json:
        site = {"id": 1, "name": "trial", self.at: AT, "ap_id" if self.new else "actor_id": f"{self.base}/"}
        limit = "{}_max_requests", "{}_interval_seconds"
        if not self.new:
            limit = "{}", "{}_per_second"
        told = {"local_site_id": 1}
        for name in ("message", "search"):
            told |= {limit[0].format(name): self.limits[name][0], limit[1].format(name): int(self.limits[name][1])}
        site |= self.site_texts.get("site", {})
        local = {"id": 1, "site_id": 1, **self.site_texts.get("local_site", {})}
        view: Json = {"site": site, "local_site": local, "local_site_rate_limit": told}
        view |= {"instance": {"id": 1}} if self.new else {"counts": {}}
        admins = [self._person_view(number) for number in sorted(self.admins)]
        languages = [{"id": 0, "code": "und", "name": "Undetermined"}, {"id": 37, "code": "en", "name": "English"}]
        answer: Json = {"site_view": view, "admins": admins, "version": self.version, "all_languages": languages}
        answer |= {"discussion_languages": [], "blocked_urls": []}
        if self.new:
            return answer | {"oauth_providers": [], "admin_oauth_providers": [], "active_plugins": [], "captcha_enabled": False}
        answer |= {"taglines": [], "custom_emojis": []}
        return answer | ({"my_user": self._mine(who)} if who is not None else {})

    def _person(self, row: Json) -> Json:
        told = {"id": row["id"], "name": row["name"], self.at: row["at"], "local": row["local"], "deleted": row["deleted"]}
        told |= {"bot_account": row["bot_account"], "instance_id": row["instance_id"]}
        told |= {name: row[name] for name in ("display_name", "avatar", "banner", "bio") if row.get(name)}
        if self.new:
            return told | {"ap_id": row["address"], "last_refreshed_at": AT, "post_count": 0, "comment_count": 0}
        return told | {"actor_id": row["address"], "banned": row["banned"]}

    def _person_view(self, number: int) -> Json:
        view: Json = {"person": self._person(self.persons[number]), "is_admin": number in self.admins}
        if self.new:
            return view | {"person_actions": None, "banned": self.persons[number]["banned"], "ban_expires_at": None}
        return view | {"counts": {"person_id": number, "post_count": 0, "comment_count": 0}}

    def _community(self, row: Json) -> Json:
        told = {name: row[name] for name in ("id", "name", "title", "removed", "deleted", "nsfw")}
        told |= {self.at: row["at"], "local": True, "posting_restricted_to_mods": False, "instance_id": 1}
        if self.new:
            told |= {"ap_id": row["address"], "last_refreshed_at": AT, "visibility": "public", "local_removed": False}
            return told | dict.fromkeys(_COMMUNITY_COUNTS, 0)
        return told | {"actor_id": row["address"], "hidden": row["hidden"], "visibility": "Public"}

    def _post(self, row: Json) -> Json:
        told = {name: row[name] for name in ("id", "name", "creator_id", "community_id", "removed", "deleted", "nsfw")}
        told |= {
            "locked": False,
            self.at: row["at"],
            "ap_id": row["ap_id"],
            "local": row["local"],
            "language_id": row["language_id"],
        }
        told |= {"featured_community": False, "featured_local": False}
        optional = ("url", "body", "thumbnail_url", "embed_video_url", "alt_text", "url_content_type")
        told |= {name: row[name] for name in optional if row.get(name)}
        if self.new:
            told |= dict.fromkeys(("comments", "score", "upvotes", "downvotes", "report_count", "unresolved_report_count"), 0)
            told |= {"federation_pending": False}
            if any(comment["post_id"] == row["id"] for comment in self.comments.values()):
                told |= {"newest_comment_time_at": AT}
        return told

    def _post_view(self, row: Json, who: int | None) -> Json:
        community = self.communities[row["community_id"]]
        view: Json = {"post": self._post(row), "creator": self._person(self.persons[row["creator_id"]])}
        view |= {"community": self._community(community), **self._creator(row, community)}
        if row.get("thumbnail_url"):
            details = {"link": row["thumbnail_url"], "width": 512, "height": 398, "content_type": row.get("url_content_type", "")}
            view |= {"image_details": details | ({"blurhash": "L"} if self.new else {})}
        read = (who, row["id"]) in self.read
        if self.new:
            actions = {"post_actions": {"read_at": AT}} if read else {}
            return view | actions | {"can_mod": who in self.admins, "tags": []}
        view |= {"counts": {"post_id": row["id"]}, "banned_from_community": False, "subscribed": "NotSubscribed", "saved": False}
        view |= {"read": read, "hidden": (who, row["id"]) in self.hidden}
        return view | {"creator_blocked": row["creator_id"] in self.blocks.get(who or 0, ()), "unread_comments": 0}

    def _creator(self, row: Json, community: Json) -> Json:
        told: Json = {"creator_is_admin": row["creator_id"] in self.admins, "creator_banned_from_community": False}
        told |= {"creator_is_moderator": row["creator_id"] in community["moderators"]}
        return told | ({"creator_banned": self.persons[row["creator_id"]]["banned"]} if self.new else {})

    def _comment(self, row: Json) -> Json:
        told = {
            name: row[name] for name in ("id", "creator_id", "post_id", "removed", "deleted", "ap_id", "local", "language_id")
        }
        told |= {"content": "" if row["deleted"] else row["content"], self.at: row["at"], "path": f"0.{row['id']}"}
        told |= {"distinguished": False}
        if self.new:
            told |= dict.fromkeys(("score", "upvotes", "downvotes", "child_count", "report_count", "unresolved_report_count"), 0)
            told |= {"federation_pending": False, "locked": False}
        return told

    def _comment_view(self, row: Json, who: int | None) -> Json:
        post = self.posts[row["post_id"]]
        community = self.communities[post["community_id"]]
        view: Json = {"comment": self._comment(row), "creator": self._person(self.persons[row["creator_id"]])}
        view |= {"post": self._post(post), "community": self._community(community), **self._creator(row, community)}
        if self.new:
            return view | {"can_mod": who in self.admins, "tags": []}
        view |= {
            "counts": {"comment_id": row["id"]},
            "banned_from_community": False,
            "subscribed": "NotSubscribed",
            "saved": False,
        }
        return view | {"creator_blocked": row["creator_id"] in self.blocks.get(who or 0, ())}

    def _report_view(self, row: Json, who: int) -> Json:
        kind = row["kind"]
        told: Json = {"id": row["id"], "creator_id": row["by"], f"{kind}_id": row["of"], "reason": row["reason"]}
        told |= {"resolved": row["resolved"], self.at: AT}
        told |= {"resolver_id": row["resolver"], "updated_at" if self.new else "updated": AT} if row["resolver"] else {}
        told |= {"violates_instance_rules": False} if self.new else {}
        reported = self.posts[row["of"]] if kind == "post" else self.comments[row["of"]]
        post = reported if kind == "post" else self.posts[reported["post_id"]]
        community = self.communities[post["community_id"]]
        if kind == "post":
            told |= {"original_post_name": reported["name"]}
            told |= {f"original_post_{name}": reported[name] for name in ("url", "body") if reported.get(name)}
        else:
            told |= {"original_comment_text": reported["content"]}
        by = self.persons.get(row["by"]) or self.persons[min(self.persons)]
        author = self.persons[reported["creator_id"]]
        view: Json = {f"{kind}_report": told, "post": self._post(post), "community": self._community(community)}
        view |= {"creator": self._person(by), f"{kind}_creator": self._person(author), **self._creator(reported, community)}
        view |= {"comment": self._comment(reported)} if kind == "comment" else {}
        view |= {"resolver": self._person(self.persons[row["resolver"]])} if row["resolver"] else {}
        if self.new:
            return {"type_": kind, **view, "tags": []}
        view |= {"subscribed": "NotSubscribed", "saved": False, "creator_blocked": False, "counts": {}}
        return view | ({"read": (who, post["id"]) in self.read, "hidden": False, "unread_comments": 0} if kind == "post" else {})

    # -- single answers -----------------------------------------------------------------------------------------------

    def _one_post(self, number: int) -> Json:
        if number not in self.posts:
            raise Refusal(404, "not_found", "Record not found") if self.new else Refusal(400, "couldnt_find_post")
        return self.posts[number]

    def _one_comment(self, number: int) -> Json:
        if number not in self.comments:
            raise Refusal(404, "not_found", "Record not found") if self.new else Refusal(400, "couldnt_find_comment")
        return self.comments[number]

    def _one_person(self, number: int) -> Json:
        if number not in self.persons:
            raise Refusal(404, "not_found", "Record not found") if self.new else Refusal(400, "couldnt_find_person")
        return self.persons[number]

    def _read_post(self, number: int, who: int | None) -> Json:
        row = self._one_post(number)
        community = self._community(self.communities[row["community_id"]])
        if (row["removed"] or row["deleted"]) and who not in self.admins | {row["creator_id"]}:
            raise Refusal(404, "not_found", "Record not found") if self.new else Refusal(400, "couldnt_find_post")
        view = self._post_view(row, who)
        same = [one for one in self._newest(self.posts) if one.get("url") and one.get("url") == row.get("url") and one is not row]
        about: Json = {"community": community}
        if self.new:
            about |= {"can_mod": who in self.admins, "tags": []}
        else:
            about |= {"subscribed": "NotSubscribed", "blocked": False, "counts": {}, "banned_from_community": False}
        moderators = self.communities[row["community_id"]]["moderators"]
        answer = {"post_view": view, "community_view": about, "cross_posts": [self._post_view(one, who) for one in same]}
        answer |= {"moderators": [{"community": community, "moderator": self._person(self.persons[one])} for one in moderators]}
        if who is not None:
            self.read.add((who, number))  # only afterwards: this answer says what was so before
        return answer

    def _asked_for(self, query: Json) -> int:
        if "person_id" in query:
            return int(self._one_person(int(query["person_id"]))["id"])
        name = str(query.get("username", ""))
        for number, row in self.persons.items():
            if row["name"] == name:
                return number
        raise Refusal(404, "not_found", "Record not found") if self.new else Refusal(400, "couldnt_find_person")

    def _user(self, query: Json, who: int | None) -> Json:
        number = self._asked_for(query)
        posts = [row for row in self._newest(self.posts) if row["creator_id"] == number and self._seen(row, who, profile=True)]
        posts = [row for row in posts if who in self.admins or not self._off(row)]
        comments = [row for row in self._newest(self.comments) if row["creator_id"] == number and self._comment_seen(row, who)]
        return {
            "person_view": self._person_view(number),
            "site": {"id": 1},
            "comments": self._page([self._comment_view(row, who) for row in comments], query),
            "posts": self._page([self._post_view(row, who) for row in posts], query),
            "moderates": [],
        }

    def _person_page(self, query: Json) -> Json:
        view = self._person_view(self._asked_for(query))
        return {"person_view": view, "site": {"id": 1}, "moderates": [], "multi_communities_created": []}

    def _content(self, query: Json, who: int | None) -> Json:
        """[source] Everything of one person but what the account hid: removed, deleted, NSFW too."""
        number = self._asked_for(query)
        rows: list[tuple[str, Json]] = [("post", row) for row in self.posts.values() if (who, row["id"]) not in self.hidden]
        rows += [("comment", row) for row in self.comments.values()]
        rows = sorted(
            (one for one in rows if one[1]["creator_id"] == number), key=lambda one: (one[1]["at"], one[1]["id"]), reverse=True
        )
        views = [
            {"type_": kind} | (self._post_view(row, who) if kind == "post" else self._comment_view(row, who))
            for kind, row in rows
        ]
        return self._paged("items", views, query)

    def _modlog(self, query: Json) -> Json:
        rows = list(reversed(self.modlog))[: self._limit(query)]
        if self.new:
            return {"items": [self._modlog_new(row) for row in rows]}
        told: Json = {name: [] for name in _MODLOG}
        for row in rows:
            kind = row["kind"]
            if kind not in ("post", "comment"):
                continue
            entry = {"id": row["id"], "mod_person_id": row["by"], f"{kind}_id": row["of"], "reason": row["reason"]}
            view: Json = {f"mod_remove_{kind}": entry | {"removed": row["removed"], "when_": AT}}
            post = self.posts.get(row["of"] if kind == "post" else self.comments.get(row["of"], {}).get("post_id", 0))
            if post is None:
                continue  # what was purged is in no list of what was removed
            view |= {"post": self._post(post), "community": self._community(self.communities[post["community_id"]])}
            if kind == "comment":
                comment = self.comments[row["of"]]
                view |= {"comment": self._comment(comment) | {"content": comment["content"]}}
                view |= {"commenter": self._person(self.persons[comment["creator_id"]])}
            told[f"removed_{kind}s"].append(view)
        return told

    def _modlog_new(self, row: Json) -> Json:
        kind = {"post": "mod_remove_post", "comment": "mod_remove_comment", "ban": "admin_ban"}.get(row["kind"], row["kind"])
        entry = {"id": row["id"], "kind": kind, "is_revert": not row["removed"], "reason": row["reason"], "expires_at": None}
        view: Json = {"modlog": entry | {self.at: AT, "bulk_action_parent_id": None, "child_count": 0}}
        post = self.posts.get(row["of"] if row["kind"] == "post" else self.comments.get(row["of"], {}).get("post_id", 0))
        if row["kind"] == "comment" and row["of"] in self.comments:
            comment = self.comments[row["of"]]
            view |= {"target_comment": self._comment(comment) | {"content": comment["content"]}}
            view |= {"target_person": self._person(self.persons[comment["creator_id"]])}
        if post is not None:
            view |= {"target_post": self._post(post), "target_community": self._community(self.communities[post["community_id"]])}
            view.setdefault("target_person", self._person(self.persons[post["creator_id"]]))
        return view

    # -- writing ------------------------------------------------------------------------------------------------------

    def _written(self, method: str, rest: str, body: Json, who: int) -> Json:
        if self.new and rest.split("/")[-1 if "purge" not in rest else -2] in NEEDS_REASON and not body.get("reason"):
            raise Refusal(400, "unknown", message="Json deserialize error: missing field `reason`")  # [source]
        match method, rest:
            case ("POST", "/community"):
                number = max(self.communities, default=1) + 1
                self.add_community(number, str(body["name"]), title=body["title"], moderators=[who])
                view: Json = {"community": self._community(self.communities[number])}
                view |= {"can_mod": True, "tags": [], "community_actions": {}} if self.new else {}
                view |= (
                    {}
                    if self.new
                    else {"subscribed": "Subscribed", "blocked": False, "counts": {}, "banned_from_community": False}
                )
                return {"community_view": view, "discussion_languages": []}
            case ("POST", "/post"):
                values = {name: body[name] for name in ("name", "url", "body", "alt_text", "nsfw") if body.get(name)}
                number = self.publish(who, community_id=int(body["community_id"]), **values)
                return {"post_view": self._post_view(self.posts[number], who)}
            case ("POST", "/comment"):
                number = max(self.comments, default=0) + 1
                self.add_comment(number, who, str(body["content"]), post_id=int(body["post_id"]))
                return self._comment_told(number, who)
            case ("POST", "/comment/delete") if not self.new:
                return self._delete_comment(int(body["comment_id"]), who, deleted=bool(body["deleted"]))
            case ("DELETE", "/comment") if self.new:
                return self._delete_comment(int(body["comment_id"]), who, deleted=bool(body["deleted"]))
            case ("POST", "/private_message"):
                self._one_person(int(body["recipient_id"]))
                self.messages.append((body["recipient_id"], body["content"]))
                number = len(self.messages)
                told = {"id": number, "creator_id": who, "recipient_id": body["recipient_id"], "content": body["content"]}
                told |= {"deleted": False, self.at: AT, "ap_id": f"{self.base}/private_message/{number}", "local": True}
                told |= {"removed": False} | ({"deleted_by_recipient": False} if self.new else {"read": False})
                recipient = self._person(self.persons[body["recipient_id"]])
                view = {"private_message": told, "creator": self._person(self.persons[who]), "recipient": recipient}
                return {"private_message_view": view}
            case ("POST", "/post/report" | "/comment/report"):
                kind = rest.split("/")[1]
                (self._one_post if kind == "post" else self._one_comment)(int(body[f"{kind}_id"]))
                number = max((row["id"] for row in self.reports.values() if row["kind"] == kind), default=0) + 1
                key = number if number not in self.reports else max(self.reports) + 1
                self.add_report(key, kind, int(body[f"{kind}_id"]), who, str(body["reason"]))
                self.reports[key]["id"] = number
                view = self._report_view(self.reports[key], who)
                view.pop("type_", None)
                return {f"{kind}_report_view": view}
            case ("PUT", "/post/report/resolve" | "/comment/report/resolve"):
                return self._resolve(rest.split("/")[1], body, who)
            case ("POST", "/post/remove" | "/comment/remove"):
                return self._remove(rest.split("/")[1], body, who)
            case ("POST", "/admin/purge/post" | "/admin/purge/comment"):
                kind = rest.rpartition("/")[2]
                self._admin(who)
                self._forget(kind, int(body[f"{kind}_id"]))
                return {"success": True}
            case ("POST", "/user/ban") if not self.new:
                self._admin(who)
                self._ban(body, body.get("remove_data"), who)
                if body["ban"]:  # 0.19 ends every session of who is banned, and their addresses with them
                    for token in [token for token, person in self.tokens.items() if person == int(body["person_id"])]:
                        del self.tokens[token]
                return {"person_view": self._person_view(int(body["person_id"])), "banned": bool(body["ban"])}
            case ("POST", "/admin/ban") if self.new:
                self._admin(who)
                self._ban(body, body.get("remove_or_restore_data"), who)
                return {"person_view": self._person_view(int(body["person_id"]))}
            case ("DELETE", "/image") if self.new:
                self._admin(who)
                alias = str(body["filename"])
                self.images = [image for image in self.images if image[0] != alias]
                self.pictures.pop(alias, None)
                return {"success": True}
        raise Refusal(404, "")

    def _comment_told(self, number: int, who: int) -> Json:
        return {"comment_view": self._comment_view(self.comments[number], who)} | ({} if self.new else {"recipient_ids": []})

    def _delete_comment(self, number: int, who: int, *, deleted: bool) -> Json:
        row = self._one_comment(number)
        if row["creator_id"] != who:
            raise Refusal(400, "no_comment_edit_allowed", "NoCommentEditAllowed")  # [source]
        row["deleted"] = deleted
        return self._comment_told(number, who)

    def _remove(self, kind: str, body: Json, who: int) -> Json:
        number = int(body[f"{kind}_id"])
        row = self._one_post(number) if kind == "post" else self._one_comment(number)
        post = row if kind == "post" else self.posts[row["post_id"]]
        if who not in self.admins and who not in self.communities[post["community_id"]]["moderators"]:
            raise Refusal(400, "not_a_mod_or_admin", "NotAModOrAdmin")
        if kind == "comment" and row["deleted"]:
            raise Refusal(400, "couldnt_update", "CouldntUpdate") if self.new else Refusal(400, "couldnt_update_comment")
        row["removed"] = bool(body["removed"])
        for report in self.reports.values():  # what is removed needs no word any more
            if (report["kind"], report["of"]) == (kind, number) and not report["resolved"]:
                report |= {"resolved": True, "resolver": who}
        self._log(kind, number, who, body)
        if kind == "post":
            return {"post_view": self._post_view(row, who)}
        return self._comment_told(number, who)

    def _resolve(self, kind: str, body: Json, who: int) -> Json:
        number = int(body["report_id"])
        row = next((row for row in self.reports.values() if (row["kind"], row["id"]) == (kind, number)), None)
        if row is None:
            raise Refusal(404, "not_found", "Record not found") if self.new else Refusal(400, f"couldnt_find_{kind}_report")
        reported = self.posts[row["of"]] if kind == "post" else self.posts[self.comments[row["of"]]["post_id"]]
        if who not in self.admins and who not in self.communities[reported["community_id"]]["moderators"]:
            raise Refusal(400, "not_a_mod_or_admin", "NotAModOrAdmin")
        row |= {"resolved": bool(body["resolved"]), "resolver": who}
        view = self._report_view(row, who)
        view.pop("type_", None)
        return {f"{kind}_report_view": view}

    def _forget(self, kind: str, number: int) -> None:
        if kind == "post":
            self._one_post(number)
            for comment in [row["id"] for row in self.comments.values() if row["post_id"] == number]:
                self._forget("comment", comment)
            del self.posts[number]
        else:
            self._one_comment(number)
            del self.comments[number]
        for key in [key for key, row in self.reports.items() if (row["kind"], row["of"]) == (kind, number)]:
            del self.reports[key]

    def _ban(self, body: Json, data: object, who: int) -> None:
        number = int(body["person_id"])
        if number in self.admins and number <= who:
            raise Refusal(400, "not_higher_admin", "NotHigherAdmin")  # [source]
        self._one_person(number)["banned"] = bool(body["ban"])
        self._log("ban", number, who, body)
        if data:
            for row in (*self.posts.values(), *self.comments.values()):
                row["removed"] |= row["creator_id"] == number

    def _log(self, kind: str, of: int, by: int, body: Json) -> None:
        before = sum(self.new or row["kind"] == kind for row in self.modlog)  # 0.19 numbers each kind by itself
        entry: Json = {"id": before + 1, "kind": kind, "of": of, "by": by, "reason": body.get("reason")}
        self.modlog.append(entry | {"removed": bool(body.get("removed", True))})

    def uploaded(self, data: bytes, content_type: str, who: int | None) -> tuple[int, Json]:
        """What an upload gets: status and answer. Raises: Refusal."""
        from PIL import Image

        me = self._known(who)
        part = next(
            BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + data).iter_parts()
        )
        picture = part.get_payload(decode=True)
        assert isinstance(picture, bytes)
        with Image.open(BytesIO(picture)) as opened:
            width, height, kind = *opened.size, f"image/{(opened.format or '').lower()}"
        alias = self.upload(picture, kind, me)
        if self.new:
            return 200, {"image_url": self.address(alias), "filename": alias}
        details = {"width": width, "height": height, "content_type": kind, "created_at": AT}
        return 201, {"files": [{"file": alias, "delete_token": str(uuid4()), "details": details}], "msg": "ok"}

    # -- limits -------------------------------------------------------------------------------------------------------

    def over(self, name: str) -> float | None:
        """Take one request from a bucket: seconds until there is one again where there is none; None where it is let through.

        [source] 0.19 fills its bucket again bit by bit, 1.0 counts in fixed windows.
        """
        if name not in self.limits:
            return None
        most, seconds = self.limits[name]
        now = self.clock()
        left, since = self._buckets.get(name, (float(most), now))
        if self.new and now - since >= seconds:
            left, since = float(most), now
        elif not self.new:
            left, since = min(float(most), left + (now - since) * most / seconds), now
        if left < 1:
            self._buckets[name] = (left, since)
            return since + seconds - now if self.new else (1 - left) * seconds / most
        self._buckets[name] = (left - 1, since)
        return None

    def left(self, name: str) -> int:
        """What a bucket holds."""
        return int(self._buckets.get(name, (self.limits[name][0], 0.0))[0])


_COMMUNITY_COUNTS = (
    *("subscribers", "posts", "comments", "users_active_day", "users_active_week", "users_active_month"),
    *("users_active_half_year", "subscribers_local", "report_count", "unresolved_report_count"),
)
_LOCAL_USER_OLD: Json = {
    "theme": "browser",
    "default_sort_type": "Active",
    "default_listing_type": "Local",
    "interface_language": "browser",
    **dict.fromkeys(("show_avatars", "show_scores", "blur_nsfw", "enable_animated_images"), True),
    **dict.fromkeys(("send_notifications_to_email", "email_verified", "accepted_application", "open_links_in_new_tab"), False),
    **dict.fromkeys(("auto_expand", "infinite_scroll_enabled", "enable_keyboard_navigation", "collapse_bot_comments"), False),
    "post_listing_mode": "List",
    "last_donation_notification": AT,
}
_LOCAL_USER_NEW: Json = {
    "theme": "browser",
    "default_post_sort_type": "active",
    "default_listing_type": "local",
    "interface_language": "browser",
    **dict.fromkeys(("show_avatars", "blur_nsfw", "animated_images_enabled", "private_messages_enabled", "show_upvotes"), True),
    **dict.fromkeys(("show_person_votes", "show_media"), True),
    **dict.fromkeys(("send_notifications_to_email", "email_verified", "accepted_application", "open_links_in_new_tab"), False),
    **dict.fromkeys(("infinite_scroll_enabled", "collapse_bot_comments", "auto_mark_fetched_posts_as_read"), False),
    **dict.fromkeys(("hide_posts_with_media", "show_score", "show_upvote_percentage"), False),
    "post_listing_mode": "list",
    "default_comment_sort_type": "hot",
    "show_downvotes": "show",
    "default_items_per_page": 20,
    "last_donation_notification_at": AT,
}
_MODLOG = (
    *("removed_posts", "locked_posts", "featured_posts", "removed_comments", "removed_communities", "banned_from_community"),
    *("banned", "added_to_community", "transferred_to_community", "added", "admin_purged_persons", "admin_purged_communities"),
    *("admin_purged_posts", "admin_purged_comments", "hidden_communities"),
)


def _among(words: str, *texts: object) -> bool:
    """As ILIKE does, whatever the letters' case."""
    return any(words.lower() in text.lower() for text in texts if isinstance(text, str))


def _starts(cursor: str, kind: str) -> dict[str, int | None]:
    """Where each list of 1.0's search goes on; None where it has ended."""
    if not cursor:
        return {}
    if kind != "all":
        return {kind: int(cursor[1:])}
    return {name: None if part == "none" else int(part[1:]) for name, part in zip(SEARCHED, cursor.split(","), strict=True)}


@contextmanager
def serving(lemmy: FakeLemmy) -> Generator[FakeLemmy]:
    """This server on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(lemmy))
    server.daemon_threads = True
    lemmy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield lemmy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def running_lemmy(version: str) -> Generator[FakeLemmy]:
    """A small server on loopback: alice uploaded, bob of another server wrote a comment, two administrators."""
    lemmy = FakeLemmy(version)
    lemmy.add_person(ALICE, "alice")
    lemmy.add_person(BOB, "bob", domain="remote.example")
    lemmy.add_person(ADMIN, "dave", admin=True)
    lemmy.add_person(SECOND, "erin", admin=True)
    lemmy.tokens = {ADMIN_JWT: ADMIN, ALICE_JWT: ALICE}
    lemmy.persons[ALICE]["avatar"] = lemmy.address(ALIAS)
    lemmy.add_community(PICS, "pics", moderators=[SECOND])
    lemmy.add_post(401, ALICE, url=lemmy.address(ALIAS), url_content_type="image/jpeg")
    lemmy.add_post(403, ALICE, body=f"hi ![]({lemmy.address(ALIAS)})")
    lemmy.add_post(404, BOB, body="nothing")
    lemmy.add_comment(501, BOB, f"![]({lemmy.address(ALIAS)})", post_id=404)
    lemmy.images = [(ALIAS, ALICE, None), (OTHER, ALICE, None), (PREVIEW, BOB if lemmy.new else None, 404)]
    lemmy.add_report(901, "post", 401, BOB)
    lemmy.add_report(902, "comment", 501, ALICE)
    lemmy.add_report(903, "post", 404, ALICE)
    with serving(lemmy):
        yield lemmy


def _handler(lemmy: FakeLemmy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            authorization = self.headers.get("Authorization")
            with lemmy.lock:
                lemmy.calls.append(f"{self.command} {parts.path}")
                if self.command == "GET":
                    lemmy.asked.append((parts.path, query))
                status, content, headers = self._answer(data, parts.path, query, (authorization or "").removeprefix("Bearer "))
            cache = "public, max-age=60" if self.command == "GET" and not authorization and status == 200 else "private"
            self._reply(status, content, {"Cache-Control": cache, **headers})

        def _answer(self, data: bytes, path: str, query: Json, token: str) -> tuple[int, Json | None, dict[str, str]]:
            if lemmy.down:
                return 502, {}, {}
            if path.endswith(tuple(lemmy.fails)):
                return 500, {"error": "unknown"}, {}
            forced = lemmy.limited > 0
            lemmy.limited -= forced
            bucket = "search" if path.endswith("/search") else "message"
            wait = 0.0 if forced else lemmy.over("message") if lemmy.new else None
            if wait is None and (not lemmy.new or bucket == "search"):
                wait = lemmy.over(bucket)
            if wait is not None:
                told = {"Retry-After": str(int(wait) + 1)} if lemmy.new and lemmy.says_retry_after and not forced else {}
                return (429, {"error": "too_many_requests"}, told) if lemmy.new else (400, {"error": "rate_limit_error"}, {})
            headers = {}
            if lemmy.new:
                headers = {
                    "x-ratelimit-limit": str(lemmy.limits["message"][0]),
                    "x-ratelimit-remaining": str(lemmy.left("message")),
                }
            who = lemmy.tokens.get(token)
            try:
                if (self.command, path) == ("POST", "/api/v4/image" if lemmy.new else "/pictrs/image"):
                    return *lemmy.uploaded(data, self.headers["Content-Type"], who), headers
                return 200, lemmy.answer(self.command, path, query, json.loads(data or b"{}"), who), headers
            except Refusal as refusal:
                if not refusal.error:
                    return refusal.status, None, headers
                told = {"error": refusal.error}
                told |= {"cause": refusal.cause} if lemmy.new and refusal.cause else {}
                told |= {"message": refusal.message} if refusal.message else {}
                return refusal.status, told, {} if refusal.message else headers  # an error made anew has lost its headers

        def _reply(self, status: int, content: Json | None, headers: dict[str, str]) -> None:
            data = b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            if content is not None:
                self.send_header("Content-Type", "application/json")
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, format: str, *arguments: object) -> None:
            """Tests say nothing."""

    return Handler
