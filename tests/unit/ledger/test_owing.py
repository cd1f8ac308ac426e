"""Whatever is looked at, decided and done in whatever order: a small model says what is owed and what can be restored."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.ledgers import ENGINE, NOW, STORE, a_decision, a_hash, a_look, a_ref, begun

from fediwarden.ledger import Ledger
from fediwarden.model import Act, DeedEvent, DeedState, Standing, Step

KEYS = ("a", "b")
CONTENTS = ("x", "y")
UNFINISHED = {(Act.HIDE, state) for state in (DeedState.BEGUN, DeedState.SEALED, DeedState.MOVED, DeedState.FAILED)}


@dataclass
class Held:
    """What the model thinks of one object."""

    content: str
    present: bool = True
    replaced: bool = False
    step: Step = Step.PASS
    decision: int = 0
    done: int = -1


@dataclass
class Model:
    """What ought to be."""

    objects: dict[str, Held] = field(default_factory=dict)
    last: dict[tuple[str, str], tuple[Act, DeedState]] = field(default_factory=dict)
    hidden: set[tuple[str, str]] = field(default_factory=set)
    decisions: int = 0

    def owed(self) -> set[tuple[str, str]]:
        return {
            (key, held.content)
            for key, held in self.objects.items()
            if held.step is Step.QUARANTINE
            and not held.replaced
            and held.done != held.decision
            and (held.present or self.last.get((key, held.content)) in UNFINISHED)
        }


class Owing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger.open(":memory:")
        self.run_id = begun(self.ledger)
        self.model = Model()

    def teardown(self) -> None:
        assert self.ledger.verify() == []
        self.ledger.close()

    @rule(key=st.sampled_from(KEYS), content=st.sampled_from(CONTENTS), step=st.sampled_from(Step))
    def look(self, key: str, content: str, step: Step) -> None:
        ref = a_ref(key, stamp=content)
        self.ledger.settle(self.run_id, [ref], ENGINE)
        self.ledger.record(self.run_id, [(a_look(ref, content=content), a_decision(step))])
        self.model.decisions += 1
        held = self.model.objects.setdefault(key, Held(content))
        held.content, held.present, held.replaced = content, True, False
        held.step, held.decision = step, self.model.decisions

    @rule(key=st.sampled_from(KEYS))
    def fail_to_reach(self, key: str) -> None:
        if key in self.model.objects:
            self.ledger.record(self.run_id, [(a_look(a_ref(key), Standing.UNREACHED), None)])

    @rule(key=st.sampled_from(KEYS))
    def find_gone(self, key: str) -> None:
        if key in self.model.objects:
            self.ledger.record(self.run_id, [(a_look(a_ref(key), Standing.GONE), None)])
            self.model.objects[key].present = False

    @rule()
    def sweep(self) -> None:
        self.run_id = begun(self.ledger)
        self.ledger.swept(self.run_id, STORE)
        for held in self.model.objects.values():
            held.present = False

    @rule(content=st.sampled_from(CONTENTS), step=st.sampled_from([Step.PASS, Step.QUARANTINE]))
    def a_person_decides(self, content: str, step: Step) -> None:
        count = self.ledger.clear(self.run_id, a_hash(content), a_decision(step, by="ada"))
        holders = [held for _, held in sorted(self.model.objects.items()) if held.content == content]
        assert count == len(holders)
        self.model.decisions += max(1, count)
        if holders:
            found = {entry.ref.key: entry.decision_id for entry in self.ledger.entries()}
            for key, held in self.model.objects.items():
                if held.content == content:
                    number = found[key]
                    assert number is not None
                    held.step, held.decision = step, number

    @precondition(lambda self: self.model.owed())
    @rule(data=st.data(), state=st.sampled_from(DeedState))
    def hide(self, data: Any, state: DeedState) -> None:
        key, content = data.draw(st.sampled_from(sorted(self.model.owed())))
        held = self.model.objects[key]
        self.ledger.did(self.event(Act.HIDE, state, key, content, held.decision))
        self.model.last[key, content] = (Act.HIDE, state)
        if state in (DeedState.MOVED, DeedState.DONE):
            self.model.hidden.add((key, content))
        if state is DeedState.DONE:
            held.present, held.done = False, held.decision
        if state is DeedState.CHANGED:
            held.replaced = True

    @precondition(lambda self: self.model.hidden)
    @rule(data=st.data(), state=st.sampled_from([DeedState.BEGUN, DeedState.MOVED, DeedState.FAILED, DeedState.DONE]))
    def restore(self, data: Any, state: DeedState) -> None:
        key, content = data.draw(st.sampled_from(sorted(self.model.hidden)))
        held = self.model.objects[key]
        self.ledger.did(self.event(Act.RESTORE, state, key, content, held.decision))
        self.model.last[key, content] = (Act.RESTORE, state)
        if state is DeedState.DONE:
            self.model.hidden.remove((key, content))
            if held.content == content:
                held.present, held.done = True, held.decision

    @invariant()
    def what_is_owed_and_what_is_hidden_is_what_ought_to_be(self) -> None:
        owed = {(entry.ref.key, entry.sha256) for entry in self.ledger.owed()}
        assert owed == {(key, a_hash(content)) for key, content in self.model.owed()}
        hidden = {(event.key, event.sha256) for event in self.ledger.hidden()}
        assert hidden == {(key, a_hash(content)) for key, content in self.model.hidden}
        totals = self.ledger.totals(ENGINE)
        assert (totals.owed, totals.hidden) == (len(owed), len(hidden))
        for entry in self.ledger.entries():
            assert entry.hidden + entry.gone + self.model.objects[entry.ref.key].present == 1

    @staticmethod
    def event(act: Act, state: DeedState, key: str, content: str, decision: int) -> DeedEvent:
        return DeedEvent(act, state, STORE, key, a_hash(content), decision, "ada", NOW)


Owing.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
test_whatever_happens_nothing_owed_is_lost_and_nothing_is_owed_twice = Owing.TestCase
