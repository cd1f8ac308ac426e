"""A trace by Lemmy's API, for servers whose database may not be read; what the API does not tell stands in `Trace.limits`."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from urllib.parse import quote, urlsplit

from fediwarden.platforms.lemmy.api import Api, Json
from fediwarden.platforms.lemmy.model import Community, Person, Trace, Upload, Use, UseKind
from fediwarden.platforms.lemmy.wanted import Matcher, matcher

MOST_IMAGES = 20_000  # pictures of Lemmy's list that are gone through, newest first
OTHERS = 1000
LIMITS = (
    "sessions with their addresses, mail addresses and private messages are not told by the API",
    "profiles of others, communities, the site, emoji, taglines and the copies in reports are not searched by the API",
)
POST_FIELDS = ("url", "thumbnail_url", "embed_video_url", "body")


class Asking:
    """Asks with the token of an administrator."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def close(self) -> None:
        """Give back connections."""
        self._api.close()

    def aliases(self) -> Iterator[str]:
        """Every alias that Lemmy has on record. 0.19 leaves out the previews that it made. Raises: Unreached, Refused."""
        for image in self._api.images():
            yield str(image["local_image"]["pictrs_alias"])

    def trace(self, aliases: Sequence[str], urls: Sequence[str], *, private_messages: bool) -> Trace:
        """See `Tracer.trace`; private messages cannot be searched here. Raises: Unreached, Refused."""
        del private_messages
        self._api.need_admin()
        asked = matcher(aliases, urls, cut_at_ampersand=self._api.version == "0.19")
        limits = list(LIMITS)
        persons: dict[int, Person] = {}
        communities: dict[int, Community] = {}
        uses: dict[tuple[UseKind, int, str], Use] = {}
        uploads, others = self._uploads(aliases, persons, uses, asked, limits)
        if self._api.version == "0.19":
            limits.append("who made Lemmy fetch a preview is not told by the API")
        for words in (*aliases, *(form for url in urls for form in dict.fromkeys((url, quote(url, safe=""))))):
            for kind, view in self._api.search(words):
                for use in _uses(kind, view, asked):
                    uses[use.kind, use.id, use.field] = use
                    _add_person(persons, view.get("creator"))
                    _add_community(communities, view.get("community"))
        return Trace(
            version=self._api.version,
            source="API",
            aliases=tuple(aliases),
            urls=tuple(urls),
            uploads=tuple(uploads),
            uses=tuple(uses.values()),
            persons=tuple(persons[number] for number in sorted(persons)),
            communities=tuple(communities[number] for number in sorted(communities)),
            other_uploads=tuple(others),
            limits=tuple(limits),
        )

    def _uploads(
        self,
        aliases: Sequence[str],
        persons: dict[int, Person],
        uses: dict[tuple[UseKind, int, str], Use],
        asked: Matcher,
        limits: list[str],
    ) -> tuple[list[Upload], list[Upload]]:
        """Those of the aliases, and the others of the same accounts, as far as the list is gone through."""
        if not aliases:
            return [], []
        found: list[Upload] = []
        rest: list[Upload] = []
        seen = 0
        for image in islice(self._api.images(), MOST_IMAGES):
            seen += 1
            upload = _upload(image)
            if upload.alias not in aliases:
                rest.append(upload)
                continue
            found.append(upload)
            person = image.get("person")
            if _add_person(persons, person) and person:
                for name in ("avatar", "banner", "bio"):
                    if asked.meets(person.get(name)):
                        uses[UseKind.PROFILE, int(person["id"]), name] = Use(
                            UseKind.PROFILE, int(person["id"]), name, _address(person), int(person["id"])
                        )
        if seen == MOST_IMAGES:
            limits.append(f"only the newest {MOST_IMAGES:,} uploads were gone through")
        uploaders = {upload.person for upload in found if upload.thumbnail_of is None} - {None}
        others = [upload for upload in rest if upload.person in uploaders and upload.thumbnail_of is None]
        return found, others[:OTHERS]


def _upload(image: Json) -> Upload:
    row, person = image["local_image"], image.get("person") or {}
    return Upload(str(row["pictrs_alias"]), _time(row), person.get("id"), row.get("thumbnail_for_post_id"))


def _uses(kind: str, view: Json, asked: Matcher) -> Iterator[Use]:
    row = view[kind]
    for name in POST_FIELDS if kind == "post" else ("content",):
        if asked.meets(row.get(name)):
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
