"""What keeps the gate within its bounds: room for large debts, tries of debts, silent and superfluous connections."""

import asyncio
import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from tests.support.gates import PICTRS, SECRET, SECRETS, Yard, a_gate, named
from tests.support.waiting import until

from fediwarden.errors import Unreached
from fediwarden.gate import core, serve
from fediwarden.gate.protocols import application
from fediwarden.model import Answer, AnswerReason, Blob, ObjectRef
from fediwarden.platforms.pictrs.hashes import Hash
from fediwarden.stores.memory import MemoryStore

PNG = 7
BAD = b"bad"


def key(data: bytes) -> str:
    return Hash.of(data, PNG).hex


def debt(yard: Yard, data: bytes) -> None:
    """A debt of an earlier life."""
    ref = ObjectRef(PICTRS, key(data), len(data), key(data))
    answer = Answer(ref, yard.core.clock(), "pict-rs", True, AnswerReason.LATE, named(data), "image/png", debt=True)
    yard.core.ledger.record(yard.core.begun("gate"), [], [answer])


class Counting(MemoryStore):
    """Counts what is fetched."""

    fetches = 0

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        self.fetches += 1
        return super().fetch(ref, limit)


def test_a_suspected_picture_that_a_scan_met_is_sealed_before_its_second_upload_is_refused(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        ref = ObjectRef(PICTRS, key(BAD), len(BAD), key(BAD))
        look = yard.core.looker.look(Blob(ref, BAD, named(BAD)))
        yard.core.ledger.record(yard.core.begun("scan"), [(look, None)])
        assert not yard.vaults.evidence.check(named(BAD))

        assert yard.asked(BAD) == [False]
        (answer,) = yard.answers(BAD)
        assert (answer.why, answer.sealed) == (AnswerReason.KNOWN, True)
        assert yard.vaults.evidence.check(named(BAD))


def test_a_debt_larger_than_all_room_is_paid_alone_and_holds_up_no_other(tmp_path: Path) -> None:
    large, small = b"good" + bytes(2 << 20), b"good too"
    with a_gate(tmp_path, in_flight_mb=1) as yard:
        store = MemoryStore(PICTRS)
        for data in (large, small):
            debt(yard, data)
            store.put(key(data), data)
        payer = yard.paying(store, object_limit=8 << 20)
        payer.start()
        try:
            until(lambda: not yard.debts, 10)
        finally:
            payer.end(5)
        assert yard.gate.desk.held == 0


def test_a_debt_that_cannot_be_looked_at_is_not_fetched_over_and_over(tmp_path: Path) -> None:
    def fail(_: Blob) -> None:
        raise Unreached("the cage gave no answer")

    with a_gate(tmp_path) as yard:
        yard.core.opener.before = fail
        debt(yard, b"good")
        store = Counting(PICTRS)
        store.put(key(b"good"), b"good")
        payer = yard.paying(store)
        for _ in range(5):
            payer._pass()
            until(lambda: yard.gate.desk.waiting == 0)
        assert store.fetches == 1
        assert len(yard.debts) == 1


@contextmanager
def served(yard: Yard) -> Iterator[int]:
    """The gate over TCP; the port."""
    with serve.listening("127.0.0.1:0", {}) as bound:
        server = serve.server_of(application(yard.gate, SECRETS))
        thread = Thread(target=lambda: asyncio.run(server.serve(sockets=[bound.dup()])))
        thread.start()
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def closed(connection: socket.socket, seconds: float) -> bool:
    """Whether the other side closes it in time."""
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_connections_that_say_nothing_or_trickle_are_closed_and_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "HEARING", 0.4)
    with a_gate(tmp_path) as yard, served(yard) as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        silent[0].send(b"POST /validate/")
        assert ask(port, b"good") == 200
        assert all(closed(connection, 3) for connection in silent)
        for connection in silent:
            connection.close()


def test_more_connections_than_there_may_be_are_closed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MOST", 3)
    with a_gate(tmp_path) as yard, served(yard) as port:
        kept = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", port)) as superfluous:
            assert closed(superfluous, 2)
        for connection in kept:
            assert not closed(connection, 0.05)
            connection.close()
        until(lambda: answers(port))


def test_a_stranger_with_a_body_hears_the_same_404_as_one_without(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard, served(yard) as port:
        assert {ask(port, bytes(size), "wrong") for size in (0, 900_000)} == {404}
        assert yard.gate.counts.answers == 0


def test_an_error_of_ours_refuses_and_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(core.Gate, "_known", broken)
    with a_gate(tmp_path) as yard, served(yard) as port:
        assert ask(port, b"good") == 406
        assert yard.gate.desk.held == 0


def ask(port: int, data: bytes, secret: str = SECRET) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", f"/validate/{secret}", data, {"Content-Type": "image/png"})
        answer = connection.getresponse()
        assert b"detail" not in answer.read()
        return answer.status
    finally:
        connection.close()


def answers(port: int) -> bool:
    try:
        return ask(port, b"good") == 200
    except OSError:
        return False
