"""What may be done now of what the ledger says is owed, within the day's allowance; asks nobody and does nothing."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fediwarden.ledger import Ledger
from fediwarden.model import Act, DeedState, Owed
from fediwarden.stores.interface import IMPORTING


@dataclass(frozen=True, slots=True)
class Plan:
    """What one `apply` would do, worst first, and what the allowance leaves owed."""

    todo: tuple[Owed, ...]
    owed: int  # in all, drills included
    left_today: int  # of the allowance, drills not counted
    over: int  # owed beyond the allowance


def midnight(now: datetime) -> datetime:
    """When the day's allowance began, in UTC."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def planned(
    ledger: Ledger,
    now: datetime,
    *,
    allowance: int,
    drill_allowance: int,
    only: Sequence[str] = (),
    leave: Callable[[Owed], bool] = lambda _: False,
    last: Callable[[Owed], bool] = lambda _: False,
    limit: int | None = None,
) -> Plan:
    """What may be done now. A deed begun today was counted when it began; each other one takes one of the day's allowance.

    What failed on another day comes after what was never tried: objects that cannot be hidden must not use up the
    allowance of every day. After both comes what several people share (`last`). What is to be left (`leave`) stays owed, and
    takes none of the allowance.
    """
    since = midnight(now)
    left = {
        False: max(0, allowance - ledger.acted(since, drill=False)),
        True: max(0, drill_allowance - ledger.acted(since, drill=True)),
    }
    left_today = left[False]

    def counted(owed: Owed) -> bool:
        """What was begun today was counted then; what an unfinished restoring left, when it was hidden first."""
        return owed.last is not None and (owed.last.at >= since or owed.last.act is Act.RESTORE)

    todo: list[Owed] = []
    failed: list[Owed] = []
    shared: list[Owed] = []
    most = sum(left.values())
    total = over = 0
    for owed in ledger.owed(only=only):
        total += 1
        if leave(owed):
            continue
        if last(owed):
            shared.append(owed)
            continue
        if limit is not None and len(todo) >= limit:
            continue
        if counted(owed):
            todo.append(owed)
        elif owed.last is not None and owed.last.state is DeedState.FAILED:
            if len(failed) < most:
                failed.append(owed)
            else:
                over += 1
        elif left[owed.decision.drill]:
            left[owed.decision.drill] -= 1
            todo.append(owed)
        else:
            over += 1
    for owed in failed + shared:
        if limit is not None and len(todo) >= limit:
            break
        if counted(owed):
            todo.append(owed)
        elif left[owed.decision.drill]:
            left[owed.decision.drill] -= 1
            todo.append(owed)
        else:
            over += 1
    return Plan(tuple(todo), total, left_today, over)


@dataclass(frozen=True, slots=True)
class Left:
    """What an unfinished restoring left. It was hidden before, so nobody is asked a second time who shares that."""

    aliases: frozenset[str] | None  # that it imported, or was going to; None where it does not go by aliases

    def mixed(self, aliases: Collection[str]) -> bool:
        """Whether others have these bytes as well, by the aliases that there are now."""
        return self.aliases is not None and not self.aliases.issuperset(aliases)

    def alone(self, aliases: Collection[str]) -> bool:
        """Whether only others have them: nothing that it imported is left."""
        return self.mixed(aliases) and self.aliases is not None and self.aliases.isdisjoint(aliases)


def left_by_restore(ledger: Ledger, owed: Owed) -> Left | None:
    """What is owed again because a restoring did not end; None where it is owed for another reason."""
    found = None if owed.last is None else ledger.left_by_restore(owed.ref.store, owed.ref.key, owed.sha256)
    if found is None:
        return None
    noted = found[0].place.facts.get(IMPORTING) if found[0].place else None
    return Left(None if noted is None else frozenset(noted.split("\n")))
