"""Who is behind an object: which names it has, who asked and why, and a trace sealed beside the bytes; changes nothing on a platform.

A trace tells about people, so it needs an object that is suspected, or a reason. That it was asked for is on record before
anybody sees it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256 as digest
from typing import Protocol

from fediwarden.errors import BadEvidence, FediwardenError, Misconfigured, Unreached
from fediwarden.ledger import Entry, Ledger
from fediwarden.model import AnswerReason, Name, NameKind, Owed, RunId, Sha256, Step, StoreName, TraceRecord
from fediwarden.platforms.lemmy.image_urls import canonical, read_address
from fediwarden.platforms.lemmy.model import Trace, Tracer
from fediwarden.vault import Vaults

CACHED_FROM = (
    "whether this is a cached copy of a remote picture, and of which: pict-rs tells that by its database alone, and Lemmy has no upload of "
    "it on record; trace the remote address, if you know it"
)
TRACES = StoreName("trace")  # stands for a store in the manifests of sealed traces
REFUSALS = (
    AnswerReason.LOOKED,
    AnswerReason.KNOWN,
    AnswerReason.PERSON,
)  # the answers of the gate that say something about the bytes


class NamedItem(Protocol):
    """One content as pict-rs tells it."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Its aliases."""

    @property
    def proxied(self) -> tuple[tuple[str, str], ...]:
        """Aliases, and the remote addresses that they are cached copies of."""


class Names(Protocol):
    """A pict-rs server, as far as a trace asks it."""

    def aliases(self, alias: str) -> tuple[str, ...]:
        """Every alias of the content that this one names. Raises: Unreached."""

    def find(self, sha256: Sha256, size: int, content_type: str = "") -> NamedItem | None:
        """The item that holds these bytes. Raises: Unreached."""

    @property
    def repository(self) -> object | None:
        """pict-rs' database, which alone tells what is a cached copy of which remote picture; None with its API key."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a trace is asked about."""

    text: str  # as it was named
    sha256: Sha256 | None
    objects: tuple[Entry, ...]
    aliases: tuple[str, ...]
    urls: tuple[str, ...]
    suspected: str = ""  # why it is, in words; "" where it is not
    drill: bool = False
    limits: tuple[str, ...] = ()  # what could not be asked


@dataclass(frozen=True, slots=True)
class _Found:
    """Names as they are gathered; order is kept, nothing twice."""

    aliases: dict[str, None]
    urls: dict[str, None]
    limits: dict[str, None]

    def add(self, names: tuple[Name, ...]) -> None:
        for name in names:
            if name.kind is NameKind.ALIAS:
                self.aliases[name.text] = None
            elif name.kind is NameKind.PROXIED:
                self.urls[name.text] = None


