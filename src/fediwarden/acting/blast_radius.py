"""Who and what else is met when an object is hidden: asked beforehand, shown to whoever acts; changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256 as digest

from fediwarden.acting.copies import Copied
from fediwarden.errors import FediwardenError, Gone, Lost
from fediwarden.ledger import Ledger
from fediwarden.model import NameKind, ObjectRef, Owed, Sha256, StoreName
from fediwarden.platforms.lemmy.model import Trace, Tracer
from fediwarden.platforms.pictrs.server import Server, content_of
from fediwarden.platforms.pictrs.words import Item


@dataclass(frozen=True, slots=True)
class Radius:
    """Who and what else is met when an object is hidden: everything that shares its bytes."""

    aliases: tuple[str, ...] = ()  # each upload of these bytes has its own
    proxied: tuple[str, ...] = ()  # remote pictures that it is the cached copy of
    uses: Mapping[str, int] = field(default_factory=dict)  # "posts": 2; what Lemmy was asked for
    owners: int | None = None  # accounts behind them; None where nobody could be asked. `trace` says which, for a reason
    problem: str = ""  # who, or what, could not be asked, and why
    copies: tuple[Copied, ...] = ()  # other objects that show the same, as pict-rs has them now

    @property
    def shared(self) -> bool:
        """Whether it is more than one person's: by what Lemmy says, or else because it was uploaded more than once."""
        return len(self.aliases) > 1 if self.owners is None else self.owners > 1

    @property
    def perhaps_shared(self) -> bool:
        """Whether it is, or may be for all that could be asked: who cannot ask a person leaves it."""
        return self.shared or bool(self.problem)

    @property
    def words(self) -> str:
        """In one line; "" where nothing is known of it."""
        parts = [f"{len(self.aliases)} aliases"] if len(self.aliases) > 1 else []
        parts += [f"{number:,} {what}" for what, number in self.uses.items() if number]
        if self.owners is not None:
            parts.append("1 account" if self.owners == 1 else f"{self.owners} accounts")
        if self.proxied:
            parts.append(f"cached from {', '.join(self.proxied[:3])}{' and others' if len(self.proxied) > 3 else ''}")
        if self.copies:
            parts.append(
                "1 copy that shows the same" if len(self.copies) == 1 else f"{len(self.copies)} copies that show the same"
            )
        if self.problem:
            parts.append(f"who else uses it is not known for certain: {self.problem}")
        return ", ".join(parts)


LARGEST = 256 << 20  # bytes of a copy that is hashed to know its content, where pict-rs does not tell it (0.4)
IN_PART = "some of what may show it could not be asked (`fediwarden trace` names it)"
SHOWN = ("posts", "comments", "private messages", "profiles", "other uses", "communities")  # of a trace's counts


