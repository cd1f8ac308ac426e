"""A trace by Lemmy's API, for servers whose database may not be read; what the API does not tell stands in `Trace.limits`.

A picture is met on four roads: the list of uploads, posts whose address equals one of its own, texts that hold its name, and
everything its uploaders wrote. None of them finds everything, so that such a trace is never complete.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice
from urllib.parse import quote, urlsplit

from fediwarden.errors import Unreached
from fediwarden.platforms.lemmy.api import Api, Cut, Json, NotThere
from fediwarden.platforms.lemmy.image_urls import Matcher, canonical, matcher, own_alias, without_hyphens
from fediwarden.platforms.lemmy.model import Community, Copy, Person, Trace, Upload, Use, UseKind

MOST_IMAGES = 20_000  # pictures of Lemmy's list that are gone through, newest first
MOST_WRITTEN = 1000  # posts and comments of one account that are gone through, newest first
OTHERS = 1000
NOT_TO_THE_END = "not asked to the end"
LIMITS = (
    "sessions with their addresses, mail addresses and private messages are not told by the API",
    "other people's avatars and banners, icons of communities and multi-communities are not searched by the API",
    "copies and reasons of reports, applications, reasons in the mod log, notes, tags and Lemmy's own records of pictures are not searched by the API",
    "what its author deleted, and what the account itself hid, is in no search",
    "posts in deleted communities, and in hidden or unlisted ones that the account does not follow, are in no search",
    "an address with something behind it (`?format=webp`) is found in texts only, and not as the address of a post",
    "addresses written in unusual ways (without hyphens, in upper case, encoded) by others than its uploader are found in texts without"
    " hyphens or in upper case, and in no other way",
)
OLD_LIMITS = (
    "who made Lemmy fetch a preview is not told by the API",
    "nothing searches previews: a post that shows it as its preview alone is found only among what its uploader wrote",
    "what moderators removed is found only among what its uploader wrote",
    "biographies and sidebars are not searched by the API of 0.19",
)
NEW_LIMITS = (
    "nothing searches previews: a post that shows it as its preview alone is found only if Lemmy's list of pictures names the post",
    "taglines and emoji are not searched",
)
AT_ITS_ORIGIN = (
    "posts whose address is the remote one itself were not asked for: Lemmy 1.0 would fetch it from its origin for that"
)
POST_FIELDS = ("url", "thumbnail_url", "embed_video_url", "body", "name", "alt_text", "embed_title", "embed_description")
PROFILE_FIELDS = ("avatar", "banner", "bio", "display_name")
COMMUNITY_FIELDS = ("icon", "banner", "title", "description", "sidebar", "summary")
EMOJI_FIELDS = ("image_url", "shortcode", "alt_text", "category")


@dataclass(slots=True)
class _Found:
    """What a trace gathers on its roads; nothing twice."""

    asked: Matcher
    hosts: tuple[str, ...]  # this server's, with its port
    limits: list[str]
    uploads: list[Upload] = field(default_factory=list)
    others: list[Upload] = field(default_factory=list)
    persons: dict[int, Person] = field(default_factory=dict)
    communities: dict[int, Community] = field(default_factory=dict)
    uses: dict[tuple[UseKind, int, str], Use] = field(default_factory=dict)
    copies: dict[str, Copy] = field(default_factory=dict)
    chosen: set[str] = field(default_factory=set)  # aliases that somebody uploaded, as far as Lemmy's list was told
    failures: list[Unreached] = field(default_factory=list)

    def meet(self, kind: str, view: Json) -> None:
        """What a post, comment, person or community shows of it."""
        match kind:
            case "post" | "comment":
                for use in _uses(kind, view, self.asked):
                    self.uses[use.kind, use.id, use.field] = use
                    self.person(view.get("creator"))
                    _add_community(self.communities, view.get("community"))
                if kind == "post":
                    self._copy(view["post"])
            case "person":
                self.profile(view.get("person"))
            case _:  # a community
                row = view.get("community") or {}
                for name in _meeting(row, COMMUNITY_FIELDS, self.asked):
                    number = int(row["id"])
                    self.uses[UseKind.COMMUNITY, number, name] = Use(UseKind.COMMUNITY, number, name, _address(row), None, number)
                    _add_community(self.communities, row)

    def person(self, row: Json | None) -> None:
        """Somebody who is behind it; their profile may show it too."""
        if row and _add_person(self.persons, row):
            self.profile(row)

    def profile(self, row: Json | None) -> None:
        """What of a profile shows it."""
        for name in _meeting(row or {}, PROFILE_FIELDS, self.asked):
            number = int((row or {})["id"])
            _add_person(self.persons, row)
            self.uses[UseKind.PROFILE, number, name] = Use(UseKind.PROFILE, number, name, _address(row or {}), number)

    def _copy(self, row: Json) -> None:
        """Lemmy makes a preview of an image post's picture: the one shows what the other does, under another name."""
        url, preview = str(row.get("url") or ""), str(row.get("thumbnail_url") or "")
        number, shrunk, picture = int(row["id"]), own_alias(preview, self.hosts), own_alias(url, self.hosts)
        if self.asked.meets(url) and shrunk and not self.asked.meets(preview):
            self.copies[shrunk] = Copy(preview, shrunk, number, preview=True, by_lemmy=shrunk not in self.chosen)
        pictured = picture or str(row.get("url_content_type", "")).startswith("image/")
        if self.asked.meets(preview) and pictured and not self.asked.meets(url):
            made = own_alias(preview, self.hosts) not in self.chosen
            self.copies.setdefault(picture or url, Copy(url, picture, number, preview=False, by_lemmy=made))


