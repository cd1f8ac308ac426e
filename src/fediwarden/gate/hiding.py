"""Hides what the gate let through as a debt and is suspected since; never what several people share, and never over the allowance."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import structlog

from fediwarden.actions import Warden
from fediwarden.ledger import Ledger
from fediwarden.model import Owed, StoreName
from fediwarden.radius import Radii

log = structlog.get_logger("fediwarden")

AGAIN = 600.0  # seconds until what was left owed is asked about again


class Hiding:
    """Acts for the thread that pays debts. Nobody can be asked here, so what `apply` would ask about is left to it."""

    def __init__(
        self,
        ledger: Ledger,
        store: StoreName,
        warden: Callable[[], AbstractContextManager[Warden]],
        radii: Callable[[], AbstractContextManager[Radii]],
        *,
        allowance: int,
        drill_allowance: int,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            store: the gate's pict-rs store; nothing is hidden anywhere else.
            warden: who acts, alone on this ledger while it is held.
            radii: tells who else is met.
        """
        self._ledger = ledger
        self._store = store
        self._warden = warden
        self._radii = radii
        self._allowance = allowance
        self._drill_allowance = drill_allowance
        self._ticks = ticks
        self._left: dict[str, float] = {}  # keys that were left owed, and when they are asked about again

    def __call__(self) -> None:
        """Hide what may be hidden now. Raises: FediwardenError, Busy among them; then it is to be called again."""
        owed = [one for one in self._ledger.owed() if one.ref.store == self._store]
        now = self._ticks()
        self._left = {one.ref.key: self._left[one.ref.key] for one in owed if one.ref.key in self._left}
        chosen = [one for one in owed if self._left.get(one.ref.key, now) <= now and self._was_debt(one)]
        if not chosen:
            return
        with self._radii() as radii:
            alone = {one.ref.key for one in chosen if not self._shared(one, radii)}
        if alone:
            with self._warden() as warden:
                plan = warden.plan(allowance=self._allowance, drill_allowance=self._drill_allowance, only=sorted(alone))
                # another store may have the same key
                for _ in warden.apply(replace(plan, todo=tuple(one for one in plan.todo if one.ref.store == self._store))):
                    continue
        # what is still owed after this was shared, over the allowance, or failed
        self._left |= {one.ref.key: now + AGAIN for one in chosen}

    def _was_debt(self, owed: Owed) -> bool:
        return any(answer.debt for answer in self._ledger.uploads.answers(owed.sha256))

    def _shared(self, owed: Owed, radii: Radii) -> bool:
        if owed.decision.drill:
            return False
        radius = radii.of(owed)
        if radius.shared and owed.ref.key not in self._left:
            log.warning(
                "left owed: several people share it",
                store=owed.ref.store,
                key=owed.ref.key,
                sha256=owed.sha256,
                aliases=len(radius.aliases),
                owners=radius.owners,
            )
        return radius.shared
