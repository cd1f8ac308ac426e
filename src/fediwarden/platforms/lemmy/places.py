"""Icons, banners, emoji, sidebars and taglines that show a picture, as Lemmy's API has them now; changes nothing."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from fediwarden.platforms.lemmy.api import Api, Json, NotThere
from fediwarden.platforms.lemmy.image_urls import Matcher

PICTURES = ("icon", "banner")
OF_SITE = ("content_warning", "legal_information", "application_question")
TEXTS = {
    "0.19": {"site": ("sidebar", "description", *OF_SITE), "community": ("description",)},
    "1.0": {"site": ("sidebar", "summary", *OF_SITE), "community": ("sidebar", "summary")},
}
_LINK = re.compile(
    r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\([^()\s]*(?:\s+\"[^\"]*\")?\s*\)"
)  # [words](address "title"), of a picture or not
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class PictureSpot:
    """One column of one row that shows the picture."""

    kind: str  # "site", "community", "emoji", "tagline"
    number: int
    field: str  # "icon", "sidebar", "image_url", "content"
    value: str  # what stands there now
    target: str  # for a person and for the record
    local: bool = True  # False for a community of another server

    @property
    def picture(self) -> bool:
        """Whether it is a picture by itself, not a text with one in it."""
        return self.field in PICTURES or self.kind == "emoji"


def survey(api: Api, asked: Matcher, communities: Collection[int]) -> Iterator[PictureSpot]:
    """Every place of the site, of these communities, of the emoji and taglines that shows it. Raises: Unreached, Refused."""
    texts = TEXTS[api.version]
    view = api.site()["site_view"]
    row = {**view.get("local_site", {}), **view.get("site", {})}
    yield from _of("site", 0, row, (*PICTURES, *texts["site"]), asked)
    for number in sorted(communities):
        try:
            row = api.community(number)
        except NotThere:
            continue
        yield from _of("community", number, row, (*PICTURES, *texts["community"]), asked)
    for emoji in api.emoji():
        if asked.meets(emoji.get("image_url")):
            yield PictureSpot("emoji", int(emoji["id"]), "image_url", emoji["image_url"], f":{emoji.get('shortcode')}:")
    for tagline in api.taglines():
        if asked.meets(tagline.get("content")):
            yield PictureSpot("tagline", int(tagline["id"]), "content", tagline["content"], f"tagline {tagline['id']}")


def without(text: str, asked: Matcher) -> str | None:
    """The text with every mention of the picture cut out; None where that cannot be done by cutting links and words."""
    kept = _LINK.sub(lambda found: "" if asked.meets(found[0]) else found[0], text)
    kept = _WORD.sub(lambda found: "" if asked.meets(found[0]) else found[0], kept)
    return None if asked.meets(kept) else kept.strip()


def _of(kind: str, number: int, row: Json, fields: tuple[str, ...], asked: Matcher) -> Iterator[PictureSpot]:
    address = str(row.get("ap_id") or row.get("actor_id") or kind)
    for field in fields:
        if asked.meets(row.get(field)):
            yield PictureSpot(kind, number, field, row[field], address, bool(row.get("local", True)))
