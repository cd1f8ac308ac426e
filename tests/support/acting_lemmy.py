"""The Lemmy to test against, with what an administrator can change in it, and with a pict-rs behind it that it has delete pictures.

No recording holds these calls but for a removal, a purge, a ban and a deleted picture; the rest is written from Lemmy's public
source, 0.19.20 (crates/api, api_crud, api_common/src/request.rs) and 1.0.0-beta.1 (crates/routes/src/images/delete.rs,
api_utils/src/request.rs), and knows nothing of the program under test.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from tests.support.fake_lemmy import (
    ADMIN,
    ADMIN_JWT,
    ALIAS,
    ALICE,
    ALICE_JWT,
    BOB,
    PICS,
    SECOND,
    FakeLemmy,
    Json,
    Refusal,
    serving,
)
from tests.support.fake_pictrs import FakePictrs

LOCAL_SITE = ("legal_information", "application_question")


@dataclass
class ActingLemmy(FakeLemmy):
    """See the module."""

    pictrs: FakePictrs = field(default_factory=FakePictrs)
    site: Json = field(default_factory=dict)  # "icon", "banner", "sidebar", "legal_information", ...
    looks: dict[int, Json] = field(default_factory=dict)  # of a community: "icon", "banner", "description" ...
    taglines: list[str] = field(default_factory=list)
    emoji: dict[int, str] = field(default_factory=dict)  # number and address of the picture
    elsewhere: set[str] = field(default_factory=set)  # addresses of other servers that answer with a picture
    fetched: list[str] = field(default_factory=list)  # what Lemmy asked over the public web before a purge
    stale: set[str] = field(default_factory=set)  # aliases whose delete token Lemmy 0.19 does not know (any more)
    listless: bool = False  # the list of uploads breaks off
    keeps: float = 1.0  # seconds for which `GET /site` is answered from a cache, whatever is changed: CACHE_DURATION_API
    _kept: tuple[float, Json] | None = None  # when it was filled, and with what

    def answer(self, method: str, path: str, query: Json, body: Json, who: int | None) -> Json:
        """What one request gets. Raises: Refusal."""
        rest = path.removeprefix("/api/v4" if self.new else "/api/v3")
        if method == "GET":
            return self._read(rest, query, super().answer(method, path, query, body, who) if self._theirs(rest) else {}, who)
        me = self._known(who)
        match method, rest:
            case ("PUT", "/site"):
                self._admin(me)
                self.taglines = list(body.pop("taglines", self.taglines))
                self._edit(self.site, body, old=("icon", "banner"))
                return {"site_view": {}}
            case ("PUT", "/community"):
                self._edit(self.looks.setdefault(int(body.pop("community_id")), {}), body, old=("icon", "banner"))
                return {"community_view": {}}
            case ("DELETE", "/site/icon" | "/site/banner") if self.new:
                self._admin(me)
                self._clear(self.site, rest.rpartition("/")[2])
            case ("DELETE", "/community/icon" | "/community/banner") if self.new:
                self._clear(
                    self.looks.setdefault(int(body["id"]), {}), "icon"
                )  # both take the icon: crates/routes/src/images/delete.rs
            case ("POST", "/custom_emoji/delete") | ("DELETE", "/custom_emoji") if self.new == (method == "DELETE"):
                self._admin(me)
                self.emoji.pop(int(body["id"]), None)
            case ("DELETE", "/admin/tagline") if self.new:
                self._admin(me)
                del self.taglines[int(body["id"]) - 1]
            case ("DELETE", "/image") if self.new:
                self._admin(me)
                if self.pictrs.row(str(body["filename"])) is None:
                    raise Refusal(400, "unknown", "HTTP status client error (400 Bad Request)")
                self._purge(str(body["filename"]))
            case ("POST", "/admin/purge/post"):
                self._admin(me)
                row = self._one_post(int(body["post_id"]))
                for name in ("url", "thumbnail_url"):
                    if row.get(name):
                        self._purge_address(row[name])
                return super().answer(method, path, query, body, who)
            case ("POST", "/user/ban" | "/admin/ban"):
                told = super().answer(method, path, query, body, who)
                if body.get("remove_data") or body.get("remove_or_restore_data"):
                    self._forget_person(int(body["person_id"]))
                return told
            case _:
                return super().answer(method, path, query, body, who)
        return {"success": True}

    def _theirs(self, rest: str) -> bool:
        return rest not in ("/community", "/custom_emoji/list", "/admin/tagline/list")

    def _read(self, rest: str, query: Json, told: Json, who: int | None) -> Json:
        match rest:
            case "/site":
                if self._kept is None or self.clock() >= self._kept[0] + self.keeps:
                    self._kept = (
                        self.clock(),
                        {"site": dict(self.site), "taglines": self._taglines(), "custom_emojis": self._emoji()},
                    )
                kept = self._kept[1]
                view = told["site_view"]
                view["site"] |= {name: text for name, text in kept["site"].items() if name not in LOCAL_SITE}
                view["local_site"] |= {name: text for name, text in kept["site"].items() if name in LOCAL_SITE}
                if not self.new:
                    told["taglines"] = kept["taglines"]
                    told["custom_emojis"] = kept["custom_emojis"]
            case "/community":
                number = int(query["id"])
                if number not in self.communities:
                    raise Refusal(404, "not_found") if self.new else Refusal(400, "couldnt_find_community")
                row = self._community(self.communities[number]) | self.looks.get(number, {})
                return {"community_view": {"community": row}}
            case "/custom_emoji/list" if self.new:
                return {"custom_emojis": self._emoji()}
            case "/admin/tagline/list" if self.new:
                return {"items": self._taglines()}
            case "/admin/list_all_media" | "/image/list" if self.listless:
                raise Refusal(404, "not_found", 'syntax error at or near ")"')
        return told

    def _taglines(self) -> list[Json]:
        return [{"id": number, "content": text} for number, text in enumerate(self.taglines, 1)]

    def _emoji(self) -> list[Json]:
        rows = [{"id": number, "shortcode": f"e{number}", "image_url": address} for number, address in self.emoji.items()]
        return [{"custom_emoji": row, "keywords": []} for row in rows]

    def _edit(self, row: Json, body: Json, *, old: tuple[str, ...]) -> None:
        for name, text in body.items():
            if name in old and not self.new:
                self._clear(row, name)
            if text:
                row[name] = text
            else:
                row.pop(name, None)

    def _clear(self, row: Json, name: str) -> None:
        """Take a picture away: 0.19 forgets its row and ignores what pict-rs says, 1.0 goes no further where pict-rs says no."""
        alias = str(row.get(name, "")).rsplit("/", 1)[-1]
        if not alias:
            return
        if self.new and self.pictrs.row(alias) is None:
            raise Refusal(400, "unknown", "HTTP status client error (404 Not Found)")
        self._delete(alias)
        row.pop(name)

    def _delete(self, alias: str) -> None:
        """One alias goes, and the content with the last of them."""
        known = any(image[0] == alias for image in self.images)
        self.images = [image for image in self.images if image[0] != alias]
        if not self.new and (alias in self.stale or not known):
            return
        with self.pictrs.lock:
            row = self.pictrs.row(alias)
            if row is not None and len(row.aliases) == 1:
                self.pictrs.forget(alias)
            elif row is not None:
                del row.aliases[alias]

    def _purge_address(self, address: str) -> None:
        """As `purge_image_from_pictrs`: fetched first, and then whatever bears the last part of its path."""
        self.fetched.append(address)
        alias = unquote(urlsplit(address).path.rsplit("/", 1)[-1])
        if address in self.elsewhere or (urlsplit(address).hostname == urlsplit(self.base).hostname and self.pictrs.row(alias)):
            self._purge(alias)

    def _purge(self, alias: str) -> None:
        row = self.pictrs.row(alias)
        if row is None:
            return
        aliases = list(row.aliases)
        self.pictrs.forget(alias)
        if self.new:
            self.images = [image for image in self.images if image[0] not in aliases]

    def _forget_person(self, number: int) -> None:
        for name in ("avatar", "banner", "bio"):
            self.persons[number].pop(name, None)
        for alias in [image[0] for image in self.images if image[1] == number]:
            self._delete(alias)


@contextmanager
def acting_lemmy(version: str, pictrs: FakePictrs) -> Generator[ActingLemmy]:
    """Alice, her picture in a post, in a text and as an avatar; bob, who shows it in a comment; two administrators."""
    lemmy = ActingLemmy(version, pictrs=pictrs)
    lemmy.add_person(ALICE, "alice", avatar=lemmy.address(ALIAS))
    lemmy.add_person(BOB, "bob", domain="remote.example")
    lemmy.add_person(ADMIN, "dave", admin=True)
    lemmy.add_person(SECOND, "erin", admin=True)
    lemmy.tokens = {ADMIN_JWT: ADMIN, ALICE_JWT: ALICE}
    lemmy.add_community(PICS, "pics", moderators=[ADMIN])
    lemmy.add_post(401, ALICE, url=lemmy.address(ALIAS), url_content_type="image/jpeg")
    lemmy.add_post(403, ALICE, body=f"hi ![]({lemmy.address(ALIAS)})")
    lemmy.add_comment(501, BOB, f"![]({lemmy.address(ALIAS)})", post_id=403)
    lemmy.images = [(ALIAS, ALICE, None)]
    with serving(lemmy):
        yield lemmy
