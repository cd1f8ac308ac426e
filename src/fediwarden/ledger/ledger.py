"""What was seen, decided and done: facts that are only added, and an index of what each store holds; judges nothing itself."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from threading import RLock
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Self

from fediwarden.errors import CannotWrite
from fediwarden.ledger import database, legacy, maintenance, migrate, platforms, uploads, watching
from fediwarden.ledger.hands import Hands
from fediwarden.ledger.queries import queries
from fediwarden.ledger.rows import (
    EMPTY,
    FIRST,
    Columns,
    Decided,
    Entry,
    History,
    Row,
    Totals,
    clean,
    decided_of,
    decision_columns,
    decision_of,
    deed_columns,
    deed_of,
    dumps,
    encoded,
    entry_of,
    evidence_columns,
    finding_columns,
    finding_of,
    iso,
    link,
    look_of,
    moment,
    ref_columns,
    ref_of,
)
from fediwarden.model import (
    Act,
    Answer,
    Decision,
    DeedEvent,
    DeedState,
    EngineVersion,
    Finding,
    Look,
    ObjectRef,
    Owed,
    RunId,
    Sha256,
    Standing,
    Step,
    StoreName,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

PAGE = 500  # rows read at a time; nothing holds a read open between pages, so that writers and checkpoints go on
CHANGED_SINCE = "changed since"


class Ledger:
    """One ledger, open. Any thread may call anything; writers take turns, also with other processes.

    Every method that writes is one transaction, durable when it returns, and raises CannotWrite (nothing of it is then
    recorded). Iterators read page by page and may be left at any point.
    """

    def __init__(self, engine: "Engine", path: str, *, read_only: bool) -> None:
        self.path = path
        self._engine = engine
        self._writer = database.writing(engine)
        self._read_only = read_only
        self._lock = RLock()
        self._hands = Hands(None if path == database.MEMORY else f"{path}.restoring")

    @classmethod
    def open(cls, url: str | Path, *, read_only: bool = False) -> Self:
        """Open a ledger: a path, `sqlite:///path` or `:memory:`. Made, and brought up to date, unless `read_only`.

        Raises: Misconfigured (not a ledger, damaged, written by a newer program, or missing and read-only), CannotWrite.
        """
        path = database.location(url)
        if not read_only and path != database.MEMORY:
            database.prepare(path)
        engine = database.connect(path, read_only=read_only and path != database.MEMORY)
        try:
            with database.translated_errors(path):
                if read_only and path != database.MEMORY:
                    migrate.check(engine, path)
                else:
                    migrate.bring_up_to_date(engine, path)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, path, read_only=read_only)

    def close(self) -> None:
        """Give back every connection. May be called twice."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def uploads(self) -> "uploads.Uploads":
        """What the gate answered and owes."""
        return uploads.Uploads(self._reading, self._writing, self._hands)

    @property
    def platforms(self) -> "platforms.Platforms":
        """Other names of objects, traces, and what was done on platforms."""
        return platforms.Platforms(self._reading, self._writing)

    @property
    def legacy(self) -> "legacy.Legacy":
        """What earlier tools said about names."""
        return legacy.Legacy(self._reading, self._writing)

    @property
    def watching(self) -> "watching.Watching":
        """What a watching process asks and remembers."""
        return watching.Watching(self._reading, self._writing)

    @property
    def maintenance(self) -> "maintenance.Maintenance":
        """What was promised of vault and stores, and a copy of the whole."""
        return maintenance.Maintenance(self._reading, self._engine, self.path, in_memory=self.path == database.MEMORY)

    @property
    def installation(self) -> str:
        """The random identity made with the ledger."""
        with self._reading() as connection:
            return str(connection.execute(queries()["installation"]).scalar_one())

    # --- runs -----------------------------------------------------------------------------------------------------

    def begin(self, command: str, arguments: Mapping[str, str], at: datetime) -> RunId:
        """Put on record that a command begins; everything it records carries the number."""
        with self._writing() as connection:
            run = int(connection.execute(queries()["last_ids"]).one().runs) + 1
            connection.execute(
                queries()["begin_run"],
                {"id": run, "command": clean(command), "arguments": dumps(dict(arguments)), "at": iso(at)},
            )
        return RunId(run)

    def end(self, run: RunId, outcome: str, counts: Mapping[str, int], at: datetime) -> None:
        """Put on record how it ended; once a run."""
        with self._writing() as connection:
            connection.execute(
                queries()["end_run"], {"run": run, "outcome": clean(outcome), "counts": dumps(dict(counts)), "at": iso(at)}
            )

    # --- listing and looking --------------------------------------------------------------------------------------

    def settle(self, run: RunId, refs: Sequence[ObjectRef], engine: EngineVersion, limit: int = 0) -> set[str]:
        """One page of a listing of one store: which keys need no look, because this engine knows these very bytes.

        Every object of the page is marked as met in this run, unknown ones are added. An empty stamp never settles, nor
        does a look that stopped at an object's size where objects of up to `limit` bytes are fetched now.
        """
        if not refs:
            return set()
        store = clean(refs[0].store)
        if any(ref.store != refs[0].store for ref in refs):
            raise ValueError("a page holds objects of one store")
        unknown = {encoded(ref.key): ref for ref in refs}
        settled: set[str] = set()
        with self._writing() as connection:
            met = connection.execute(queries()["list_page"], {"run": run, "store": store, "keys": list(unknown)}).all()
            changed: list[Columns] = []
            for key, stamp, by, fresh, sha256 in met:
                ref = unknown.pop(key)
                if clean(ref.stamp) != stamp:
                    changed.append({"store": store, "key": key, **ref_columns(ref)})
                elif stamp and fresh and by == engine and (sha256 is not None or ref.size > limit):
                    settled.add(ref.key)
            if changed:
                connection.execute(queries()["restamp_object"], changed)
            if unknown:
                self._add_objects(connection, run, unknown)
            named = [
                {"store": store, "key": encoded(ref.key), "kind": name.kind.value, "name": clean(name.text), "run": run}
                for ref in refs
                for name in ref.names
            ]
            if named:
                connection.execute(queries()["add_name"], named)
        return settled

    def record(self, run: RunId, entries: Sequence[tuple[Look, Decision | None]], answers: Sequence[Answer] = ()) -> None:
        """Looks with what was decided about them, and what the gate answered, in one transaction.

        A seen look pays every debt over its bytes. What lies in the pseudo-store of the gate is in no store: marked as gone.

        A settled look at bytes that this engine already knows with the same standing points at that evidence. A look that
        did not settle leaves earlier evidence and the current decision in place, but the object counts as not scanned
        until it is reached again; its own decision, if there is one, is history only.
        """
        if not entries and not answers:
            return
        with self._writing() as connection:
            ids = connection.execute(queries()["last_ids"]).one()
            next_look, next_finding, next_decision = ids.looks, ids.findings, ids.decisions
            objects = self._objects(connection, run, [look.ref for look, _ in entries])
            known = self._evidence(connection, [look for look, _ in entries])
            looks: list[Columns] = []
            findings: list[Columns] = []
            decisions: list[Columns] = []
            settled: list[Columns] = []
            unreached: list[Columns] = []
            gone: list[Columns] = []
            for look, decision in entries:
                of = (look.ref.store, encoded(look.ref.key))
                number, held = objects[of]
                next_look += 1
                evidence = known.get((look.sha256, look.engine, look.standing)) if look.settles else None
                same_as = evidence
                if evidence is None:
                    evidence = next_look
                    for finding in look.findings:
                        next_finding += 1
                        findings.append({"id": next_finding, "look": next_look, **finding_columns(finding)})
                    if look.settles and look.sha256 and look.engine:
                        known[look.sha256, look.engine, look.standing] = next_look
                looks.append(_look_columns(look, next_look, run, number, same_as))
                if decision is not None:
                    next_decision += 1
                    decisions.append(
                        {
                            "id": next_decision,
                            "run": run,
                            "object": number,
                            "sha256": look.sha256,
                            "look": evidence,
                            "at": iso(look.at),
                            **decision_columns(decision),
                        }
                    )
                common: Columns = {"object": number, "attempt": next_look}
                if look.settles:
                    settled.append(
                        {
                            **common,
                            **ref_columns(look.ref),
                            "run": run,
                            "lacking": _lacking(look),
                            "look": evidence,
                            "engine": look.engine,
                            "sha256": look.sha256,
                            "same": int(look.sha256 is not None and held == look.sha256),
                            "decision": next_decision if decision is not None else None,
                            "step": decision.step.value if decision is not None else None,
                        }
                    )
                    objects[of] = (number, look.sha256)
                elif look.standing is Standing.UNREACHED:
                    unreached.append({**common, **ref_columns(look.ref)})
                else:
                    gone.append({**common, "at": iso(look.at)})
            for name, rows in (
                ("add_look", looks),
                ("add_finding", findings),
                ("add_decision", decisions),
                ("settled_object", settled),
                ("unreached_object", unreached),
                ("gone_object", gone),
            ):
                if rows:
                    connection.execute(queries()[name], rows)
            uploads.leave_gate(connection, entries)
            uploads.add_answers(connection, run, answers)
            uploads.pay(connection, [look for look, _ in entries], looks)

    def known(self, sha256: Sha256, engine: EngineVersion) -> Look | None:
        """The settled look at these bytes by this engine version, with its findings."""
        with self._reading() as connection:
            row = connection.execute(queries()["known"], {"sha256": sha256, "engine": engine}).first()
            if row is None:
                return None
            return look_of(row, ref_of(row.store, row.key, row), _findings(connection, [row.id]).get(row.id, ()))

    def swept(self, run: RunId, store: StoreName, at: datetime | None = None) -> int:
        """After a complete listing: what this run did not meet is gone (or hidden, if we did that). Returns how many are gone."""
        with self._writing() as connection:
            facts = {"run": run, "store": clean(store), "at": iso(at) if at else _run_at(connection, run)}
            connection.execute(queries()["sweep_hidden"], facts)
            return connection.execute(queries()["sweep_gone"], facts).rowcount

    def missing(self, run: RunId, store: StoreName) -> tuple[int, int]:
        """How many objects `swept` would mark as gone, and how many of these were ever looked at. Changes nothing."""
        with self._reading() as connection:
            row = connection.execute(queries()["sweep_missing"], {"run": run, "store": clean(store)}).one()
        return int(row.unmet), int(row.looked)

    def hidden_since(self, run: RunId, store: StoreName) -> int:
        """How many objects that this run, or a later one, still met in the store were hidden since."""
        with self._reading() as connection:
            return int(connection.execute(queries()["hidden_since"], {"run": run, "store": clean(store)}).scalar_one())

    # --- deciding -------------------------------------------------------------------------------------------------

    def verdict(self, sha256: Sha256) -> Decision | None:
        """What a person last decided about these bytes."""
        with self._reading() as connection:
            row = connection.execute(queries()["verdict"], {"sha256": sha256}).first()
            return None if row is None else decision_of(row)

    def said(self, sha256: Sha256) -> list[tuple[datetime, Decision]]:
        """Every word of a person about these bytes, oldest first."""
        with self._reading() as connection:
            rows = connection.execute(queries()["person_decisions"], {"sha256": sha256}).all()
        return [(moment(row.at), decision_of(row)) for row in rows]

    def stale(self, policy: str) -> Iterator[Sequence[Entry]]:
        """Pages of present objects with evidence, about which another policy decided, or none did, and no person."""
        after = 0
        while page := self._entries("stale", {"policy": policy, "after": after, "limit": PAGE}):
            after = page[-1].id
            yield page

    def decide(self, run: RunId, decided: Sequence[tuple[Entry, Decision]], at: datetime | None = None) -> None:
        """Append new decisions about objects already looked at.

        Each becomes current, unless other bytes were looked at, or a person decided, since the entry was read.
        """
        if not decided:
            return
        with self._writing() as connection:
            when = iso(at) if at else _run_at(connection, run)
            number = connection.execute(queries()["last_ids"]).one().decisions
            rows: list[Columns] = []
            looks = {
                row.id: row.look
                for row in connection.execute(queries()["look_of_objects"], {"objects": [entry.id for entry, _ in decided]})
            }
            for entry, decision in decided:
                number += 1
                rows.append(
                    {
                        "id": number,
                        "decision": number,
                        "run": run,
                        "object": entry.id,
                        "sha256": entry.sha256,
                        "look": looks.get(entry.id),
                        "at": when,
                        **decision_columns(decision),
                    }
                )
            connection.execute(queries()["add_decision"], rows)
            connection.execute(queries()["point_decision"], rows)

    def clear(self, run: RunId, sha256: Sha256, decision: Decision, at: datetime | None = None) -> int:
        """A person's decision about these bytes, for every object that holds them. Returns how many do.

        It is on record even when none does, and then answers `verdict` when the bytes turn up.
        """
        with self._writing() as connection:
            return _clear(connection, run, sha256, decision, iso(at) if at else _run_at(connection, run))

    def tie(self, run: RunId, ref: ObjectRef, sha256: Sha256, decision: Decision, at: datetime | None = None) -> bool:
        """A decision about an object that hangs on another one: nobody need have looked at it, and it still lacks that look.

        `sha256` is what its platform says of its bytes; whoever acts holds them to it. Returns False, and records nothing, where other
        bytes were looked at under this key, or where policy decides against a person's word.
        """
        with self._writing() as connection:
            number, held = self._objects(connection, run, [ref])[ref.store, encoded(ref.key)]
            if held not in (None, sha256):
                return False
            names = [
                {
                    "store": clean(ref.store),
                    "key": encoded(ref.key),
                    "kind": name.kind.value,
                    "name": clean(name.text),
                    "run": run,
                }
                for name in ref.names
            ]
            if names:
                connection.execute(queries()["add_name"], names)
            row: Columns = {
                "id": (next_id := connection.execute(queries()["last_ids"]).one().decisions + 1),
                "decision": next_id,
                "run": run,
                "object": number,
                "sha256": sha256,
                "look": connection.execute(queries()["look_of_objects"], {"objects": [number]}).one().look,
                "at": iso(at) if at else _run_at(connection, run),
                **decision_columns(decision),
            }
            connection.execute(queries()["met_object"], row)
            if not connection.execute(queries()["point_decision"], row).rowcount:
                return False
            connection.execute(queries()["add_decision"], row)
            return True

    # --- deeds ----------------------------------------------------------------------------------------------------

    def owed(self, *, only: Sequence[str] = (), drill: bool | None = None) -> Iterator[Owed]:
        """Current quarantine decisions whose hiding is not done, worst first (rank, then age of the decision).

        `only` names keys. What ended CHANGED is not owed until it is looked at again; what was hidden is owed again only
        after the same bytes were met under the key once more and a new decision was made. An object that vanished while a
        hiding was unfinished stays owed: it may be that hiding which took it away, and only the keeper can tell.
        """
        rank, after = 2**31, 0
        keys = [encoded(key) for key in only]
        while True:
            facts = {
                "drill": -1 if drill is None else int(drill),
                "every": int(not keys),
                "only": keys,
                "rank": rank,
                "after": after,
                "limit": PAGE,
            }
            with self._reading() as connection:
                page = connection.execute(queries()["owed"], facts).all()
            for row in page:
                rank, after = row.rank, row.id
                yield _owed(row)
            if len(page) < PAGE:
                return

    def did(self, event: DeedEvent) -> None:
        """One more link in the record of deeds, durable when this returns."""
        with self._writing() as connection:
            _did(connection, event)

    def restoring(self, event: DeedEvent) -> AbstractContextManager[None]:
        """Have a restoring in hand: while this is held, and this process lives, the gate lets its bytes pass. Raises: Busy, CannotWrite."""
        return self._hands.taken(event.store, event.key, event.sha256)

    def restored(self, run: RunId, event: DeedEvent, words: Mapping[Sha256, Decision], ref: ObjectRef | None = None) -> None:
        """A restoring that is done, with a person's word about what came back and its names: all in one transaction, or nothing.

        So no word outlives a restoring that failed, and nothing that came back waits for one.
        """
        with self._writing() as connection:
            for sha256, word in words.items():
                _clear(connection, run, sha256, word, iso(event.at))
            if ref is not None:
                platforms.add_names(connection, run, [ref])
            _did(connection, event)

    def left_by_restore(self, store: StoreName, key: str, sha256: Sha256) -> tuple[DeedEvent, DeedEvent] | None:
        """The unfinished restoring that may have brought some of it back, and the hiding that it was to undo; None where there is none.

        It stands until a hiding, or a restoring, of the same bytes is done.
        """
        facts = {"store": clean(store), "key": encoded(key), "sha256": sha256}
        with self._reading() as connection:
            told = connection.execute(queries()["left_by_restore"], facts).first()
            hidden = connection.execute(queries()["hiding_of"], facts).first()
        return None if told is None or hidden is None else (deed_of(told), deed_of(hidden))

    def acted(self, since: datetime, drill: bool) -> int:
        """How many objects (with their bytes) were begun to be hidden since then; what the allowance is counted from."""
        with self._reading() as connection:
            return int(connection.execute(queries()["acted"], {"since": iso(since), "drill": int(drill)}).scalar_one())

    def hidden(self, *, key: str | None = None, store: StoreName | None = None) -> Iterator[DeedEvent]:
        """What could be restored: the newest done (or begun moving) hiding of each object and bytes, newest first.

        Two contents that were hidden from the same key, one after the other, are two.
        """
        before = 2**62
        while True:
            facts = {
                "before": before,
                "any_store": int(store is None),
                "store": clean(store or ""),
                "any_key": int(key is None),
                "key": encoded(key or ""),
                "limit": PAGE,
            }
            with self._reading() as connection:
                page = connection.execute(queries()["hidden"], facts).all()
            for row in page:
                before = row.seq
                yield deed_of(row)
            if len(page) < PAGE:
                return

    def hidden_because(self, rule: str, reasons: Collection[str]) -> Iterator[DeedEvent]:
        """Of what could be restored: what was hidden by this rule for one of these reasons."""
        with self._reading() as connection:
            rows = connection.execute(
                queries()["hidden_because"], {"rule": rule, "keys": [clean(each) for each in reasons]}
            ).all()
        yield from map(deed_of, rows)

    # --- seeing ---------------------------------------------------------------------------------------------------

    def entries(
        self,
        *,
        store: StoreName | None = None,
        key: str | None = None,
        standing: Standing | None = None,
        step: Step | None = None,
        deed: DeedState | None = None,
        act: Act | None = None,
        not_scanned: bool = False,
        engine: EngineVersion | None = None,
    ) -> Iterator[Entry]:
        """Objects in the order of store and key, those that meet every condition given.

        `standing` is of the last attempt; `deed` and `act` of the last deed event about the bytes held. `not_scanned`
        leaves only present objects that lack something, with `engine` also those that another engine version looked at.
        """
        conditions: Columns = {
            "any_store": int(store is None),
            "store": clean(store or ""),
            "any_key": int(key is None),
            "key": encoded(key or ""),
            "any_standing": int(standing is None),
            "standing": standing.value if standing else "",
            "any_step": int(step is None),
            "step": step.value if step else "",
            "any_deed": int(deed is None),
            "deed": deed.value if deed else "",
            "any_act": int(act is None),
            "act": act.value if act else "",
            "not_scanned": int(not_scanned),
            "engine": engine or "",
            "limit": PAGE,
        }
        after: Columns = {"after_store": clean(store or ""), "after_key": b""}
        while page := self._entries("entries", conditions | after):
            yield from page
            after = {"after_store": clean(page[-1].ref.store), "after_key": encoded(page[-1].ref.key)}

    def entry(self, store: StoreName, key: str) -> Entry | None:
        """One object; None where the ledger never heard of it."""
        page = self._entries("entry", {"store": clean(store), "key": encoded(key)})
        return page[0] if page else None

    def history(self, store: StoreName, key: str) -> History:
        """All that ever happened to one object, oldest first; empty where the ledger never heard of it."""
        name = encoded(key)
        where = {"store": clean(store), "key": name}
        with self._reading() as connection:
            deeds = [deed_of(row) for row in connection.execute(queries()["history_deeds"], where)]
            number = connection.execute(queries()["object_id"], where).scalar()
            looks: list[Look] = []
            decisions: list[Decided] = []
            if number is not None:
                rows = connection.execute(queries()["history_looks"], {"object": number}).all()
                found = _findings(connection, [row.evidence for row in rows])
                looks = [look_of(row, ref_of(store, name, row), found.get(row.evidence, ())) for row in rows]
                made = connection.execute(queries()["history_decisions"], {"object": number})
                decisions = [decided_of(row) for row in made]
        return History(tuple(looks), tuple(decisions), tuple(deeds))

    def totals(self, engine: EngineVersion) -> Totals:
        """The whole ledger in numbers, as this engine version sees it."""
        with self._reading() as connection:
            groups = connection.execute(queries()["totals"], {"engine": engine}).all()
            owed = {bool(row.drill): int(row.number) for row in connection.execute(queries()["totals_owed"])}
            hidden = int(connection.execute(queries()["totals_hidden"]).scalar_one())
            items = int(connection.execute(queries()["totals_items"]).scalar_one())
            asked = connection.execute(queries()["totals_further"], {"engine": engine}).all()
        lacking: defaultdict[str, int] = defaultdict(int)
        steps: defaultdict[str, int] = defaultdict(int)
        objects = gone = hidden_seen = 0
        for row in groups:
            if row.place == "hidden":
                hidden_seen += row.number if row.lacking in (None, "partly") else 0
            elif row.place == "present":
                objects += row.number
                lacking[row.lacking or ""] += row.number
                steps[row.step or ""] += row.number
            else:
                gone += row.number
        empty = lacking.pop(EMPTY, 0)
        scanned = lacking.pop("", 0)
        unsettled = ("never looked at", "unreached", CHANGED_SINCE, "other engine version")
        return Totals(
            objects=objects,
            items=items,
            looked_at=objects - sum(lacking[reason] for reason in unsettled if reason in lacking),
            not_scanned=objects - scanned - empty,
            lacking=dict(sorted(lacking.items())),
            empty=empty,
            flagged=steps[Step.QUARANTINE.value],
            review=steps[Step.REVIEW.value],
            passed=steps[Step.PASS.value],
            owed=owed.get(False, 0),
            owed_drill=owed.get(True, 0),
            hidden=hidden,
            gone=gone,
            seen=scanned + lacking.get("partly", 0) + hidden_seen,
            further=sum(row.number for row in asked if row.found),
            sampled=sum(row.number for row in asked if not row.found),
            sampled_contents=sum(row.contents for row in asked if not row.found),
            sampled_flagged=sum(row.contents for row in asked if not row.found and row.flagged),
        )

    def verify(self) -> list[str]:
        """What does not fit together, a line each: links of the chain of deeds, and pointers to rows that are not there."""
        problems: list[str] = []
        after, previous = 0, FIRST
        while True:
            with self._reading() as connection:
                page = connection.execute(queries()["chain"], {"after": after, "limit": PAGE}).all()
            for row in page:
                content = {name: value for name, value in row._mapping.items() if name not in ("seq", "previous", "hash")}
                if row.seq != after + 1:
                    problems.append(f"deeds {after + 1} to {row.seq - 1} are missing")
                elif row.previous != previous:
                    problems.append(f"deed {row.seq} does not follow deed {after}")
                if link(row.seq, row.previous, content | {"key": bytes(row.key)}) != row.hash:
                    problems.append(f"deed {row.seq} is not what was recorded")
                after, previous = row.seq, row.hash
            if len(page) < PAGE:
                break
        with self._reading() as connection:
            dangling = connection.execute(queries()["dangling"]).all()
        problems.extend(f"{row.number} times: {row.what}" for row in dangling if row.number)
        return problems

    # --- inside ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator["Connection"]:
        if self._read_only:
            raise CannotWrite(
                f"the ledger {self.path} is open for reading only", hint="this is an error of ours; please report it"
            )
        with self._lock, database.translated_errors(self.path), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator["Connection"]:
        # all threads share the one connection of a ledger in memory
        if self.path == database.MEMORY:
            with self._lock, database.translated_errors(self.path), self._engine.connect() as connection:
                yield connection
        else:
            with database.translated_errors(self.path), self._engine.connect() as connection:
                yield connection

    def _entries(self, name: str, facts: Columns) -> list[Entry]:
        with self._reading() as connection:
            rows = connection.execute(queries()[name], facts).all()
            found = _findings(connection, [row.look for row in rows if row.look is not None])
        return [entry_of(row, found) for row in rows]

    def _add_objects(self, connection: "Connection", run: RunId, refs: Mapping[bytes, ObjectRef]) -> dict[bytes, int]:
        number = int(connection.execute(queries()["last_ids"]).one().objects)
        added: dict[bytes, int] = {}
        rows: list[Columns] = []
        for key, ref in refs.items():
            number += 1
            added[key] = number
            rows.append({"id": number, "run": run, "store": clean(ref.store), "key": key, **ref_columns(ref)})
        connection.execute(queries()["add_object"], rows)
        return added

    def _objects(
        self, connection: "Connection", run: RunId, refs: Sequence[ObjectRef]
    ) -> dict[tuple[StoreName, bytes], tuple[int, Sha256 | None]]:
        """The number of each object and the bytes it held so far; unknown ones are added."""
        of_store: defaultdict[StoreName, dict[bytes, ObjectRef]] = defaultdict(dict)
        for ref in refs:
            of_store[ref.store][encoded(ref.key)] = ref
        found: dict[tuple[StoreName, bytes], tuple[int, Sha256 | None]] = {}
        for store, wanted in of_store.items():
            keys = list(wanted)
            for start in range(0, len(keys), 1000):
                facts = {"store": clean(store), "keys": keys[start : start + 1000]}
                for row in connection.execute(queries()["objects_of_page"], facts):
                    del wanted[row.key]
                    found[store, row.key] = (row.id, row.sha256)
            if wanted:
                for key, number in self._add_objects(connection, run, wanted).items():
                    found[store, key] = (number, None)
        return found

    def _evidence(
        self, connection: "Connection", looks: Sequence[Look]
    ) -> dict[tuple[Sha256 | None, EngineVersion | None, Standing], int]:
        """Looks that already hold evidence about these bytes."""
        digests = list({look.sha256 for look in looks if look.settles and look.sha256 and look.engine})
        known: dict[tuple[Sha256 | None, EngineVersion | None, Standing], int] = {}
        for start in range(0, len(digests), 1000):
            for row in connection.execute(queries()["evidence_of_page"], {"digests": digests[start : start + 1000]}):
                known[row.sha256, row.engine, Standing(row.standing)] = row.id
        return known


