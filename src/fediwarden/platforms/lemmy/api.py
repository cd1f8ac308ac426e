"""Lemmy's HTTP API, of 0.19 (`/api/v3`) and 1.0 (`/api/v4`): asking, and the few calls that act; decides nothing and records nothing.

An account's token is a password: it goes to the configured server only, into no message and no log, and redirects are not
followed. Lemmy takes a wrong token for an anonymous caller, so who the token belongs to is asked before anything else.

Lemmy limits how often it may be asked, for each address that asks: searches 60 times in ten minutes unless its administrator
says otherwise, everything else 180 times in a minute. It tells both numbers, so that requests are spread before it refuses any.
"""

import base64
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from json import loads
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fediwarden.errors import Refused, Unreached
from fediwarden.platforms.lemmy.pace import RequestPace

if TYPE_CHECKING:
    import httpx2

Json = dict[str, Any]

PAGE = 50  # the most that Lemmy gives at once
TRIES = 6
PATIENCE = 660.0  # seconds that one question waits for the rate limit in all: Lemmy's longest, 600 for searches, and some
SHARES = (0.0, 0.125, 0.125, 0.25, 0.5)  # of a limit's span, waited one after the other where Lemmy does not say how long
RATE_LIMITED = ("rate_limit_error", "too_many_requests")
UNKNOWN_TOKEN = "Lemmy does not know this token"  # noqa: S105 - words, not a token
NEW_TOKEN = "log in anew and put the new `jwt` into the credentials file; a logout, a ban and a new password end it"  # noqa: S105
AGAIN = "Lemmy gives the same page again and again"
BETWEEN = "write Lemmy's own address as [lemmy] api: a proxy or cache in between answers for it"
RIGHTS = ("not_an_admin", "not_a_mod_or_admin", "not_higher_admin", "not_higher_mod")
HIDES = {  # settings of an account, what they hide from its searches, and the value with which they hide nothing
    "show_nsfw": ("NSFW posts", True),
    "show_bot_accounts": ("what bots post", True),
    "show_read_posts": ("posts that it has read", True),
    "hide_posts_with_media": ("posts with media", False),
}
BLOCKS = {
    "person_blocks": "persons",
    "community_blocks": "communities",
    "instance_blocks": "servers",
    "instance_communities_blocks": "servers' communities",
    "instance_persons_blocks": "servers' persons",
}


class NotThere(Refused):
    """Lemmy knows no such post, comment, person or report (any more)."""


class Limited(Unreached):
    """Lemmy's rate limit is reached, and longer than a question waits."""


class Cut(Unreached):
    """Lemmy told the beginning of a list and has no way to tell the rest."""


@dataclass(frozen=True, slots=True)
class Token:
    """An account's login."""

    jwt: str = field(repr=False)

    @property
    def ends(self) -> datetime | None:
        """When it ends, as it says itself; None where it does not say, or says that it never does.

        Nothing is verified: only its server can tell whether it still holds. Lemmy 0.19 gives tokens without an end, 1.0 such as
        end after a week, unless the login said `stay_logged_in` (then the year is beyond what a calendar holds).
        """
        try:
            middle = self.jwt.split(".")[1]
            claims = loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
            return datetime.fromtimestamp(float(claims["exp"]), UTC)
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError):
            return None


@dataclass(frozen=True, slots=True)
class UserReport:
    """A report that nobody has resolved."""

    id: int
    kind: str  # "post", "comment", "private_message"
    of: int  # the number of what was reported


@dataclass(frozen=True, slots=True)
class Account:
    """Whose token it is."""

    person: int
    name: str
    admin: bool
    hides: tuple[str, ...] = ()  # what its own settings hide from its searches, in words