class Asking:
    """Asks with the token of an administrator."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._listed: list[
            Json
        ] = []  # 0.19's list of uploads as it was gone through, newest first: it may have hundreds of pages

    @property
    def api(self) -> Api:
        """Whom it asks."""
        return self._api

    def close(self) -> None:
        """Give back connections."""
        self._api.close()

    def aliases(self) -> Iterator[str]:
        """Every alias that Lemmy has on record. 0.19 leaves out the previews that it made. Raises: Unreached, Refused."""
        for image in self._api.images():
            yield _alias(image)

    def trace(self, aliases: Sequence[str], urls: Sequence[str], *, private_messages: bool) -> Trace:
        """See `Tracer.trace`; private messages cannot be searched here. A road that fails is a limit, and the others stand.

        Raises: Unreached, Refused where Lemmy cannot be asked at all.
        """
        del private_messages
        api = self._api
        with api.one_question():
            account = api.need_admin()
            new = api.version == "1.0"
            aliases, urls = tuple(map(canonical, filter(None, aliases))), tuple(filter(None, urls))
            asked = matcher(aliases, urls, cut_at_ampersand=not new)
            found = _Found(asked, _hosts(api), [*LIMITS, *(NEW_LIMITS if new else OLD_LIMITS)])
            found.limits += [
                f"not shown to {account.name[:80]} in any search, by its own settings: {what}" for what in account.hides
            ]
            if new and urls:
                found.limits.append(AT_ITS_ORIGIN)
            self._about(found)
            if aliases:
                _on_road(found, "the list of uploads", partial(self._uploads, aliases, found))
            for address in _addresses(api.base, aliases, urls, new=new):
                _on_road(found, f"posts at {address}", partial(_all, found, api.showing, address))
            for words in _words(aliases, urls, new=new):
                _on_road(found, f"texts with {words}", partial(_each, found, api.search, words))
            self._of_uploaders(found, _addresses(api.base, aliases, urls, new=new), new=new)
            roads = 1 + bool(aliases)
            if found.failures and len(found.failures) > roads and not found.uses and not found.uploads:
                raise found.failures[0]
        return Trace(
            version=api.version,
            source="API",
            aliases=tuple(aliases),
            urls=tuple(urls),
            uploads=tuple(found.uploads),
            uses=tuple(found.uses.values()),
            persons=tuple(found.persons[number] for number in sorted(found.persons)),
            communities=tuple(found.communities[number] for number in sorted(found.communities)),
            other_uploads=tuple(found.others[:OTHERS]),
            limits=tuple(found.limits),
            copies=tuple(found.copies.values()),
            complete=False,
        )

    def _about(self, found: _Found) -> None:
        """What Lemmy told of itself, without asking anew: its own icon and texts, administrators, in 0.19 taglines and emoji.

        Every text is read, whatever it is called: versions differ in what they have, and a list of names leaves some out.
        """
        about = self._api.about
        view = about.get("site_view") or {}
        site, local = view.get("site") or {}, view.get("local_site") or {}
        for row in (site, local):
            for name in _meeting(row, tuple(row), found.asked):
                found.uses[UseKind.SITE, 1, name] = Use(UseKind.SITE, int(row.get("id", 1)), name, _address(site))
        for admin in self._api.admins():
            found.profile(admin)
        for tagline in about.get("taglines") or ():
            for name in _meeting(tagline, ("content",), found.asked):
                found.uses[UseKind.TAGLINE, int(tagline["id"]), name] = Use(UseKind.TAGLINE, int(tagline["id"]), name)
        for view in about.get("custom_emojis") or ():
            emoji = view.get("custom_emoji") or {}
            for name in _meeting(emoji, EMOJI_FIELDS, found.asked):
                address = str(emoji.get("shortcode", ""))
                found.uses[UseKind.EMOJI, int(emoji["id"]), name] = Use(UseKind.EMOJI, int(emoji["id"]), name, address)

    def _uploads(self, aliases: Sequence[str], found: _Found) -> None:
        """Those of the aliases, and the others of the same accounts, as far as the list is gone through."""
        rest: list[Upload] = []
        seen = 0
        try:
            for image in self._images():
                seen += 1
                upload = _upload(image)
                if upload.thumbnail_of is None:
                    found.chosen.add(upload.alias)
                if upload.alias not in aliases:
                    rest.append(upload)
                    continue
                found.uploads.append(upload)
                found.person(image.get("person"))
        except Cut as error:
            found.limits.append(f"who uploaded it is known only if it is among those pictures: {error}")
        if seen == MOST_IMAGES:
            found.limits.append(f"only the newest {MOST_IMAGES:,} uploads were gone through")
        for number in {upload.thumbnail_of for upload in found.uploads} - {None}:
            try:
                found.meet("post", self._api.post_view(number or 0))
            except NotThere:
                continue  # the post is gone, and its preview was left
        uploaders = {upload.person for upload in found.uploads if upload.thumbnail_of is None} - {None}
        found.others += [upload for upload in rest if upload.person in uploaders and upload.thumbnail_of is None]

    def _images(self) -> Iterator[Json]:
        """The list of uploads; what an earlier question was told of it is not asked for again, but for what is new."""
        if self._api.version == "1.0":
            yield from islice(self._api.images(), MOST_IMAGES)
            return
        known = {_alias(image) for image in self._listed}
        new: dict[str, Json] = {}  # a picture that comes in meanwhile moves the others to the next page
        for image in self._api.images():
            if _alias(image) in known:
                break
            if _alias(image) not in new:
                new[_alias(image)] = image
                yield image
            if len(new) == MOST_IMAGES:
                break
        kept, self._listed = self._listed, [*new.values(), *self._listed][:MOST_IMAGES]
        yield from kept[: MOST_IMAGES - len(new)]

    def _of_uploaders(self, found: _Found, addresses: Sequence[str], *, new: bool) -> None:
        """What whoever uploaded it wrote: removed posts among it, and those that show the picture as their preview."""
        for number in sorted({upload.person for upload in found.uploads if upload.thumbnail_of is None and upload.person}):
            name = found.persons[number].name[:80]
            _on_road(found, f"what {name} wrote", partial(self._written, found, number, name))
            if new:
                continue  # the list of 1.0 has everything that its search has
            for address in addresses:
                _on_road(found, f"posts of {name} at {address}", partial(_all, found, self._api.showing, address, number))

    def _written(self, found: _Found, number: int, name: str) -> None:
        seen = 0
        for kind, view in islice(self._api.written_by(number), MOST_WRITTEN):
            seen += 1
            found.meet(kind, view)
        if seen == MOST_WRITTEN:
            found.limits.append(f"only the newest {MOST_WRITTEN:,} posts and comments of {name} were gone through")


def _hosts(api: Api) -> tuple[str, ...]:
    """Where it is asked, and what it calls itself: behind a proxy these are two."""
    site = (api.about.get("site_view") or {}).get("site") or {}
    told = (urlsplit(address).netloc.lower() for address in (api.base, str(site.get("ap_id") or site.get("actor_id") or "")))
    return tuple(dict.fromkeys(filter(None, told)))


def _on_road(found: _Found, what: str, ask: Callable[[], None]) -> None:
    """Ask; a road that fails is named, and what the others found stands."""
    try:
        ask()
    except Unreached as error:
        found.failures.append(error)
        found.limits.append(f"{what}: {NOT_TO_THE_END}: {error}")


def _all(found: _Found, showing: Callable[..., Iterator[Json]], address: str, creator: int | None = None) -> None:
    for view in showing(address, creator):
        found.meet("post", view)


def _each(found: _Found, search: Callable[[str], Iterator[tuple[str, Json]]], words: str) -> None:
    for kind, view in search(words):
        found.meet(kind, view)


def _addresses(base: str, aliases: Sequence[str], urls: Sequence[str], *, new: bool) -> list[str]:
    """The whole addresses under which Lemmy writes a picture into a post, of this version and of those before it."""
    local = ("/api/v4/image/", "/pictrs/image/") if new else ("/pictrs/image/",)
    proxies = ("/api/v4/image/proxy", "/api/v3/image_proxy") if new else ("/api/v3/image_proxy",)
    found = [f"{base}{path}{alias}" for alias in aliases for path in local]
    for url in urls:
        found += [] if new else [url]  # see AT_ITS_ORIGIN
        found += [f"{base}{path}?url={quote(url, safe='')}" for path in proxies]
    return list(dict.fromkeys(found))


def _words(aliases: Sequence[str], urls: Sequence[str], *, new: bool) -> list[str]:
    """What to search texts for. 1.0 takes a whole address, and what has an @ in it, for something to fetch from elsewhere."""
    found = [*aliases, *filter(None, map(without_hyphens, aliases))]  # Lemmy's search does not regard case
    for url in urls:
        for form in (url, quote(url, safe="")):
            plain = form.partition("://" if "://" in form else "%3A%2F%2F")[2].rpartition("@")[2] if new else form
            found += [plain] if plain else []
    return list(dict.fromkeys(found))


def _meeting(row: Json, names: Sequence[str], asked: Matcher) -> Iterator[str]:
    yield from (name for name in names if asked.meets(row.get(name)))


def _alias(image: Json) -> str:
    return str(image["local_image"]["pictrs_alias"])


def _upload(image: Json) -> Upload:
    row, person = image["local_image"], image.get("person") or {}
    return Upload(_alias(image), _time(row), person.get("id"), row.get("thumbnail_for_post_id"))


def _uses(kind: str, view: Json, asked: Matcher) -> Iterator[Use]:
    row = view[kind]
    for name in _meeting(row, POST_FIELDS if kind == "post" else ("content",), asked):
        yield Use(
            UseKind(kind),
            int(row["id"]),
            name,
            str(row.get("ap_id", "")),
            (view.get("creator") or {}).get("id"),
            (view.get("community") or {}).get("id"),
            _time(row),
            row.get("local"),
            bool(row.get("removed")),
            bool(row.get("deleted")),
        )


def _add_person(persons: dict[int, Person], row: Json | None) -> bool:
    if not row:
        return False
    number = int(row["id"])
    persons[number] = Person(
        id=number,
        name=str(row["name"]),
        address=_address(row),
        local=bool(row.get("local")),
        domain=urlsplit(_address(row)).hostname or "",
        display_name=str(row.get("display_name") or ""),
        created=_time(row),
        banned=row.get("banned"),
        deleted=bool(row.get("deleted")),
    )
    return True


def _add_community(communities: dict[int, Community], row: Json | None) -> None:
    if row:
        address = _address(row)
        communities[int(row["id"])] = Community(int(row["id"]), str(row["name"]), address, urlsplit(address).hostname or "")


def _address(row: Json) -> str:
    """0.19 calls it actor_id, 1.0 ap_id."""
    return str(row.get("ap_id") or row.get("actor_id") or "")


def _time(row: Json) -> datetime | None:
    text = row.get("published_at") or row.get("published")
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None