def _look_columns(look: Look, number: int, run: RunId, of: int, same_as: int | None) -> Columns:
    evidence: Columns = {"kind": None, "notes": None, "unopened": None} if same_as is not None else evidence_columns(look)
    return {
        "id": number,
        "run": run,
        "object": of,
        "at": iso(look.at),
        "standing": look.standing.value,
        **ref_columns(look.ref),
        "sha256": look.sha256,
        "engine": look.engine,
        "same_as": same_as,
        **evidence,
        "reason": look.reason.value if look.reason else None,
        "problem": clean(look.problem),
        "milliseconds": look.milliseconds,
    }


def _lacking(look: Look) -> str | None:
    if look.standing is Standing.BROKEN:
        return f"broken: {look.reason.value}" if look.reason else "broken"
    return "partly" if look.partly else None


def _findings(connection: "Connection", looks: Sequence[int]) -> dict[int, list[Finding]]:
    found: dict[int, list[Finding]] = {}
    wanted = list(dict.fromkeys(looks))
    for start in range(0, len(wanted), 1000):
        for row in connection.execute(queries()["findings_of"], {"looks": wanted[start : start + 1000]}):
            found.setdefault(row.look, []).append(finding_of(row))
    return found


def _run_at(connection: "Connection", run: RunId) -> str:
    return str(connection.execute(queries()["run_at"], {"run": run}).scalar_one())


