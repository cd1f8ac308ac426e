"""A gate in memory for tests: real desk, recorder, ledger and vault; looks come from `core`, as slow as a test wants them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from threading import Event

from tests.support.core import Core

from fediwarden.config import GateSettings
from fediwarden.gate.core import Gate
from fediwarden.gate.debts import Payer
from fediwarden.gate.secrets import Secrets
from fediwarden.ledger import UploadTotals
from fediwarden.model import Answer, Blob, Debt, EngineVersion, Sha256, StoreName
from fediwarden.stores.interface import Reader
from fediwarden.vault import Vault, Vaults, make_identities

PICTRS = StoreName("pictrs")
SECRET = "Kq3vX9-stand-in-for-tests-7Zt"
SECRETS = Secrets((SECRET, "Another-one-of-two-Wm4pR8"))
ENGINE = EngineVersion("1")


def named(data: bytes) -> Sha256:
    """The SHA-256 of some bytes."""
    return Sha256(sha256(data).hexdigest())


async def in_chunks(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    """A body as it comes over a wire."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
        await asyncio.sleep(0)


@dataclass
class Yard:
    """A gate and what stands around it."""

    gate: Gate
    core: Core
    vaults: Vaults
    hold: Event = field(default_factory=Event)  # looks wait until it is set

    async def ask(self, data: bytes, claimed: str = "image/png", *, began: float | None = None) -> bool:
        """One upload."""
        return await self.gate.judge("pict-rs", claimed, in_chunks(data), time.monotonic() if began is None else began)

    def asked(self, *uploads: bytes, claimed: str = "image/png") -> list[bool]:
        """Several uploads at once."""

        async def every() -> list[bool]:
            return list(await asyncio.gather(*(self.ask(data, claimed) for data in uploads)))

        return asyncio.run(every())

    def answers(self, data: bytes) -> list[Answer]:
        """What is on record about some bytes."""
        return self.core.ledger.uploads.answers(named(data))

    @property
    def debts(self) -> Sequence[Debt]:
        """What is owed a look."""
        return list(self.core.ledger.uploads.debts(ENGINE))

    @property
    def totals(self) -> UploadTotals:
        """The gate in numbers."""
        return self.core.ledger.uploads.totals(ENGINE, self.core.clock.now.replace(year=2000))

    def paying(self, reader: Reader | None, **more: object) -> Payer:
        """The thread that pays debts, not started."""
        settings: dict[str, object] = {"object_limit": 1 << 20, "lapse": timedelta(hours=24), **more}
        return Payer(self.core.ledger, self.gate.desk, reader, ENGINE, self.core.clock, **settings)  # type: ignore[arg-type]


@contextmanager
def a_gate(
    folder: Path,
    *,
    workers: int = 2,
    store: StoreName | None = PICTRS,
    beside: Sequence[StoreName] = (),
    core: Core | None = None,
    slow: bool = False,
    **settings: object,
) -> Iterator[Yard]:
    """A gate at work. `slow` lets no look end before the yard's `hold` is set."""
    core = core or Core()
    publics = [identity.public for identity in make_identities(folder / "keys", 2)]
    vaults = Vaults(Vault(folder / "vault", publics), Vault(folder / "vault-drill", publics))
    yard_hold = Event()
    if not slow:
        yard_hold.set()

    def wait(_: Blob) -> None:
        yard_hold.wait(20)

    core.opener.before = wait
    gate = Gate(
        GateSettings.model_validate({"deadline_seconds": 3.0, **settings}),
        core.ledger,
        core.begun("gate"),
        core.looker,
        core.policy,
        vaults,
        core.clock,
        workers=workers,
        store=store,
        beside=beside,
    )
    gate.start()
    try:
        yield Yard(gate, core, vaults, yard_hold)
    finally:
        yard_hold.set()
        gate.end()
        assert core.ledger.verify() == []
