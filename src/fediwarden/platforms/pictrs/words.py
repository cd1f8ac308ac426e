"""One content as pict-rs tells of it, whichever way it was asked; no I/O."""

from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from fediwarden.model import Name, NameKind
from fediwarden.platforms.pictrs.hashes import Hash


@dataclass(frozen=True, slots=True)
class Item:
    """One content with all that hangs on it. What an API does not tell is empty."""

    key: str  # in our ledger: the hash in hexadecimal; on 0.4 the alias that sorts first
    aliases: tuple[str, ...]
    hash: Hash | None = None  # None on 0.4, and for a format that is not known here
    created: datetime | None = None
    content_type: str = ""
    identifier: str = ""  # key of the original in the store behind, where it is known
    motion: str = ""  # key of the short film beside it, SQL only
    variants: tuple[tuple[str, str], ...] = ()  # (variant, identifier), SQL only
    proxied: tuple[tuple[str, str], ...] = ()  # (alias, url), SQL only

    @property
    def slug(self) -> str:
        """As `/internal/hashes?slug=` takes it (0.5)."""
        return urlsafe_b64encode(bytes.fromhex(self.key)).decode()

    @property
    def names(self) -> tuple[Name, ...]:
        """Every other name of it, as the ledger keeps them."""
        return tuple(self._names())

    def _names(self) -> Iterator[Name]:
        for alias in self.aliases:
            yield Name(NameKind.ALIAS, alias)
        for identifier in (self.identifier, self.motion):
            if identifier:
                yield Name(NameKind.IDENTIFIER, identifier)
        for _, identifier in self.variants:
            yield Name(NameKind.VARIANT, identifier)
        for _, url in self.proxied:
            yield Name(NameKind.PROXIED, url)


def moment(text: object) -> datetime | None:
    """A time as pict-rs writes it, aware and in UTC; None where it is none."""
    if not isinstance(text, str):
        return None
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        return None
    return told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)


def quoted(name: str, most: int = 160) -> str:
    """A hostile name on one line, without control characters."""
    return repr(name if len(name) <= most else name[: most - 1] + "…")