class Api:
    """One Lemmy server's API. Any thread may call anything; nothing is asked before the first call."""

    def __init__(
        self,
        url: str,
        token: Token | None,
        timeout: float,
        *,
        stop: Event | None = None,
        pause: float = 1.0,
        jitter: Callable[[], float] = random.random,
        tell: Callable[[float], None] = lambda _: None,
        wait: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            url: where the API is called, such as http://127.0.0.1:8536.
            timeout: seconds for one answer.
            stop: once it is set, nothing is waited for any more.
            pause: the first pause in seconds after an answer that the rate limit is reached.
            tell: hears how many seconds are waited for the rate limit, before they are.
            wait: waits so many seconds; by default until then or until `stop` is set.
            clock: seconds that only grow.
        """
        self._url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._stop = stop or Event()
        self._pause = pause
        self._jitter = jitter
        self._tell = tell
        self._wait = wait or self._stop.wait
        self._clock = clock
        self._paces: dict[str, RequestPace] = {}
        self._waited = 0.0

    def __repr__(self) -> str:
        return f"Api({self._url!r})"

    @cached_property
    def _client(self) -> "httpx2.Client":
        import httpx2

        headers = {"User-Agent": "fediwarden", "Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.jwt}"
        return httpx2.Client(
            base_url=self._url,
            headers=headers,
            timeout=self._timeout,
            follow_redirects=False,
            trust_env=False,
            verify=urlsplit(self._url).scheme != "http",  # reading the authorities takes longer than an answer from this machine
        )

    def close(self) -> None:
        """Give back connections; may be called twice."""
        if "_client" in self.__dict__:
            self._client.close()

    def _unknown(self) -> Refused:
        ends = self.token_ends
        return Refused(UNKNOWN_TOKEN + (f", which says that it ends {ends:%Y-%m-%d %H:%M} UTC" if ends else ""), hint=NEW_TOKEN)

    # -- asking -------------------------------------------------------------------------------------------------------

    @cached_property
    def _site(self) -> tuple[str, Json]:
        try:
            answer = self._call("GET", "/api/v4/site")
        except Refused:
            answer = {}
        if "site_view" in answer:
            return "1.0", answer
        answer = self._call("GET", "/api/v3/site")
        if not str(answer.get("version", "")).startswith("0.19"):
            raise Refused(f"Lemmy {str(answer.get('version'))[:20]!r} is neither 0.19 nor 1.0", hint="check [lemmy] api")
        return "0.19", answer

    @cached_property
    def base(self) -> str:
        """Its own address as it writes it itself, such as "https://lemmy.example". Raises: Unreached, Refused."""
        site = (self._site[1].get("site_view") or {}).get("site") or {}
        parts = urlsplit(str(site.get("ap_id") or site.get("actor_id") or self._url))
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def about(self) -> Json:
        """What Lemmy said of itself when it was first asked: "site_view", in 0.19 "taglines" and "custom_emojis" too.

        Raises: Unreached, Refused.
        """
        return self._site[1]

    @property
    def version(self) -> str:
        """ "0.19" or "1.0", asked once. Raises: Unreached, Refused."""
        return self._site[0]

    @property
    def token_ends(self) -> datetime | None:
        """When the token says that it ends; see `Token.ends`. Asks nothing."""
        return self._token.ends if self._token else None

    @property
    def _new(self) -> bool:
        return self.version == "1.0"

    @cached_property
    def account(self) -> Account:
        """Whose token it is, asked once. Raises: Unreached, Refused (also where Lemmy does not know the token)."""
        mine = (self._get("/account") if self._new else self._site[1].get("my_user")) or {}
        view = mine.get("local_user_view")
        if not view:
            raise self._unknown()
        local = view["local_user"]
        hides = [f"{what} ({name})" for name, (what, shown) in HIDES.items() if bool(local.get(name, shown)) is not shown]
        if self._new:  # whose search of posts can be told to show them
            hides = [what.replace("NSFW posts", "comments under NSFW posts") for what in hides]
        hides += [f"blocked {what}" for name, what in BLOCKS.items() if mine.get(name)]
        read = {number for number in mine.get("discussion_languages", ()) if isinstance(number, int)}
        known = {language.get("id") for language in self._site[1].get("all_languages", ())}
        if read and not known <= read:  # 0.19 tells none where it is all
            hides.append("languages that it does not read")
        return Account(int(view["person"]["id"]), str(view["person"]["name"]), bool(local.get("admin")), tuple(hides))

    def need_admin(self) -> Account:
        """Whose token it is, if they are an administrator. Raises: Unreached, Refused."""
        account = self.account
        if not account.admin:
            raise Refused(f"{account.name[:80]} is no administrator of this Lemmy", hint="use the token of an administrator")
        return account

    def admins(self) -> list[Json]:
        """The persons who administer the server. Raises: Unreached, Refused."""
        return [view["person"] for view in self._site[1].get("admins", ())]

    def images(self) -> Iterator[Json]:
        """Every picture that Lemmy took in, newest first in 0.19: "local_image" and "person".

        1.0.0-beta.1 tells one page in no order and answers an error to the question for the next.
        Raises: Unreached, Refused; Cut after the last one that is told, where there are more.
        """
        if not self._new:
            for found in self._pages("/admin/list_all_media", ("images",)):
                yield from found["images"]
            return
        told = 0
        try:
            for image in self._cursor("/image/list", {}):
                told += 1
                yield image
        except NotThere as error:
            if not told:
                raise
            raise Cut(f"Lemmy told {told:,} of its pictures, and an error instead of the next page") from error

    def showing(self, address: str, creator: int | None = None) -> Iterator[Json]:
        """Posts whose address equals this one, letter by letter; their views.

        With the creator's number an administrator of 0.19 is told those that were removed, read or hidden too.
        Raises: Unreached, Refused.
        """
        by = {} if creator is None else {"creator_id": str(creator)}
        if self._new:
            wanted = {"search_term": address, "type_": "posts", "post_url_only": "true", "show_nsfw": "true"}
            yield from (view for _, view in self._found({**wanted, **by}))
            return
        for rows in self._pages("/search", ("posts",), q=address, type_="Url", listing_type="All", sort="New", **by):
            yield from rows["posts"]

    def search(self, words: str) -> Iterator[tuple[str, Json]]:
        """What has these words in a text: "post", "comment", in 1.0 "person" and "community" too, and its view.

        An address is not among the texts (see `showing`), nor is a preview's. Raises: Unreached, Refused.
        """
        if self._new:
            yield from self._found({"search_term": words, "show_nsfw": "true"})
            return
        for rows in self._pages("/search", ("posts", "comments"), q=words, type_="All", listing_type="All", sort="New"):
            yield from (("post", view) for view in rows["posts"])
            yield from (("comment", view) for view in rows["comments"])

    def written_by(self, person: int) -> Iterator[tuple[str, Json]]:
        """An account's posts and comments, newest first, what was removed among them: "post" or "comment", and its view.

        Raises: Unreached, Refused.
        """
        if self._new:
            for view in self._cursor("/person/content", {"person_id": str(person)}):
                kind = "comment" if "comment" in view else "post"
                yield kind, view
            return
        for rows in self._pages("/user", ("posts", "comments"), person_id=str(person), sort="New"):
            yield from (("post", view) for view in rows["posts"])
            yield from (("comment", view) for view in rows["comments"])

    def post_view(self, number: int) -> Json:
        """One post with its creator and community. Raises: Unreached, Refused, NotThere."""
        view = self._get("/post", id=number).get("post_view")
        if not isinstance(view, dict):
            raise Unreached("Lemmy answers, but without `post_view`", hint=BETWEEN)
        return view

    def reports(self) -> Iterator[UserReport]:
        """Reports that nobody has resolved. Raises: Unreached, Refused."""
        if self._new:
            views = self._cursor("/report/list", {"unresolved_only": "true", "show_community_rule_violations": "true"})
            for view in views:
                for kind in ("post", "comment", "private_message"):
                    if f"{kind}_report" in view:
                        yield _report(kind, view)
            return
        for kind in ("post", "comment", "private_message"):
            for found in self._pages(f"/{kind}/report/list", (f"{kind}_reports",), unresolved_only="true"):
                yield from (_report(kind, view) for view in found[f"{kind}_reports"])

    # -- what is there now, to be sealed before and read back after ----------------------------------------------------

    def site(self) -> Json:
        """The site as it is now: "site_view"; in 0.19 also "taglines" and "custom_emojis". Raises: Unreached, Refused."""
        return self._get("/site")

    def taglines(self) -> list[Json]:
        """Every tagline: "id", "content". Raises: Unreached, Refused."""
        return list(self._cursor("/admin/tagline/list", {})) if self._new else _list(self.site(), "taglines")

    def emoji(self) -> list[Json]:
        """Every custom emoji: "id", "shortcode", "image_url". Raises: Unreached, Refused."""
        found = self._get("/custom_emoji/list") if self._new else self.site()
        return [view["custom_emoji"] for view in _list(found, "custom_emojis")]

    def post(self, number: int) -> Json:
        """A post's row. Raises: Unreached, Refused, NotThere."""
        return _row(self._get("/post", id=number), "post_view", "post")

    def comment(self, number: int) -> Json:
        """A comment's row. Raises: Unreached, Refused, NotThere."""
        return _row(self._get("/comment", id=number), "comment_view", "comment")

    def community(self, number: int) -> Json:
        """A community's row. Raises: Unreached, Refused, NotThere."""
        return _row(self._get("/community", id=number), "community_view", "community")

    def person(self, number: int) -> Json:
        """An account's row, "banned" in both versions, and what it moderates. Raises: Unreached, Refused, NotThere."""
        answer = self._get("/person" if self._new else "/user", person_id=number)
        row = _row(answer, "person_view", "person")
        banned = answer["person_view"].get("banned") if self._new else row.get("banned")
        return {**row, "banned": bool(banned), "moderates": answer.get("moderates", [])}

    def comments(self, post: int) -> Iterator[Json]:
        """The rows of a post's comments, which go when it is purged. Raises: Unreached, Refused."""
        query = {"post_id": str(post), "type_": "all" if self._new else "All"}
        if self._new:
            yield from (view["comment"] for view in self._cursor("/comment/list", query))
            return
        for found in self._pages("/comment/list", ("comments",), **query):
            yield from (view["comment"] for view in found["comments"])

    # -- acting -------------------------------------------------------------------------------------------------------

    def remove(self, kind: str, number: int, reason: str) -> None:
        """Take a post or comment ("post", "comment") out of sight; it can be brought back. Raises: Unreached, Refused, NotThere."""
        self._post(f"/{kind}/remove", {f"{kind}_id": number, "removed": True, "reason": reason})

    def purge(self, kind: str, number: int, reason: str) -> None:
        """Delete a post or comment for good; of a post also what lies in pict-rs under the last part of its address and preview.

        Raises: Unreached, Refused, NotThere.
        """
        self._post(f"/admin/purge/{kind}", {f"{kind}_id": number, "reason": reason})

    def ban(self, person: int, reason: str, *, data: bool = False) -> None:
        """Ban an account from the server. With `data` Lemmy removes what it posted and deletes every upload of it.

        Raises: Unreached, Refused, NotThere.
        """
        path = "/admin/ban" if self._new else "/user/ban"
        remove = "remove_or_restore_data" if self._new else "remove_data"
        self._post(path, {"person_id": person, "ban": True, remove: data, "reason": reason})

    def resolve(self, report: UserReport) -> None:
        """Mark a report as dealt with. Raises: Unreached, Refused, NotThere."""
        self._post(f"/{report.kind}/report/resolve", {"report_id": report.id, "resolved": True}, method="PUT")

    def message(self, person: int, text: str) -> None:
        """Send a private message. Raises: Unreached, Refused, NotThere."""
        self._post("/private_message", {"content": text, "recipient_id": person})

    def clear_picture(self, kind: str, number: int, field: str) -> None:
        """Take away the "icon" or "banner" of the "site" or of a "community"; Lemmy has pict-rs delete its alias.

        Raises: Unreached, Refused, NotThere; Refused too for the banner of a community in 1.0, whose call takes the icon.
        """
        if self._new:
            if (kind, field) == ("community", "banner"):
                raise Refused("Lemmy 1.0 takes away the icon when asked for the banner of a community")
            self._post(f"/{kind}/{field}", {"id": number} if kind == "community" else {}, method="DELETE")
        else:
            self.edit(kind, number, {field: ""})

    def edit(self, kind: str, number: int, changes: Mapping[str, object]) -> None:
        """Change what is named of the "site" or of a "community", and nothing else; "" empties. Raises: Unreached, Refused, NotThere."""
        self._post(f"/{kind}", {"community_id": number, **changes} if kind == "community" else changes, method="PUT")

    def delete_tagline(self, number: int, content: str) -> None:
        """Take a tagline away. 0.19 knows only the whole list, so that the others are written anew. Raises: Unreached, Refused, NotThere."""
        if self._new:
            self._post("/admin/tagline", {"id": number}, method="DELETE")
        else:
            self.edit("site", 0, {"taglines": [row["content"] for row in self.taglines() if row["content"] != content]})

    def delete_emoji(self, number: int) -> None:
        """Delete a custom emoji; its picture stays in pict-rs. Raises: Unreached, Refused, NotThere."""
        if self._new:
            self._post("/custom_emoji", {"id": number}, method="DELETE")
        else:
            self._post("/custom_emoji/delete", {"id": number})

    def delete_image(self, alias: str) -> None:
        """Have pict-rs purge a picture under all its aliases, and forget who uploaded it (1.0).

        Raises: Unreached, Refused (also for 0.19, and where pict-rs has it no more), NotThere.
        """
        if not self._new:
            raise Refused("Lemmy 0.19 has no call that deletes a picture")
        self._post("/image", {"filename": alias}, method="DELETE")

    # -- one request --------------------------------------------------------------------------------------------------

    def _pages(self, path: str, names: tuple[str, ...], **query: str) -> Iterator[Mapping[str, list[Json]]]:
        """The lists of these names, page by page (0.19). Raises: Unreached where the walk does not come to an end."""
        page, before = 1, None
        while True:
            answer = self._get(path, **query, page=page, limit=PAGE)
            found = {name: _list(answer, name) for name in names}
            if found == before:
                raise Unreached(AGAIN, hint=BETWEEN)
            yield found
            if max(len(rows) for rows in found.values()) < PAGE:
                return
            page, before = page + 1, found

    def _cursor(self, path: str, query: Mapping[str, str]) -> Iterator[Json]:
        """The items of a list of 1.0, page by page. Raises: Unreached where the walk does not come to an end."""
        for answer in self._walk(path, query):
            yield from _list(answer, "items")

    def _found(self, query: Mapping[str, str]) -> Iterator[tuple[str, Json]]:
        """What 1.0's search tells, page by page. Raises: Unreached where the walk does not come to an end."""
        kinds = {"posts": "post", "comments": "comment", "persons": "person", "communities": "community"}
        for answer in self._walk("/search", query):
            for name, kind in kinds.items():
                yield from ((kind, view) for view in _list(answer, name))

    def _walk(self, path: str, query: Mapping[str, str]) -> Iterator[Json]:
        cursor = ""
        seen: set[str] = set()
        while True:
            answer = self._get(path, **query, limit=PAGE, **({"page_cursor": cursor} if cursor else {}))
            yield answer
            cursor = str(answer.get("next_page") or "")
            if not cursor.replace("none", "").strip(","):  # a search of everything has a cursor for each kind: "none,none,..."
                return
            if cursor in seen:
                raise Unreached(AGAIN, hint=BETWEEN)
            seen.add(cursor)

    def _get(self, path: str, **query: str | int) -> Json:
        return self._call("GET", f"/api/{'v4' if self._new else 'v3'}{path}", query=query)

    def _post(self, path: str, body: Mapping[str, object], method: str = "POST") -> None:
        with self.one_question():
            self._call(method, f"/api/{'v4' if self._new else 'v3'}{path}", body=body)

    def _call(
        self, method: str, path: str, *, query: Mapping[str, str | int] | None = None, body: Mapping[str, object] | None = None
    ) -> Json:
        import httpx2

        buckets = ("search", "message") if path.endswith("/search") else ("message",)
        for number in range(TRIES):
            if not self._rest(
                max((self._paces[name].due(self._clock()) for name in buckets if name in self._paces), default=0.0)
            ):
                break
            try:
                answer = self._client.request(method, path, params=query, json=body)
            except httpx2.HTTPError as error:
                raise Unreached(f"Lemmy gave no answer ({type(error).__name__})", hint="check [lemmy] url and api") from error
            content = _json(answer)
            told = str(content.get("error", ""))[:80]
            if answer.status_code != 429 and told not in RATE_LIMITED:
                self._note(path, buckets, answer, content)
                if answer.status_code == 401:
                    raise self._unknown()
                return _checked(answer.status_code, content, told, f"{method} {path}")
            if number + 1 == TRIES or not self._rest(self._advised(answer, buckets[0], number)):
                break
        raise Limited(
            f"Lemmy's rate limit is reached (waited {self._waited:.0f} s)",
            hint="run the same command again in some minutes; what was done is recorded",
        )

    # -- the rate limit -----------------------------------------------------------------------------------------------

    @contextmanager
    def one_question(self) -> Iterator[None]:
        """What is asked in here waits `PATIENCE` seconds for the rate limit in all, and not those that were waited before."""
        self._waited = 0.0
        yield

    def _rest(self, seconds: float) -> bool:
        """Wait so long, if that is not too long; whether it was waited."""
        if seconds <= 0:
            return True
        if self._stop.is_set() or self._waited + seconds > PATIENCE:
            return False
        self._tell(seconds)
        self._waited += seconds
        self._wait(seconds)
        return not self._stop.is_set()

    def _note(self, path: str, buckets: tuple[str, ...], answer: "httpx2.Response", content: Json) -> None:
        """Count a request that was let through; from the first answer about the site on it is known how many may be."""
        now = self._clock()
        told = (content.get("site_view") or {}).get("local_site_rate_limit") if path.endswith("/site") else None
        if told and not self._paces:
            for name in ("search", "message"):
                most = told.get(f"{name}_max_requests") or told.get(name)
                seconds = told.get(f"{name}_interval_seconds") or told.get(f"{name}_per_second")
                if most and seconds:
                    self._paces[name] = RequestPace(int(most), float(seconds), bit_by_bit=f"{name}_per_second" in told)
        for name in buckets:
            if name in self._paces:
                self._paces[name].took(now)
        if answer.headers.get("x-ratelimit-remaining") == "0" and "message" in self._paces:
            self._paces["message"].emptied(now, _seconds(answer, "x-ratelimit-reset"))

    def _advised(self, answer: "httpx2.Response", bucket: str, number: int) -> float:
        """How long to wait now that Lemmy has refused for its rate limit: as it says, or else as its limits are made."""
        said = _seconds(answer, "Retry-After")
        pace = self._paces.get(bucket)
        if said is not None:
            return said + self._jitter()
        if pace is None:
            return self._pause * 2.0**number * (0.5 + self._jitter() / 2)
        wait: float = max(self._pause, pace.seconds / pace.most if pace.bit_by_bit else pace.seconds * SHARES[number])
        return wait * (1 + self._jitter() / 20)


def _seconds(answer: "httpx2.Response", name: str) -> float | None:
    try:
        return max(0.0, float(answer.headers[name]))
    except (KeyError, ValueError):
        return None


def _json(answer: "httpx2.Response") -> Json:
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _list(answer: Json, name: str) -> list[Json]:
    rows = answer.get(name)
    if not isinstance(rows, list):
        raise Unreached(f"Lemmy answers, but without `{name}`", hint=BETWEEN)
    return rows


def _row(answer: Json, view: str, name: str) -> Json:
    row = (answer.get(view) or {}).get(name)
    if not isinstance(row, dict):
        raise Unreached(f"Lemmy answers, but without `{name}`", hint=BETWEEN)
    return row


def _checked(status: int, content: Json, told: str, call: str) -> Json:
    """The answer, if it is one. What is not there, what may not be done and who is not known are told apart by Lemmy's own word."""
    said = f"Lemmy answered {status}{f' ({told})' if told else ''}"
    if 200 <= status < 300:
        return content
    if status >= 500:
        raise Unreached(said)
    if status == 404 and not told:
        raise Refused(f"{said}: it has no {call}", hint=BETWEEN)
    if status == 404 or told.startswith("couldnt_find_") or told.lower() in ("not_found", "notfound"):
        raise NotThere(said)
    if told in RIGHTS or status == 403:
        raise Refused(
            said, hint="does the token belong to an administrator, and to one of longer standing than whom it concerns?"
        )
    if told.startswith("couldnt_update"):
        raise Refused(f"{said}: it cannot be changed any more", hint="its author may have deleted it already")
    raise Refused(said)


def _report(kind: str, view: Json) -> UserReport:
    return UserReport(int(view[f"{kind}_report"]["id"]), kind, int(view[kind]["id"]))
