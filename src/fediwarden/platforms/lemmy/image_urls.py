"""How the address of a picture looks inside Lemmy's columns, as patterns; pure, and asks nobody."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

LOCAL = re.compile(r"/(?:pictrs/image|api/v4/image)/(?P<alias>[^/?#]+)\Z")
PROXIES = ("/api/v3/image_proxy", "/api/v4/image/proxy")
_UUID = re.compile(
    r"(?:urn:uuid:|\{)?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?", re.IGNORECASE
)
# what a text contains that spells an alias in another way, %61, &#97;, \-: that of a UUID, and that of any other name
_UUID_ENCODED = r"%(25)*(2[dD]|3[0-9]|[46][1-6])|&#|\\-"
_NAME_ENCODED = r"%(25)*(2[dDeE]|3[0-9]|[4-7][0-9a-fA-F])|&#|&period;|\\[-._]"
_ENTITIES = {"/": "sol", ".": "period", "{": "lcub", "}": "rcub", ":": "colon"}
_END_HERE = r"[\]\[\s)\"'<>#\\]"  # the same in Python's words
END = r"[][\s)\"'<>#\\]"  # what may follow an address in markdown, besides the end of the text


@dataclass(frozen=True, slots=True)
class ImagePatterns:
    """LIKE patterns wide enough for an index, and one regular expression that the text must meet too."""

    like: tuple[str, ...]
    exact: str
    encoded: str = ""  # what a text has, besides, that is found by no pattern; "" where only remote pictures are asked for


def canonical(alias: str) -> str:
    """An alias as pict-rs keeps it: it reads the part before the first dot as a UUID, in any case, with or without hyphens, in braces or
    behind `urn:uuid:`. An alias of another shape stays as it is."""
    name, dot, extension = alias.partition(".")
    found = _UUID.fullmatch(name)
    return "-".join(found.groups()).lower() + dot + extension if found else alias


def alias_of(segment: str) -> str:
    """The alias that the last part of an address' path names, with its signs decoded once, as servers do it."""
    return canonical(unquote(segment))


def without_hyphens(alias: str) -> str:
    """Another spelling of an alias under which pict-rs serves the same; "" for one that is no UUID."""
    name, dot, extension = canonical(alias).partition(".")
    return name.replace("-", "") + dot + extension if _UUID.fullmatch(name) else ""


def wanted(aliases: Sequence[str], urls: Sequence[str], *, cut_at_ampersand: bool) -> ImagePatterns:
    """What to search for.

    An alias is meant however its signs are encoded, and one that is a UUID in every spelling that pict-rs reads. The patterns in `like`
    are without regard to case, and miss only what `encoded` meets. An alias stands behind a slash, so that one which ends like another is
    not meant; that slash is encoded where Lemmy proxies one of its own addresses. A remote picture stands there as it is, or encoded in a
    proxy's address.
    `cut_at_ampersand`: Lemmy 0.19 hands addresses to pict-rs unencoded, which then knows them up to the first "&" only.
    """
    like: list[str] = []
    exact: list[str] = []
    guard = _UUID_ENCODED if any(aliases) else ""
    for alias in filter(None, dict.fromkeys(aliases)):  # nothing would mean everything
        if plain := without_hyphens(alias):
            name = canonical(alias).partition(".")[0]
            like += [f"%{name}%", f"%{plain.partition('.')[0]}%"]
            exact.append(rf"{_any_spelling(canonical(alias))}(?:[?&]|%3F|{END}|$)")
            continue
        like += [f"%/{_escaped(alias)}%", f"%{_escaped('%2F' + alias)}%"]
        exact.append(rf"{_sign('/')}{''.join(map(_sign, alias))}(?:[?&]|%3F|{END}|$)")
        guard = _NAME_ENCODED
    for url in filter(None, dict.fromkeys(urls)):
        encoded = quote(url, safe="")
        for text in dict.fromkeys((url, encoded)):
            like.append(f"%{_escaped(text)}%")
        plain_end = "[&]|" if cut_at_ampersand else ""
        encoded_end = "[&]|%26|" if cut_at_ampersand else "[&]|"
        exact.append(rf"{_literal(url)}(?:{plain_end}{END}|$)")
        exact.append(rf"{_literal(encoded)}(?:{encoded_end}{END}|$)")
    return ImagePatterns(tuple(like), "|".join(f"(?:{part})" for part in exact), guard)


def whole_addresses(hosts: Collection[str], aliases: Sequence[str], urls: Sequence[str]) -> tuple[str, ...]:
    """How the server of these hosts writes the whole address of such a picture, for columns whose index answers equality only.

    Both schemes, and the paths of 0.19 and of 1.0, which keeps what 0.19 wrote. A remote picture stands there as it is, or proxied.
    """
    found: dict[str, None] = {}
    for url in filter(None, urls):
        found[url] = None
    for base in (f"{scheme}://{host}" for host in hosts for scheme in ("https", "http")):
        for alias in filter(None, aliases):
            for path in ("/pictrs/image/", "/api/v4/image/"):
                found[f"{base}{path}{alias}"] = None
        for url in filter(None, urls):
            for path in PROXIES:
                found[f"{base}{path}?url={quote(url, safe='')}"] = None
    return tuple(found)


def own_alias(url: str, hosts: Collection[str]) -> str:
    """The alias that an address of this server's own picture names; "" for every other address. `hosts`: with their ports, if any."""
    return read_address(url).alias if urlsplit(url).netloc.lower() in hosts else ""


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
    if unquote(parts.path) in PROXIES:
        return Address(remote=parse_qs(parts.query).get("url", [""])[0])
    folder, slash, name = parts.path.rpartition("/")
    found = LOCAL.search(f"{unquote(folder)}{slash}{name}")
    return Address(alias=alias_of(found["alias"])) if found else Address(remote=url)


def _any_spelling(alias: str) -> str:
    """A regular expression for a UUID alias behind a slash, however its signs are written.

    In an address a sign may be %-encoded, twice where the address stands in a proxy's; in markdown it may be a character reference, or stand
    behind a backslash.
    """
    name, dot, extension = alias.partition(".")
    digits = [f"{_sign('-')}?" if sign == "-" else _sign(sign, any_case=True) for sign in name]
    urn = "".join(_sign(sign, any_case=sign.isalpha()) for sign in "urn:uuid:")  # pict-rs 0.5.25 reads it in any case
    before = f"(?:{_sign('{')}|{urn})?"
    return f"{_sign('/')}{before}{''.join(digits)}{_sign('}')}?{''.join(map(_sign, dot + extension))}"


def _sign(sign: str, *, any_case: bool = False) -> str:
    """One sign in every way of writing it."""
    either = dict.fromkeys((sign.lower(), sign.upper()) if any_case else (sign,))
    ways = [_literal(each) if each.isalnum() else rf"\\?{_literal(each)}" for each in either]
    for each in either:
        encoded = "".join(f"%(?:25)*{''.join(_digit(digit) for digit in f'{byte:02x}')}" for byte in each.encode())
        ways += [encoded, f"&#0*{ord(each)};", f"&#[xX]0*{''.join(map(_digit, f'{ord(each):x}'))};"]
    ways += [f"&{_ENTITIES[sign]};"] if sign in _ENTITIES else []
    return f"(?:{'|'.join(ways)})"


def _digit(digit: str) -> str:
    return f"[{digit}{digit.upper()}]" if digit.isalpha() else digit


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _literal(text: str) -> str:
    """For PostgreSQL's regular expressions: every sign that could mean something stands behind a backslash."""
    return re.sub(r"([^0-9A-Za-z\x80-\U0010ffff])", r"\\\1", text)
