"""A Lemmy's HTTP API to test against, of 0.19 or 1.0, with its habits: silent about wrong tokens, pages, limits, forgetful bans.

It keeps a few persons, posts, comments, uploads and reports in memory. What it does not know of, it answers with 404.
"""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]

HOST = "lemmy.example"
ADMIN, SECOND, ALICE, BOB = 104, 105, 101, 102
ADMIN_JWT, ALICE_JWT = "SECRET-admin-jwt", "SECRET-alice-jwt"
ALIAS, PREVIEW, OTHER = "aaaaaaaa-1.jpeg", "aaaaaaaa-2.webp", "aaaaaaaa-3.png"
NEEDS_REASON = ("purge", "remove", "ban")


class Refusal(Exception):
    """An answer that is none of the good ones."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


@dataclass
class FakeLemmy:
    """The server's state, to arrange and to look into."""

    version: str  # "0.19" or "1.0"
    url: str = ""
    persons: dict[int, Json] = field(default_factory=dict)
    admins: set[int] = field(default_factory=set)
    posts: dict[int, Json] = field(default_factory=dict)
    comments: dict[int, Json] = field(default_factory=dict)
    images: list[tuple[str, int | None, int | None]] = field(default_factory=list)  # alias, person, post of a preview
    reports: dict[int, Json] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    messages: list[tuple[int, str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)  # method and path
    limited: int = 0  # so many answers still say that the rate limit is reached
    down: bool = False  # every answer is 502

    @property
    def new(self) -> bool:
        return self.version == "1.0"

    def address(self, alias: str) -> str:
        """Where this server shows a picture of its own."""
        return f"https://{HOST}/{'api/v4' if self.new else 'pictrs'}/image/{alias}"

    def add_person(self, number: int, name: str, *, domain: str = HOST, admin: bool = False) -> None:
        """An account."""
        key = "ap_id" if self.new else "actor_id"
        person = {"id": number, "name": name, key: f"https://{domain}/u/{name}", "local": domain == HOST, "deleted": False}
        if not self.new:
            person |= {"banned": False}
        self.persons[number] = person | {self.at: "2024-01-01T00:00:00Z"}
        if admin:
            self.admins.add(number)

    @property
    def at(self) -> str:
        return "published_at" if self.new else "published"

    def add_post(self, number: int, by: int, **values: str) -> None:
        """A post."""
        facts = {"id": number, "name": f"post {number}", "creator_id": by, "ap_id": f"https://{HOST}/post/{number}"}
        self.posts[number] = facts | {
            "removed": False,
            "deleted": False,
            "local": True,
            self.at: "2024-02-01T00:00:00Z",
            **values,
        }

    def add_comment(self, number: int, by: int, content: str) -> None:
        """A comment."""
        facts = {"id": number, "creator_id": by, "content": content, "ap_id": f"https://{HOST}/comment/{number}"}
        self.comments[number] = facts | {"removed": False, "deleted": False, "local": True, self.at: "2024-02-02T00:00:00Z"}

    # -- answers ------------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: Json, body: Json, who: int | None) -> Json:
        """What one request gets. Raises: Refusal."""
        api = "/api/v4" if self.new else "/api/v3"
        if (method, path) == ("GET", f"{api}/site") or (self.new and path == "/api/v3/site"):
            return self._site(who)
        if not path.startswith(api + "/"):
            raise Refusal(404, "")
        rest = path.removeprefix(api)
        if self.new and (method, rest) == ("GET", "/account"):
            if who is None:
                raise Refusal(401, "incorrect_login")
            return self._mine(who)
        if (method, rest) == ("GET", "/search"):
            return self._search(query)
        if who is None:
            raise Refusal(401, "incorrect_login")
        if (method, rest) == ("POST", "/private_message"):
            self.messages.append((body["recipient_id"], body["content"]))
            return {"private_message_view": {}}
        if who not in self.admins:
            raise Refusal(400, "not_an_admin")
        if method == "GET":
            return self._asked(rest, query)
        return self._done(method, rest, body, who)

    def _mine(self, who: int) -> Json:
        return {"local_user_view": {"person": self.persons[who], "local_user": {"id": who + 100, "admin": who in self.admins}}}

    def _site(self, who: int | None) -> Json:
        site: Json = {"site_view": {}, "version": "1.0.0" if self.new else "0.19.20"}
        site |= {"admins": [{"person": self.persons[number]} for number in sorted(self.admins)]}
        return site | ({"my_user": self._mine(who)} if who is not None and not self.new else {})

    def _view(self, kind: str, row: Json) -> Json:
        community = {"id": 301, "name": "pics", "ap_id" if self.new else "actor_id": f"https://{HOST}/c/pics"}
        return {kind: row, "creator": self.persons[row["creator_id"]], "community": community}

    def _search(self, query: Json) -> Json:
        words = str(query.get("search_term" if self.new else "q", ""))
        in_text = [row for row in self.posts.values() if words in row.get("body", "")]
        in_url = [row for row in self.posts.values() if words in row.get("url", "")]
        comments = [self._view("comment", row) for row in self.comments.values() if words in row["content"]]
        if self.new:
            posts = [self._view("post", row) for row in in_text + in_url]
            items = [view | {"type_": "post"} for view in posts] + [view | {"type_": "comment"} for view in comments]
            return self._cursor("search", items, query)
        start, stop = self._page(query)
        if query.get("type_") == "Url":
            return {"posts": [self._view("post", row) for row in in_url][start:stop], "comments": []}
        return {"posts": [self._view("post", row) for row in in_text][start:stop], "comments": comments[start:stop]}

    def _asked(self, rest: str, query: Json) -> Json:
        if self.new and rest == "/image/list":
            rows = [self._image(*image) for image in reversed(self.images)]
            return self._cursor("items", rows, query)
        if not self.new and rest == "/admin/list_all_media":
            start, stop = self._page(query)
            local = [image for image in reversed(self.images) if image[1] is not None]  # an inner join: previews are not told
            return {"images": [self._image(*image) for image in local[start:stop]]}
        if self.new and rest == "/report/list":
            views = [self._report(row) for row in self.reports.values() if not row["resolved"]]
            return self._cursor("items", views, query)
        kind = rest.removeprefix("/").removesuffix("/report/list")
        if not self.new and rest.endswith("/report/list") and kind in ("post", "comment", "private_message"):
            start, stop = self._page(query)
            views = [self._report(row) for row in self.reports.values() if not row["resolved"] and row["kind"] == kind]
            return {f"{kind}_reports": views[start:stop]}
        raise Refusal(404, "")

    def _image(self, alias: str, person: int | None, preview_of: int | None) -> Json:
        row: Json = {"pictrs_alias": alias, self.at: "2024-02-01T00:00:00Z"}
        row |= {"person_id": person, "thumbnail_for_post_id": preview_of} if self.new else {"pictrs_delete_token": "SECRET"}
        return {"local_image": row, "person": self.persons.get(person or 0)}

    def _report(self, row: Json) -> Json:
        kind = row["kind"]
        return {f"{kind}_report": {"id": row["id"], "resolved": row["resolved"]}, kind: {"id": row["of"]}}

    def _cursor(self, name: str, rows: list[Json], query: Json) -> Json:
        limit, start = self._limit(query, 20), int(query.get("page_cursor", "P0")[1:])
        following = {"next_page": f"P{start + limit}"} if start + limit < len(rows) else {}
        return {name: rows[start : start + limit], **following}

    def _page(self, query: Json) -> tuple[int, int]:
        limit = self._limit(query, 10)
        start = (int(query.get("page", 1)) - 1) * limit
        return start, start + limit

    def _limit(self, query: Json, otherwise: int) -> int:
        limit = int(query.get("limit", otherwise))
        if not 1 <= limit <= 50:
            raise Refusal(400, "invalid_fetch_limit")
        return limit

    def _done(self, method: str, rest: str, body: Json, who: int) -> Json:
        if self.new and rest.split("/")[-1 if "purge" not in rest else -2] in NEEDS_REASON and not body.get("reason"):
            raise Refusal(400, "unknown")
        match method, rest:
            case ("POST", "/admin/purge/post"):
                self._forget("post", self.posts, int(body["post_id"]))
            case ("POST", "/admin/purge/comment"):
                self._forget("comment", self.comments, int(body["comment_id"]))
            case ("POST", "/post/remove"):
                self._one(self.posts, int(body["post_id"]))["removed"] = body["removed"]
            case ("POST", "/comment/remove"):
                self._one(self.comments, int(body["comment_id"]))["removed"] = body["removed"]
            case ("PUT", "/post/report/resolve" | "/comment/report/resolve"):
                self._one(self.reports, int(body["report_id"]))["resolved"] = body["resolved"]
            case ("POST", "/user/ban") if not self.new:
                self._ban(int(body["person_id"]), body["remove_data"], who)
                gone = [token for token, person in self.tokens.items() if person == int(body["person_id"])]
                for token in gone:  # 0.19 ends every session of who is banned, and their addresses with them
                    del self.tokens[token]
            case ("POST", "/admin/ban") if self.new:
                self._ban(int(body["person_id"]), body["remove_or_restore_data"], who)
            case _:
                raise Refusal(404, "")
        return {"success": True}

    def _one(self, rows: dict[int, Json], number: int) -> Json:
        if number not in rows:
            raise Refusal(404, "not_found")
        return rows[number]

    def _forget(self, kind: str, rows: dict[int, Json], number: int) -> None:
        self._one(rows, number)
        del rows[number]
        for report in [row["id"] for row in self.reports.values() if (row["kind"], row["of"]) == (kind, number)]:
            del self.reports[report]

    def _ban(self, number: int, data: bool, who: int) -> None:
        if number in self.admins and number <= who:
            raise Refusal(400, "not_higher_admin")
        self._one(self.persons, number)["banned"] = True
        if data:
            for row in (*self.posts.values(), *self.comments.values()):
                row["removed"] |= row["creator_id"] == number


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
    lemmy.add_post(401, ALICE, url=lemmy.address(ALIAS))
    lemmy.add_post(403, ALICE, body=f"hi ![]({lemmy.address(ALIAS)})")
    lemmy.add_post(404, BOB, body="nothing")
    lemmy.add_comment(501, BOB, f"![]({lemmy.address(ALIAS)})")
    lemmy.images = [(ALIAS, ALICE, None), (OTHER, ALICE, None), (PREVIEW, BOB if version == "1.0" else None, 404)]
    lemmy.reports = {
        901: {"id": 901, "kind": "post", "of": 401, "resolved": False},
        902: {"id": 902, "kind": "comment", "of": 501, "resolved": False},
        903: {"id": 903, "kind": "post", "of": 404, "resolved": False},
    }
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


def _handler(lemmy: FakeLemmy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            parts = urlsplit(self.path)
            lemmy.calls.append(f"{self.command} {parts.path}")
            if lemmy.down:
                return self._reply(502, {})
            if lemmy.limited:
                lemmy.limited -= 1
                return self._reply(429 if lemmy.new else 400, {"error": "too_many_requests" if lemmy.new else "rate_limit_error"})
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            try:
                answer = lemmy.answer(self.command, parts.path, dict(parse_qsl(parts.query)), body, lemmy.tokens.get(token))
            except Refusal as refusal:
                return self._reply(refusal.status, {"error": refusal.error} if refusal.error else {})
            return self._reply(200, answer)

        def _reply(self, status: int, content: Json) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _serve

        def log_message(self, format: str, *arguments: object) -> None:
            """Tests say nothing."""

    return Handler
