"""What would be hidden now and who shares it: asked before anybody acts, with no lock held; changes nothing.

The one place where it is chosen, for `apply`, which has a person to ask, and for what acts by itself.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from fediwarden.acting.blast_radius import Radii, Radius
from fediwarden.acting.plan import Left, Plan, left_by_restore, planned
from fediwarden.ledger import Ledger
from fediwarden.model import Owed, Sha256, StoreName

Known = tuple[StoreName, str, Sha256]


def known(owed: Owed) -> Known:
    """What tells one owed object from another."""
    return owed.ref.store, owed.ref.key, owed.sha256


@dataclass(frozen=True, slots=True)
class Proposed:
    """One object that is owed, and who else is met when it is hidden."""

    owed: Owed
    radius: Radius
    left: Left | None = None  # what an unfinished restoring left of it

    @property
    def mixed(self) -> bool:
        """Whether others have it besides what an unfinished restoring left: that goes, theirs only where a person agrees."""
        return self.left is not None and self.left.mixed(self.radius.aliases)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the allowance lets be done now, worst first."""

    alone: tuple[Proposed, ...]  # what may be hidden without asking anybody
    shared: tuple[Proposed, ...]  # what several people share, as far as the allowance has room after that
    waiting: tuple[Proposed, ...]  # what several people share and it has no room for
    plan: Plan  # `alone`, and in numbers what it leaves over; what is shared is counted in neither

    @property
    def todo(self) -> tuple[Proposed, ...]:
        """All that can be done now, if everybody agrees."""
        return self.alone + self.shared


@dataclass(frozen=True, slots=True)
class Terms:
    """Within which limits something is proposed."""

    allowance: int
    drill_allowance: int
    only: Sequence[str] = ()
    limit: int | None = None

    def plan(
        self,
        ledger: Ledger,
        now: datetime,
        *,
        leave: Callable[[Owed], bool] = lambda _: False,
        last: Callable[[Owed], bool] = lambda _: False,
    ) -> Plan:
        """See `plan.planned`."""
        return planned(
            ledger,
            now,
            allowance=self.allowance,
            drill_allowance=self.drill_allowance,
            only=self.only,
            limit=self.limit,
            leave=leave,
            last=last,
        )

    def chosen(self, ledger: Ledger, now: datetime, objects: Set[Known], *, last: Set[Known] = frozenset()) -> Plan:
        """What of these objects is still owed, as far as the allowance has room by now; those in `last` after the others."""
        return planned(
            ledger,
            now,
            allowance=self.allowance,
            drill_allowance=self.drill_allowance,
            leave=lambda owed: known(owed) not in objects,
            last=lambda owed: known(owed) in last,
        )


class Stopped(Exception):
    """It was asked to stop before everybody was asked; nothing is proposed."""


def propose(
    ledger: Ledger,
    now: datetime,
    radii: Callable[[], AbstractContextManager[Radii]],
    terms: Terms,
    *,
    is_shared: Callable[[Owed, Radius], bool],
    agreed: bool = False,
    leave: Callable[[Owed], bool] = lambda _: False,
    stopped: Callable[[], bool] = lambda: False,
) -> Proposal:
    """Ask of one owed object after the other who shares it, until the allowance is filled with what nobody shares.

    What several people share comes after all of that, so that it never keeps the allowance from what nobody shares, and is never
    left for ever either. Each object is asked about once.

    Args:
        radii: tells who else is met; opened only where there is something to ask about.
        is_shared: whether a person has to agree, by what was asked.
        agreed: a person has agreed already to what several people share: it is in its turn, worst first.
        leave: what is not meant at all.
        stopped: asked before each question.
    Raises: Stopped, FediwardenError where nobody can be asked at all.
    """
    alone: dict[Known, Proposed] = {}
    shared: dict[Known, Proposed] = {}
    plan = terms.plan(ledger, now, leave=leave)
    if not plan.todo:
        return Proposal((), (), (), plan)
    with radii() as asking:
        while new := [owed for owed in plan.todo if known(owed) not in alone]:
            for owed in new:
                if stopped():
                    raise Stopped
                one = Proposed(owed, Radius() if owed.decision.drill else asking.of(owed), left_by_restore(ledger, owed))
                # of what a restoring left, ours is taken back without asking
                apart = is_shared(owed, one.radius) if one.left is None else one.left.alone(one.radius.aliases)
                (shared if apart and not agreed else alone)[known(owed)] = one
            plan = terms.plan(ledger, now, leave=lambda owed: leave(owed) or known(owed) in shared)
    chosen = [alone[known(owed)] for owed in plan.todo]
    if not shared:
        return Proposal(tuple(chosen), (), (), plan)
    whole = terms.plan(ledger, now, leave=leave, last=lambda owed: known(owed) in shared)
    room = [shared[known(owed)] for owed in whole.todo if known(owed) in shared]
    waiting = [one for one in shared.values() if one not in room]
    return Proposal(tuple(chosen), tuple(room), tuple(waiting), plan)


def uploaded_meanwhile(proposed: Sequence[Proposed], radii: Radii) -> Iterator[Proposed]:
    """Those that somebody else has uploaded since who shares them was asked. Asks pict-rs for aliases only, not Lemmy again."""
    for one in proposed:
        if one.left is None and not one.owed.decision.drill and not set(radii.aliases(one.owed)) <= set(one.radius.aliases):
            yield one
