"""Lemmy's HTTP API, of 0.19 (`/api/v3`) and 1.0 (`/api/v4`): asking, and the few calls that act; decides nothing and records nothing.

An account's token is a password: it goes to the configured server only, into no message and no log, and redirects are not
followed. Lemmy takes a wrong token for an anonymous caller, so who the token belongs to is asked before anything else.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from threading import Event
from typing import TYPE_CHECKING, Any

from fediwarden.errors import Refused, Unreached

if TYPE_CHECKING:
    import httpx2

Json = dict[str, Any]

PAGE = 50  # the most that Lemmy gives at once
TRIES = 6
RATE_LIMITED = ("rate_limit_error", "too_many_requests")
UNKNOWN_TOKEN = "Lemmy does not know this token"  # noqa: S105 - words, not a token
NEW_TOKEN = "log in anew and put the new `jwt` into the credentials file"  # noqa: S105
AGAIN = "Lemmy gives the same page again and again"
BETWEEN = "write Lemmy's own address as [lemmy] api: a proxy or cache in between answers for it"
NOT_FOUND = ("not_found", "couldnt_find_post", "couldnt_find_comment", "couldnt_find_person", "NotFound")


class NotThere(Refused):
    """Lemmy knows no such post, comment or person (any more)."""


@dataclass(frozen=True, slots=True)
class Token:
    """An account's login."""

    jwt: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Report:
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
    ) -> None:
        """
        Args:
            url: where the API is called, such as http://127.0.0.1:8536.
            timeout: seconds for one answer.
            pause: the first pause in seconds after an answer that the rate limit is reached; each next one is twice as long.
        """
        self._url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._stop = stop or Event()
        self._pause = pause
        self._jitter = jitter

    def __repr__(self) -> str:
        return f"Api({self._url!r})"

    @cached_property
    def _client(self) -> "httpx2.Client":
        import httpx2

        headers = {"User-Agent": "fediwarden", "Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.jwt}"
        return httpx2.Client(base_url=self._url, headers=headers, timeout=self._timeout, follow_redirects=False, trust_env=False)

    def close(self) -> None:
        """Give back connections; may be called twice."""
        if "_client" in self.__dict__:
            self._client.close()

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

    @property
    def version(self) -> str:
        """ "0.19" or "1.0", asked once. Raises: Unreached, Refused."""
        return self._site[0]

    @property
    def _new(self) -> bool:
        return self.version == "1.0"

    @cached_property
    def account(self) -> Account:
        """Whose token it is, asked once. Raises: Unreached, Refused (also where Lemmy does not know the token)."""
        mine = self._get("/account") if self._new else self._site[1].get("my_user")
        view = (mine or {}).get("local_user_view")
        if not view:
            raise Refused(UNKNOWN_TOKEN, hint=NEW_TOKEN)
        return Account(int(view["person"]["id"]), str(view["person"]["name"]), bool(view["local_user"].get("admin")))

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
        """Every picture that Lemmy took in, newest first: "local_image" and "person". Raises: Unreached, Refused."""
        if self._new:
            yield from self._cursor("/image/list", {})
            return
        for found in self._pages("/admin/list_all_media", ("images",)):
            yield from found["images"]

    def search(self, words: str) -> Iterator[tuple[str, Json]]:
        """Posts and comments with these words: "post" or "comment", and its view. Raises: Unreached, Refused."""
        if self._new:
            for found in self._cursor("/search", {"q": words, "search_term": words}):
                if found.get("type_") in ("post", "comment"):
                    yield found["type_"], found
            return
        for kind in ("All", "Url"):
            for rows in self._pages("/search", ("posts", "comments"), q=words, type_=kind, listing_type="All"):
                yield from (("post", view) for view in rows["posts"])
                yield from (("comment", view) for view in rows["comments"])

    def reports(self) -> Iterator[Report]:
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

    # -- acting -------------------------------------------------------------------------------------------------------

    def remove(self, kind: str, number: int, reason: str) -> None:
        """Take a post or comment ("post", "comment") out of sight; it can be brought back. Raises: Unreached, Refused."""
        self._post(f"/{kind}/remove", {f"{kind}_id": number, "removed": True, "reason": reason})

    def purge(self, kind: str, number: int, reason: str) -> None:
        """Delete a post or comment for good. Raises: Unreached, Refused, NotThere."""
        self._post(f"/admin/purge/{kind}", {f"{kind}_id": number, "reason": reason})

    def ban(self, person: int, reason: str) -> None:
        """Ban an account from the server; what it posted is left. Raises: Unreached, Refused, NotThere."""
        path = "/admin/ban" if self._new else "/user/ban"
        keep = "remove_or_restore_data" if self._new else "remove_data"
        self._post(path, {"person_id": person, "ban": True, keep: False, "reason": reason})

    def resolve(self, report: Report) -> None:
        """Mark a report as dealt with. Raises: Unreached, Refused, NotThere."""
        self._post(f"/{report.kind}/report/resolve", {"report_id": report.id, "resolved": True}, method="PUT")

    def message(self, person: int, text: str) -> None:
        """Send a private message. Raises: Unreached, Refused, NotThere."""
        self._post("/private_message", {"content": text, "recipient_id": person})

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
        cursor = ""
        seen: set[str] = set()
        while True:
            answer = self._get(path, **query, limit=PAGE, **({"page_cursor": cursor} if cursor else {}))
            yield from _list(answer, "search" if "search" in answer else "items")
            cursor = str(answer.get("next_page") or "")
            if not cursor:
                return
            if cursor in seen:
                raise Unreached(AGAIN, hint=BETWEEN)
            seen.add(cursor)

    def _get(self, path: str, **query: str | int) -> Json:
        return self._call("GET", f"/api/{'v4' if self._new else 'v3'}{path}", query=query)

    def _post(self, path: str, body: Mapping[str, object], method: str = "POST") -> None:
        self._call(method, f"/api/{'v4' if self._new else 'v3'}{path}", body=body)

    def _call(
        self, method: str, path: str, *, query: Mapping[str, str | int] | None = None, body: Mapping[str, object] | None = None
    ) -> Json:
        import httpx2

        for number in range(TRIES):
            try:
                answer = self._client.request(method, path, params=query, json=body)
            except httpx2.HTTPError as error:
                raise Unreached(f"Lemmy gave no answer ({type(error).__name__})", hint="check [lemmy] url and api") from error
            content = _json(answer)
            told = str(content.get("error", ""))[:80]
            if answer.status_code != 429 and told not in RATE_LIMITED:
                return _checked(answer.status_code, content, told)
            if number + 1 == TRIES or self._stop.is_set():
                break
            self._stop.wait(_pause(answer, self._pause * 2**number) * (0.5 + self._jitter() / 2))
        raise Unreached(
            "Lemmy's rate limit is reached", hint="run the same command again in some minutes; what was done is recorded"
        )


def _pause(answer: "httpx2.Response", otherwise: float) -> float:
    try:
        return min(60.0, max(0.0, float(answer.headers["Retry-After"])))
    except (KeyError, ValueError):
        return min(60.0, otherwise)


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


def _checked(status: int, content: Json, told: str) -> Json:
    if 200 <= status < 300:
        return content
    if status >= 500:
        raise Unreached(f"Lemmy answered {status}{f' ({told})' if told else ''}")
    if status == 401:
        raise Refused(UNKNOWN_TOKEN, hint=NEW_TOKEN)
    if status == 404 or told in NOT_FOUND:
        raise NotThere(f"Lemmy answered {status}{f' ({told})' if told else ''}")
    raise Refused(f"Lemmy answered {status}{f' ({told})' if told else ''}", hint="does the token belong to an administrator?")


def _report(kind: str, view: Json) -> Report:
    return Report(int(view[f"{kind}_report"]["id"]), kind, int(view[kind]["id"]))
