"""What Lemmy would destroy by the steps of a plan, sealed and read back before any of them; decides nothing and calls nothing that acts.

Lemmy goes by the last part of an address, whatever server it names: whose picture lies there is not asked. So pict-rs is asked
what it holds under each of these names, and all of it is fetched, sealed, and looked for in the vault again.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from hashlib import sha256 as digest
from threading import Event
from typing import Protocol
from urllib.parse import urlsplit

from fediwarden.errors import Gone, Misconfigured, TooLarge, Unreached
from fediwarden.ledger import Ledger
from fediwarden.model import DeedState, PlatformDeed, RunId, Sha256, StoreName
from fediwarden.platforms.lemmy.acting import PLATFORM, Deed, Done, ModerationPlan, ModerationStep
from fediwarden.platforms.lemmy.api import Api, Json, NotThere
from fediwarden.platforms.lemmy.image_urls import alias_of
from fediwarden.vault import Vault

PICTURES = StoreName("lemmy")  # stands for a store in the manifests of pictures that were sealed before Lemmy deleted them
NO_PICTRS = "no pict-rs is configured that it could be fetched from"
NOT_KEPT = "the profile keeps no bytes"
GONE_SECONDS = 10.0  # Lemmy waits for pict-rs' answer, and pict-rs' queue takes a moment


class Pictures(Protocol):
    """One pict-rs server, as far as it is asked here."""

    def aliases(self, alias: str) -> tuple[str, ...]:
        """Every alias of the content that this one names; empty where there is none. Raises: Unreached."""

    def fetch(self, alias: str, limit: int) -> tuple[bytes, str]:
        """The bytes and their type. Raises: Gone, Unreached, TooLarge."""


@dataclass(frozen=True, slots=True)
class Take:
    """One content that pict-rs loses by a step, or an alias of it."""

    step: ModerationStep
    alias: str  # by which Lemmy names it to pict-rs
    address: str  # as Lemmy has it
    aliases: tuple[str, ...]  # every alias of that content
    whole: bool  # all aliases go, not this one alone
    problem: str = ""  # why it cannot be sealed
    sha256: Sha256 | None = None  # under which it is sealed; None: not yet
    before: ModerationStep | None = (
        None  # which step of the same plan takes this alias first: this one then finds nothing under it
    )
    rest: tuple[str, ...] = ()  # those of `aliases` that no step before takes

    @property
    def loses(self) -> tuple[str, ...]:
        """What pict-rs must not know any more afterwards; an alias that went before leads a purge to no other."""
        return self.aliases if self.whole and self.before is None else (self.alias,)


@dataclass(frozen=True, slots=True)
class Looked:
    """What Lemmy and pict-rs say about a plan before anything is done."""

    takes: tuple[Take, ...]
    rows: tuple[Json, ...]  # what stands in Lemmy and would be lost or changed: act, target, row
    notes: tuple[str, ...]  # what else a person should know


class Shelf:
    """Every configured pict-rs at once."""

    def __init__(self, servers: Collection[Pictures], limit: int, stop: Event | None = None) -> None:
        """`limit`: the largest picture in bytes that is held in memory."""
        self._servers = tuple(servers)
        self._limit = limit
        self._stop = stop or Event()

    def __bool__(self) -> bool:
        return bool(self._servers)

    def aliases(self, alias: str) -> tuple[str, ...]:
        """Every alias of what lies under this one; empty where no server knows it. Raises: Unreached."""
        return next((known for server in self._servers if (known := server.aliases(alias))), ())

    def lost(self, aliases: Sequence[str]) -> bool:
        """Whether pict-rs knows none of these; False where there is none to ask for. Raises: Unreached."""
        return bool(self._servers) and bool(aliases) and not any(self.aliases(alias) for alias in aliases)

    def fetch(self, alias: str) -> bytes:
        """The bytes, of the server that knows the alias. Raises: Gone, Unreached, TooLarge."""
        for server in self._servers:
            if server.aliases(alias):
                return server.fetch(alias, self._limit)[0]
        raise Gone(f"pict-rs knows no {alias}")

    def still(self, aliases: Sequence[str], seconds: float = GONE_SECONDS) -> list[str]:
        """Which of these pict-rs still knows after having been given so many seconds. Raises: Unreached."""
        left, waited, pause = list(aliases), 0.0, 0.05
        while (left := [alias for alias in left if self.aliases(alias)]) and waited < seconds and not self._stop.is_set():
            self._stop.wait(pause)
            waited, pause = waited + pause, min(1.0, pause * 2)
        return left


class Evidence:
    """Looks at what a plan would destroy, and seals it."""

    def __init__(
        self,
        api: Api,
        shelf: Shelf,
        vault: Vault | None,
        ledger: Ledger,
        run: RunId,
        clock: Callable[[], datetime],
        actor: str,
        *,
        sealed: Mapping[str, Sha256],
    ) -> None:
        """
        Args:
            vault: None where the profile keeps no bytes.
            sealed: aliases whose bytes are known and may lie in the vault already, with their hash.
        """
        self._api = api
        self._shelf = shelf
        self._vault = vault
        self._ledger = ledger
        self._run = run
        self._clock = clock
        self._actor = actor
        self._sealed = sealed

    # -- looking ------------------------------------------------------------------------------------------------------

    def look(self, plan: ModerationPlan) -> Looked:
        """What the steps would take and change. Fetches no picture. Raises: Unreached, Refused, Misconfigured."""
        takes: list[Take] = []
        rows: list[Json] = []
        notes: dict[str, None] = {}
        for step in plan.steps:
            with self._api.one_question():
                notes |= self._look_at(step, takes, rows)
        return Looked(tuple(_in_order(takes)), tuple(rows), tuple(notes))

    def _look_at(self, step: ModerationStep, takes: list[Take], rows: list[Json]) -> dict[str, None]:
        """Add what one step takes and changes; what else a person should know."""
        notes: dict[str, None] = {}
        if step.deed in (Deed.REMOVE, Deed.PURGE) and step.kind == "post" and (address := self._elsewhere(step.number)):
            notes[f"{step.target} shows its preview from {address}: hiding a picture here does not reach that"] = None
        told = [{"act": step.act, "target": step.target, **row} for row in self._rows(step)]
        rows += told
        takes += self._takes(step, self._names(step, told, notes))
        return notes

    def changed(self, looked: Looked, step: ModerationStep) -> str:
        """Why a step would take something else by now than what was looked at and sealed, or "". Raises: Unreached, Refused."""
        if step.deed not in (Deed.PURGE, Deed.IMAGE, Deed.BAN_DATA):
            return ""
        met = {alias for take in looked.takes for alias in (take.alias, *take.aliases)}
        takes = self._takes(step, self._names(step, list(self._rows(step)), {}))
        fresh = [take.alias for take in takes if met.isdisjoint((take.alias, *take.aliases))]
        return f"it would take {', '.join(fresh)} by now, which nobody has sealed: give the call again" if fresh else ""

    def _takes(self, step: ModerationStep, names: Mapping[str, str]) -> list[Take]:
        return [take for alias, address in names.items() if (take := self._take(step, alias, address)) is not None]

    @cached_property
    def _own(self) -> str | None:
        """The name of this Lemmy, as it stands in its addresses."""
        row = self._api.site()["site_view"]["site"]
        return urlsplit(str(row.get("ap_id") or row.get("actor_id") or "")).hostname

    def _elsewhere(self, post: int) -> str:
        """The address of a preview that visitors fetch from another server, as where the gate refused Lemmy's copy; "" for none."""
        try:
            address = str(self._api.post(post).get("thumbnail_url") or "")
        except NotThere:
            return ""
        return address if address and urlsplit(address).hostname != self._own else ""

    def _rows(self, step: ModerationStep) -> Iterator[Json]:
        """What stands in Lemmy and is lost or changed by the step."""
        try:
            match step.deed:
                case Deed.PURGE if step.kind == "post":
                    yield {"row": self._api.post(step.number)}
                    yield {"comments": list(self._api.comments(step.number))}
                case Deed.PURGE:
                    yield {"row": self._api.comment(step.number)}
                case Deed.BAN_DATA:
                    yield {"row": self._api.person(step.number)}
                case Deed.TAKE | Deed.CUT:
                    yield {"row": {step.field: step.value}}
                case _:
                    return
        except NotThere:
            return

    def _names(self, step: ModerationStep, rows: Sequence[Json], notes: dict[str, None]) -> dict[str, str]:
        """By which names Lemmy would ask pict-rs to delete something, with the addresses that they are the end of."""
        match step.deed:
            case Deed.PURGE if step.kind == "post":
                row: Json = next((row["row"] for row in rows if "row" in row), {})
                addresses = [str(row[name]) for name in ("url", "thumbnail_url") if row.get(name)]
                for address in addresses:
                    if urlsplit(address).hostname != self._own:
                        notes[f"Lemmy fetches {address} before it purges {step.target}: its server learns of that"] = None
                return {_last(address): address for address in addresses if _last(address)}
            case Deed.TAKE if step.alias:  # with an emoji or a tagline Lemmy asks pict-rs for nothing
                return {step.alias: step.value}
            case Deed.IMAGE:
                return {step.target: step.target}
            case Deed.BAN_DATA:
                return {alias: alias for alias in self._uploads(step.number)}
            case _:
                return {}

    def _uploads(self, person: int) -> Iterator[str]:
        """Every upload of an account. Raises: Misconfigured where Lemmy does not give the list to its end."""
        try:
            for image in self._api.images():
                if (image.get("person") or {}).get("id") == person:
                    yield str(image["local_image"]["pictrs_alias"])
        except Unreached as error:
            raise Misconfigured(
                f"Lemmy does not list every upload, so nobody knows what a ban with data would delete: {error}",
                hint="ban without --remove-data; remove posts and pictures one by one",
            ) from error

    def _take(self, step: ModerationStep, alias: str, address: str) -> Take | None:
        whole = step.deed in (Deed.PURGE, Deed.IMAGE)
        take = Take(step, alias, address, (alias,), whole, sha256=self._known(alias))
        if not self._shelf:
            return take if take.sha256 else replace(take, problem=NO_PICTRS)
        known = self._shelf.aliases(alias)
        if not known:
            return None  # pict-rs holds nothing of that name
        take = replace(take, aliases=known, sha256=next(filter(None, map(self._known, known)), None))
        return replace(take, problem=NOT_KEPT) if self._vault is None else take

    def _known(self, alias: str) -> Sha256 | None:
        """The hash under which this is sealed already, whole."""
        sha256 = self._sealed.get(alias)
        return sha256 if sha256 and self._vault is not None and self._vault.check(sha256) else None

    # -- sealing ------------------------------------------------------------------------------------------------------

    def seal(self, looked: Looked, unsealed: Collection[str]) -> Iterator[Done]:
        """Fetch what would be lost, seal it, and look for it in the vault again; each content once.

        Args:
            unsealed: aliases that a person gives up, as far as they cannot be sealed.
        Raises: Misconfigured at the end for what could not be sealed and nobody gave up, CannotWrite, BadEvidence.
        """
        lost: list[str] = []
        met: set[tuple[str, ...]] = set()
        for take in looked.takes:
            if take.aliases in met:
                continue
            met.add(take.aliases)
            problem, sha256 = take.problem, None
            if not problem and self._shelf:
                problem, sha256 = self._kept(take)
            elif not problem:
                sha256 = take.sha256
            given_up = bool(problem) and not {take.alias, *take.aliases}.isdisjoint(unsealed)
            note = f"as {sha256}" if sha256 else "given up: nobody can restore it" if given_up else ""
            step = ModerationStep(Deed.SEAL, "picture", 0, take.alias)
            state = DeedState.FAILED if problem else DeedState.DONE
            self._ledger.platforms.did(
                self._run,
                PlatformDeed(self._clock(), self._actor, PLATFORM, step.act, take.alias, state, sha256, problem or note),
            )
            if problem and not given_up:
                lost.append(f"{take.alias} ({problem})")
            yield Done(step, problem="" if given_up else problem, note=note if not given_up else f"{note} ({problem})")
        if lost:
            raise Misconfigured(
                f"Lemmy would delete what nobody has sealed: {', '.join(lost)}",
                hint="nothing was done in Lemmy. Take posts out of sight instead (--posts remove), or give a picture up knowingly:"
                " --without-sealing ALIAS",
            )

    def _kept(self, take: Take) -> tuple[str, Sha256 | None]:
        """Why it is not in the vault, or the hash under which it is."""
        if self._vault is None:
            return NOT_KEPT, None
        try:
            data = self._shelf.fetch(take.alias)
        except Gone:
            return "", take.sha256  # it went meanwhile: nothing of it is left that Lemmy could destroy
        except (Unreached, TooLarge) as error:
            return str(error), None
        sha256 = Sha256(digest(data).hexdigest())
        because = {"rule": f"before Lemmy deletes it ({take.step.act} {take.step.target})", "aliases": " ".join(take.aliases)}
        self._vault.seal(data, sha256, store=PICTURES, key=take.alias, at=self._clock(), because=because)
        return ("", sha256) if self._vault.check(sha256) else ("the sealed copy does not read back", None)


def _in_order(takes: Sequence[Take]) -> Iterator[Take]:
    """What each step takes after those before it, which may have taken its alias already."""
    by: dict[str, ModerationStep] = {}
    for take in takes:
        made = replace(take, before=by.get(take.alias), rest=tuple(alias for alias in take.aliases if alias not in by))
        yield made
        by = {**dict.fromkeys(made.loses, take.step), **by}


def _last(address: str) -> str:
    """The last part of an address' path, by which Lemmy asks pict-rs."""
    return alias_of(urlsplit(address).path.rsplit("/", 1)[-1])
