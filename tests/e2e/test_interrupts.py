"""Ctrl-C and SIGTERM: out within five seconds with code 130, what was finished is recorded, the same command goes on from there."""

import signal
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support.command import Home, listed
from tests.support.crashes import bucket_site
from tests.support.fault_proxy import FaultProxy, bad_days
from tests.support.media_makers import animation, colours, still
from tests.support.servers import S3Server
from tests.support.waiting import until

OBJECTS = {f"{number:02}.gif": animation("gif", colours(2, 40 + number, 30)) for number in range(5)} | {
    f"{number:02}.png": still("png", 40 + number, 30, seed=number) for number in range(5, 30)
}


@pytest.fixture
def proxy(s3_server: S3Server) -> Generator[FaultProxy]:
    with bad_days(s3_server.port) as made:
        yield made


@pytest.fixture
def bucket(home: Home, s3_server: S3Server, proxy: FaultProxy, tmp_path: Path) -> str:
    """A bucket of thirty objects, "media", behind the proxy."""
    bucket = s3_server.bucket()
    for key, data in OBJECTS.items():
        s3_server.put(bucket, key, data)
    reader, keeper = s3_server.credentials(tmp_path)
    endpoint = f"http://127.0.0.1:{proxy.port}"
    home.add_store("media", url=f"s3://{bucket}", endpoint=endpoint, credentials=reader, keeper_credentials=keeper)
    return bucket


def looked(home: Home) -> int:
    return sum(event["event"] == "object looked" for event in home.events())


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_scan_of_slow_objects_ends_at_once_and_goes_on_later(
    home: Home, proxy: FaultProxy, bucket: str, kind: signal.Signals
) -> None:
    proxy.plan = lambda number, line: "slow:25" if any(f"/{number:02}." in line for number in range(12, 30)) else ""
    scan = home.start("scan", "--json")
    until(lambda: looked(home) >= 8)

    started = time.monotonic()
    scan.send_signal(kind)
    out, err = scan.communicate(timeout=30)
    assert time.monotonic() - started < 5
    assert scan.returncode == 130
    assert out == b""
    assert b"Traceback" not in err
    assert b"the same command goes on from here" in err
    with home.ledger() as ledger:
        assert ledger.verify() == []
        done = sum(entry.look is not None and entry.look.settles for entry in ledger.entries())
        assert done >= 8
        assert not any(entry.gone for entry in ledger.entries())
    proxy.heal()
    totals = home.run("scan", "--json", expect=1).last
    assert (totals["listed"], totals["skipped"], totals["unreached"]) == (30, done, 0)
    assert totals["listed"] == listed(totals)


def test_an_apply_and_a_restore_that_hang_end_at_once_and_are_completed_later(
    home: Home, s3_server: S3Server, proxy: FaultProxy, bucket: str
) -> None:
    home.run("scan", expect=1)
    site = bucket_site("media", s3_server, bucket)
    gifs = {key: data for key, data in OBJECTS.items() if key.endswith(".gif")}
    for command in (["apply", "--yes"], ["restore", *gifs]):
        begun = len(proxy.seen)
        proxy.plan = lambda number, line, begun=begun: "slow:25" if number > begun + 25 else ""  # type: ignore[misc]
        acting = home.start(*command)
        until(lambda begun=begun: len(proxy.seen) > begun + 26)  # type: ignore[misc]
        started = time.monotonic()
        acting.send_signal(signal.SIGINT)
        _, err = acting.communicate(timeout=30)
        assert time.monotonic() - started < 5
        assert acting.returncode == 130, err
        assert b"Traceback" not in err
        everywhere = [*site.present().values(), *site.quarantined()]
        assert set(everywhere) >= set(gifs.values())

        proxy.heal()
        home.run(*command)
        if command[0] == "apply":
            assert not site.present().keys() & gifs.keys()
            assert sorted(data for data in site.quarantined() if data in gifs.values()) == sorted(gifs.values())
        else:
            assert site.present() == OBJECTS
            assert site.quarantined() == []
    with home.ledger() as ledger:
        assert ledger.verify() == []
        assert list(ledger.hidden()) == []


def test_a_closed_pipe_is_no_failure(home: Home, s3_server: S3Server, bucket: str) -> None:
    home.run("scan", expect=1)
    listing = home.start("list", "--json")
    assert listing.stdout is not None
    assert listing.stderr is not None
    listing.stdout.close()

    with listing.stderr:
        assert b"Traceback" not in listing.stderr.read()
    assert listing.wait(timeout=30) == 0