class Tracing:
    """Asks one platform about objects of one ledger."""

    def __init__(
        self,
        ledger: Ledger,
        run: RunId,
        tracer: Tracer,
        servers: Mapping[StoreName, Names],
        vaults: Vaults | None,
        clock: Callable[[], datetime],
        actor: str,
        *,
        private_messages: bool,
    ) -> None:
        """
        Args:
            servers: the pict-rs servers, asked for names that the ledger does not know yet.
            vaults: None where nothing is sealed.
            actor: who asks, for the record.
            private_messages: whether the jurisdiction profile lets them be searched.
        """
        self._ledger = ledger
        self._run = run
        self._tracer = tracer
        self._servers = servers
        self._vaults = vaults
        self._clock = clock
        self._actor = actor
        self._private_messages = private_messages

    # -- asking -------------------------------------------------------------------------------------------------------

    def subject(self, text: str, store: StoreName | None = None) -> Subject:
        """What a key, an alias, a SHA-256 or the address of a picture means. Asks the ledger, and pict-rs for further names.

        Raises: Misconfigured where the text means several contents, or nothing that a platform could be asked about.
        """
        if not text.strip():
            raise Misconfigured("nothing was named", hint="name a key, an alias, a SHA-256 or the address of a picture")
        found = _Found({}, {}, {})
        entries = self._meant(text, store, found)
        hashes = {entry.sha256 for entry in entries if entry.sha256}
        if len(hashes) > 1:
            raise Misconfigured(
                f"{text!r} means {len(hashes)} contents: {', '.join(sorted(each[:12] for each in hashes))}",
                hint="name one by its SHA-256, or its store with --store",
            )
        sha256 = next(iter(hashes), Sha256(text.lower()) if _is_sha256(text) else None)
        if sha256 is not None:
            entries += [entry for entry in self._entries(self._ledger.platforms.holding(sha256)) if entry not in entries]
        self._gather(entries, sha256, found)
        if not found.aliases and not found.urls:
            why = "; ".join(found.limits) or "no alias and no remote address of it is known"
            raise Misconfigured(f"{text!r}: {why}", hint="scan the pict-rs store, or name an alias or the address of a picture")
        return Subject(
            text,
            sha256,
            tuple(entries),
            tuple(found.aliases),
            tuple(found.urls),
            self._suspicion(entries, sha256),
            any(entry.decision is not None and entry.decision.drill for entry in entries),
            tuple(found.limits),
        )

    def ask(self, subject: Subject, because: str = "", *, full: bool = False) -> Trace:
        """Ask, and put on record who asked and why. Raises: Misconfigured without suspicion or reason, Unreached, Refused."""
        reason = because or subject.suspected
        if not reason:
            raise Misconfigured(
                f"{subject.text!r} is not suspected, and a trace tells about people",
                hint="say why it is needed: --because REASON",
            )
        reason += " (shown in full)" if full else ""
        try:
            trace = self._trace(subject.aliases, subject.urls)
        except FediwardenError as error:
            self._record(reason, subject.text, subject.sha256, problem=str(error))
            raise
        self._record(reason, subject.text, subject.sha256, trace)
        return trace

    # -- sealing ------------------------------------------------------------------------------------------------------

    def seal(
        self,
        trace: Trace,
        about: Sha256 | None,
        reason: str,
        subject: str,
        *,
        drill: bool = False,
        more: Mapping[str, object] | None = None,
    ) -> Sha256 | None:
        """Put a trace into the vault, whole, and on record; None where the profile lets nothing be sealed.

        `more` lies beside it in the same text, such as what a post said before it is purged. Raises: CannotWrite, BadEvidence.
        """
        sealed: Sha256 | None = None
        if self._vaults:
            text = json.dumps({**trace.as_json(), **(more or {})}, sort_keys=True, default=str).encode("ascii")
            sealed = Sha256(digest(text).hexdigest())
            because = {"trace of": about or subject, "rule": reason}
            vault = self._vaults.of(drill=drill)
            vault.seal(text, sealed, store=TRACES, key=about or subject, at=self._clock(), because=because)
            if not vault.check(sealed):
                raise BadEvidence("the sealed trace does not read back as it was written", hint="check the vault's disk")
        self._record(reason, subject, about, trace, sealed=sealed)
        return sealed

    def seal_for(self, owed: Owed) -> str:
        """Seal who is behind an object that is about to be hidden, before a platform forgets it; why it could not, or ""."""
        found = _Found({}, {}, {})
        entry = self._ledger.entry(owed.ref.store, owed.ref.key)
        found.add(owed.ref.names)
        reason = f"it is being hidden: {owed.decision.rule}"
        # the gate knew it by its hash alone, perhaps; others that hold the same bytes have names
        others = self._entries(self._ledger.platforms.holding(owed.sha256))
        try:
            self._gather([*([entry] if entry else []), *others], owed.sha256, found)
            if not found.aliases and not found.urls:
                self._record(reason, owed.ref.key, owed.sha256, problem="; ".join(found.limits) or "no name of it is known")
                return "; ".join(found.limits)
            trace = self._trace(tuple(found.aliases), tuple(found.urls))
            self.seal(trace, owed.sha256, reason, owed.ref.key, drill=owed.decision.drill)
        except FediwardenError as error:
            self._record(reason, owed.ref.key, owed.sha256, problem=str(error))
            return str(error)
        return ""

    # -- names --------------------------------------------------------------------------------------------------------

    def _meant(self, text: str, store: StoreName | None, found: _Found) -> list[Entry]:
        """The objects that the text names; what it names besides is added to `found`."""
        platforms = self._ledger.platforms
        if _is_sha256(text):
            return self._of(store, self._entries(platforms.holding(Sha256(text.lower()))))
        if text.startswith(("http://", "https://")):
            address = read_address(text)
            if cached := platforms.named(address.remote or text):  # another Lemmy's address has the shape of our own
                found.urls[address.remote or text] = None
                return self._of(store, self._entries(cached))
            if address.alias:
                found.aliases[address.alias] = None
            elif address.remote:
                found.urls[address.remote] = None
            return self._of(store, self._entries(platforms.named(address.alias) if address.alias else []))
        entries = self._of(store, self._entries(platforms.named(text))) or list(self._ledger.entries(store=store, key=text))
        if not entries and (alias := canonical(text)) != text:  # as somebody copied it from an address
            return self._meant(alias, store, found)
        if not entries:
            found.aliases[text] = None
        return entries

    def _entries(self, objects: list[tuple[StoreName, str]]) -> list[Entry]:
        return [entry for name, key in objects if (entry := self._ledger.entry(name, key)) is not None]

    def _of(self, store: StoreName | None, entries: list[Entry]) -> list[Entry]:
        return [entry for entry in entries if store in (None, entry.ref.store)]

    def _gather(self, entries: list[Entry], sha256: Sha256 | None, found: _Found) -> None:
        """Every name that the ledger and pict-rs know; a server that gives no answer is a limit."""
        for entry in entries:
            found.add(self._ledger.platforms.names_of(entry.ref.store, entry.ref.key))
        size = next((entry.ref.size for entry in entries if entry.sha256 == sha256), 0)
        for name, server in self._servers.items():
            try:
                for alias in self._asked(server, tuple(found.aliases), sha256, size, found):
                    found.aliases[alias] = None
            except Unreached as error:
                found.limits[f"{name} was not asked for further names: {error}"] = None

    def _asked(self, server: Names, aliases: tuple[str, ...], sha256: Sha256 | None, size: int, found: _Found) -> Iterator[str]:
        known: set[str] = set()
        for alias in aliases:
            if alias not in known:
                known.update(server.aliases(alias))
        if not known and sha256 is not None and size and (item := server.find(sha256, size)) is not None:
            known.update(item.aliases)
            for _, url in item.proxied:
                found.urls[url] = None
        yield from sorted(known)

    def _suspicion(self, entries: list[Entry], sha256: Sha256 | None) -> str:
        for entry in entries:
            decision = entry.decision
            if decision is not None and decision.step in (Step.QUARANTINE, Step.REVIEW):
                return f"suspected: {decision.rule}"
            if entry.hidden:
                return "it is hidden"
        answers = self._ledger.uploads.answers(sha256) if sha256 else []
        decided = any(entry.decision is not None for entry in entries)
        if not decided and any(not answer.passed and answer.why in REFUSALS for answer in answers):
            return "the gate refused it"
        return ""

    # -- the record ---------------------------------------------------------------------------------------------------

    def _trace(self, aliases: tuple[str, ...], urls: tuple[str, ...]) -> Trace:
        trace = self._tracer.trace(aliases, urls, private_messages=self._private_messages)
        by_key = any(server.repository is None for server in self._servers.values())
        if by_key and aliases and not urls and not trace.uploads:
            return replace(trace, limits=(*trace.limits, CACHED_FROM), complete=False)
        return trace

    def _record(
        self,
        reason: str,
        subject: str,
        sha256: Sha256 | None,
        trace: Trace | None = None,
        *,
        sealed: Sha256 | None = None,
        problem: str = "",
    ) -> None:
        counts = trace.counts if trace is not None else {}
        record = TraceRecord(self._clock(), self._actor, reason, subject, sha256, sealed, counts, problem)
        self._ledger.platforms.traced(self._run, record)


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text.lower()) <= set("0123456789abcdef")