def _clear(connection: "Connection", run: RunId, sha256: Sha256, decision: Decision, when: str) -> int:
    """A person's word on every object that holds these bytes, or on record alone; how many hold them."""
    number = connection.execute(queries()["last_ids"]).one().decisions
    base: Columns = {"run": run, "sha256": sha256, "at": when, **decision_columns(decision)}
    after = count = 0
    while page := connection.execute(queries()["objects_holding"], {"sha256": sha256, "after": after, "limit": PAGE}).all():
        rows: list[Columns] = []
        for row in page:
            number += 1
            rows.append({**base, "id": number, "decision": number, "object": row.id, "look": row.look})
        connection.execute(queries()["add_decision"], rows)
        connection.execute(queries()["point_decision"], rows)
        after = page[-1].id
        count += len(page)
    if not count:
        connection.execute(queries()["add_decision"], {**base, "id": number + 1, "object": None, "look": None})
    return count


def _did(connection: "Connection", event: DeedEvent) -> None:
    columns = deed_columns(event)
    last = connection.execute(queries()["last_deed"]).first()
    seq = 1 if last is None else int(last.seq) + 1
    previous = FIRST if last is None else str(last.hash)
    connection.execute(queries()["add_deed"], {"seq": seq, "previous": previous, "hash": link(seq, previous, columns), **columns})
    connection.execute(queries()[_effect(event)], {"seq": seq, **columns})


def _effect(event: DeedEvent) -> str:
    """The query that tells the index what an event means for the object, if it still holds these bytes."""
    match event.act, event.state:
        case Act.HIDE, DeedState.MOVED:
            return "deed_hide_moved"
        case Act.HIDE, DeedState.DONE:
            return "deed_hide_done"
        case Act.HIDE, DeedState.CHANGED:
            return "deed_hide_changed"
        case Act.RESTORE, DeedState.MOVED:
            return "deed_restore_moved"
        case Act.RESTORE, DeedState.DONE:
            return "deed_restore_done"
        case _:
            return "deed_begun"


def _owed(row: Row) -> Owed:
    last = None if row.seq is None else deed_of(SimpleNamespace(**{**row._mapping, **_deed_part(row)}))
    return Owed(ref_of(row.store, row.key, row), Sha256(row.object_sha256), row.id, decision_of(row), last)


def _deed_part(row: Row) -> Columns:
    return {"sha256": row.object_sha256, "decision": row.deed_decision, "at": row.deed_at, "drill": row.deed_drill}
