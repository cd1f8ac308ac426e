"""The gate hides what it let through and is suspected since, by itself; what several people share it leaves."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.core import Core
from tests.support.fake_pictrs import KEY, FakePictrs, running_pictrs
from tests.support.gates import named

from fediwarden.app import App
from fediwarden.model import Answer, AnswerReason, EngineVersion, ObjectRef, StoreName
from fediwarden.vault import make_identities


@pytest.fixture
def home(tmp_path: Path) -> Iterator[tuple[App, FakePictrs]]:
    with running_pictrs(FakePictrs(api_key=KEY)) as fake:
        folder = tmp_path / "home"
        folder.mkdir()
        for name in ("read.toml", "keep.toml"):
            (folder / name).write_text(f'api_key = "{KEY}"\n')
            (folder / name).chmod(0o600)
        publics = [identity.public for identity in make_identities(tmp_path / "keys", 2)]
        (folder / "recipients").write_text("\n".join(publics))
        app = App(
            {
                "FEDIWARDEN_HOME": str(folder),
                "FEDIWARDEN_PROFILE": "other",
                "FEDIWARDEN_VAULT__RECIPIENTS": "recipients",
                "FEDIWARDEN_GATE__STORE": "media",
                "FEDIWARDEN_GATE__ACT": "allowance",
                "FEDIWARDEN_STORES__MEDIA__URL": f"pictrs://127.0.0.1:{fake.port}",
                "FEDIWARDEN_STORES__MEDIA__CREDENTIALS": "read.toml",
                "FEDIWARDEN_STORES__MEDIA__KEEPER_CREDENTIALS": "keep.toml",
            }
        )
        yield app, fake
        app.ledger.close()


def test_a_debt_that_turns_out_suspected_is_purged_unless_somebody_else_uploaded_the_same(
    home: tuple[App, FakePictrs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fediwarden.gate.debts.EVERY", 0.05)
    monkeypatch.setattr("fediwarden.acting.automatic.ACT_SECONDS", 0.2)
    app, fake = home
    core = Core()
    monkeypatch.setattr(App, "policy", core.policy)
    media = StoreName("media")
    for data, aliases in ((b"bad of one", ("a.png",)), (b"bad of two", ("b.png", "c.png"))):
        for alias in aliases:
            fake.put(data, "image/png", alias=alias)
        run = app.ledger.begin("gate", {}, app.clock())
        row = fake.row(aliases[0])
        assert row is not None
        ref = ObjectRef(media, row.hash.hex(), len(data), row.hash.hex())
        app.ledger.record(
            run, [], [Answer(ref, app.clock(), "pict-rs", True, AnswerReason.LATE, named(data), "image/png", debt=True)]
        )
    run = app.ledger.begin("gate", {}, app.clock())
    with capture_logs() as logs, app.gate(run, core.looker):
        _until(lambda: fake.row("a.png") is None)
        _until(lambda: [owed.sha256 for owed in app.ledger.owed()] == [named(b"bad of two")])
        _until(lambda: any("share" in line["event"] for line in logs))
    assert fake.data("b.png") == fake.data("c.png") == b"bad of two"
    assert list(app.ledger.uploads.debts(EngineVersion("1"))) == []


def _until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
