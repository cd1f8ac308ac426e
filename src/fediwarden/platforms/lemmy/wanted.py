"""How the address of a picture looks inside Lemmy's columns, as patterns; pure, and asks nobody."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

LOCAL = re.compile(r"/(?:pictrs/image|api/v4/image)/(?P<alias>[^/?#]+)\Z")
PROXIES = ("/api/v3/image_proxy", "/api/v4/image/proxy")
_END_HERE = r"[\]\[\s)\"'<>#\\]"  # the same in Python's words
END = r"[][\s)\"'<>#\\]"  # what may follow an address in markdown, besides the end of the text


@dataclass(frozen=True, slots=True)
class Wanted:
    """LIKE patterns wide enough for an index, and one regular expression that the text must meet too."""

    like: tuple[str, ...]
    exact: str


def wanted(aliases: Sequence[str], urls: Sequence[str], *, cut_at_ampersand: bool) -> Wanted:
    """What to search for.

    An alias stands behind a slash, so that one which ends like another is not meant; that slash is encoded where Lemmy
    proxies one of its own addresses. A remote picture stands there as it is, or encoded in a proxy's address.
    `cut_at_ampersand`: Lemmy 0.19 hands addresses to pict-rs unencoded, which then knows them up to the first "&" only.
    """
    like: list[str] = []
    exact: list[str] = []
    for alias in filter(None, dict.fromkeys(aliases)):  # nothing would mean everything
        like += [f"%/{_escaped(alias)}%", f"%{_escaped('%2F' + alias)}%"]
        exact.append(rf"(?:/|%2F){_literal(alias)}(?:[?&]|%3F|{END}|$)")
    for url in filter(None, dict.fromkeys(urls)):
        encoded = quote(url, safe="")
        for text in dict.fromkeys((url, encoded)):
            like.append(f"%{_escaped(text)}%")
        plain_end = "[&]|" if cut_at_ampersand else ""
        encoded_end = "[&]|%26|" if cut_at_ampersand else "[&]|"
        exact.append(rf"{_literal(url)}(?:{plain_end}{END}|$)")
        exact.append(rf"{_literal(encoded)}(?:{encoded_end}{END}|$)")
    return Wanted(tuple(like), "|".join(f"(?:{part})" for part in exact))


def whole_addresses(domain: str, aliases: Sequence[str], urls: Sequence[str]) -> tuple[str, ...]:
    """How the server of this domain writes the whole address of such a picture, for columns whose index answers equality only.

    Both schemes, and the paths of 0.19 and of 1.0, which keeps what 0.19 wrote. A remote picture stands there as it is, or proxied.
    """
    found: dict[str, None] = {}
    for url in filter(None, urls):
        found[url] = None
    for base in (f"https://{domain}", f"http://{domain}") if domain else ():
        for alias in filter(None, aliases):
            for path in ("/pictrs/image/", "/api/v4/image/"):
                found[f"{base}{path}{alias}"] = None
        for url in filter(None, urls):
            for path in PROXIES:
                found[f"{base}{path}?url={quote(url, safe='')}"] = None
    return tuple(found)


def own_alias(url: str, domain: str) -> str:
    """The alias that an address of this server's own picture names; "" for every other address. `domain`: with its port, if any."""
    parts = urlsplit(url)
    return read_address(url).alias if domain and parts.netloc.lower() == domain.lower() else ""


@dataclass(frozen=True, slots=True)
class Matcher:
    """The same question about a text that is here already."""

    pattern: re.Pattern[str]

    def meets(self, text: object) -> bool:
        """Whether the text shows one of the pictures."""
        return isinstance(text, str) and self.pattern.search(text) is not None


def matcher(aliases: Sequence[str], urls: Sequence[str], *, cut_at_ampersand: bool) -> Matcher:
    """See `wanted`."""
    exact = wanted(aliases, urls, cut_at_ampersand=cut_at_ampersand).exact
    return Matcher(re.compile(exact.replace(END, _END_HERE) if exact else r"(?!)"))


@dataclass(frozen=True, slots=True)
class Address:
    """What an address of a picture means: an alias of this server's, or a remote picture."""

    alias: str = ""
    remote: str = ""


def read_address(url: str) -> Address:
    """Take the address of a picture apart, in the shapes of Lemmy 0.19 and 1.0; one of any other shape is remote."""
    parts = urlsplit(url)
    if parts.path in PROXIES:
        return Address(remote=parse_qs(parts.query).get("url", [""])[0])
    found = LOCAL.search(parts.path)
    return Address(alias=unquote(found["alias"])) if found else Address(remote=url)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _literal(text: str) -> str:
    """For PostgreSQL's regular expressions: every sign that could mean something stands behind a backslash."""
    return re.sub(r"([^0-9A-Za-z\x80-\U0010ffff])", r"\\\1", text)