class Radii:
    """Asks pict-rs and Lemmy, as far as they are configured; an object of neither has an empty radius."""

    def __init__(
        self,
        ledger: Ledger,
        servers: Callable[[StoreName], Server | None],
        tracer: Tracer | None,
        *,
        private_messages: bool,
        problem: str = "",
        platform: Callable[[StoreName], StoreName] = lambda name: name,
    ) -> None:
        """
        Args:
            servers: the pict-rs behind a store, None where there is none.
            platform: the name of the store that this pict-rs is.
            tracer: who asks Lemmy; None where it is not configured.
            problem: why there is no tracer, though there should be.
        """
        self._ledger = ledger
        self._servers = servers
        self._tracer = tracer
        self._private_messages = private_messages
        self._problem = problem
        self._platform = platform

    def of(self, owed: Owed) -> Radius:
        """What shares these bytes now. What could not be asked is a problem of the radius, and raises nothing."""
        problems: list[str] = []
        aliases, proxied = self._names(owed, problems)
        if self._tracer is None and self._problem and (aliases or proxied):
            problems.append(self._problem)
        if self._tracer is None or not (aliases or proxied):
            return Radius(aliases, proxied, problem=_once(problems))
        try:
            trace = self._tracer.trace(aliases, proxied, private_messages=self._private_messages)
        except FediwardenError as error:
            return Radius(aliases, proxied, problem=_once([*problems, str(error)]))
        if not trace.complete:
            problems.append(IN_PART)
        uses = {what: number for what, number in trace.counts.items() if what in SHOWN}
        copies = self._copies(owed, trace, problems)
        return Radius(aliases, proxied, uses, len(trace.owners), _once(problems), copies)

    def aliases(self, owed: Owed) -> tuple[str, ...]:
        """The aliases that these bytes have now, as far as pict-rs tells; Lemmy is not asked."""
        return self._names(owed, [])[0]

    def _copies(self, owed: Owed, trace: Trace, problems: list[str]) -> tuple[Copied, ...]:
        """What the trace calls copies, as far as pict-rs has them, each with whether others than the original's people show it."""
        tracer = self._tracer
        found: dict[str, Copied] = {}
        people = {person.id for person in trace.owners}
        for copy in trace.copies:
            if not copy.alias or not copy.by_lemmy or tracer is None:
                continue
            try:
                server = self._servers(owed.ref.store)
                item = server.find_alias(copy.alias) if server is not None else None
                if server is None or item is None or item.key in found:
                    continue
                sha256, size = content_of(item.key) or self._fetched(server, item)
                if sha256 == owed.sha256:
                    continue
                around = tracer.trace(item.aliases, [url for _, url in item.proxied], private_messages=self._private_messages)
            except (Gone, Lost):
                continue  # there is nothing that anybody could be shown
            except FediwardenError as error:
                problems.append(f"{copy.alias!r}, which shows the same, could not be asked about: {error}")
                continue
            ref = ObjectRef(self._platform(owed.ref.store), item.key, size, item.key, item.created, item.names)
            others = {person.id for person in around.owners} - people
            if not around.complete and IN_PART not in problems:
                problems.append(IN_PART)
            found[item.key] = Copied(ref, sha256, copy.words, copy.preview, shared=bool(others))
        return tuple(found.values())

    def _fetched(self, server: Server, item: Item) -> tuple[Sha256, int]:
        """SHA-256 and size of what pict-rs 0.4 holds, which does not tell them. Raises: Unreached, Gone, TooLarge."""
        data, _ = server.fetch(item.aliases[0], LARGEST)
        return Sha256(digest(data).hexdigest()), len(data)

    def _names(self, owed: Owed, problems: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Aliases and remote addresses, as they were told once, with the aliases that pict-rs has now where it can be asked."""
        platforms = self._ledger.platforms
        known = platforms.names_of(owed.ref.store, owed.ref.key)
        server = None
        try:
            server = self._servers(owed.ref.store)
        except FediwardenError as error:
            problems.append(str(error))
        if server is not None and not known:
            # a file behind pict-rs, or what the gate knew by its hash alone: a scan may have met the same bytes under their names
            known = tuple(name for place in platforms.holding(owed.sha256) for name in platforms.names_of(*place))
        aliases = {name.text for name in known if name.kind is NameKind.ALIAS}
        proxied = {name.text for name in known if name.kind is NameKind.PROXIED}
        if server is None:
            return tuple(sorted(aliases)), tuple(sorted(proxied))
        now: set[str] = set()
        for name in sorted(aliases):
            if name in now:
                continue
            try:
                now.update(server.aliases(name))  # none where it went: pict-rs 0.6 gives a picture fetched anew another alias
            except FediwardenError as error:
                problems.append(str(error))
        try:
            item = None if now else server.find(owed.sha256, owed.ref.size)
        except FediwardenError as error:
            item = None
            problems.append(str(error))
        if item is not None:
            now = set(item.aliases)
            proxied |= {url for _, url in item.proxied}
        aliases = now or aliases
        return tuple(sorted(aliases)), tuple(sorted(proxied))


def _once(problems: Sequence[str]) -> str:
    """Each of them once: who does not answer says the same of every name."""
    return "; ".join(dict.fromkeys(problems))
