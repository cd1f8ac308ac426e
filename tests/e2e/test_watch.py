"""`fediwarden watch` as a service: real processes, real file events, real signals."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.support.command import Home, files_below, write
from tests.support.media_makers import animation, colours, still
from tests.support.processes import family
from tests.support.waiting import until


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def watching(home: Home, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = home.start("watch", *arguments)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def looked(home: Home) -> set[str]:
    return {event["key"] for event in home.events() if event["event"] == "object looked"}


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def up(port: int) -> bool:
    try:
        return get(port, "/healthz")[0] == 200
    except OSError:
        return False


def test_a_folder_tells_what_comes_in_and_what_came_in_while_nobody_listened_is_found(
    new_home: Callable[..., Home], tmp_path: Path
) -> None:
    port = free_port()
    home = new_home(WATCH__ACT="allowance", WATCH__METRICS=f"127.0.0.1:{port}", ACTING__ALLOWANCE="1")
    store = tmp_path / "media"
    write(store, {"old.png": still("png", 40, 30, seed=1)})
    home.add_store("media", url=store)
    with watching(home) as process:
        until(lambda: up(port) and "old.png" in looked(home))
        gif = animation("gif", colours(2, 41, 30))
        (store / "deep/er").mkdir(parents=True)
        (store / "deep/er/new.gif").write_bytes(gif)
        (store / "new.png").write_bytes(still("png", 42, 30, seed=2))
        until(lambda: {"deep/er/new.gif", "new.png"} <= looked(home))
        until(lambda: "deep/er/new.gif" not in files_below(store))
        assert home.unsealed(gif)
        assert 'fediwarden_store_signal{signal="events",store="media"} 1.0' in get(port, "/metrics")[1]
        told = home.run("status", "--json").last["watch"]
        assert [(one["store"], one["running"], one["blind"]) for one in told] == [("media", True, [])]
        assert "watch: media learns by events" in home.run("status").out
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert time.monotonic() - started < 5
    assert (process.returncode, b"Traceback" in err) == (0, False), err
    assert "watch: media NOT WATCHED for 0 min" in home.run("status").out
    write(store, {"missed.png": still("png", 43, 30, seed=3)})
    with watching(home) as process:
        until(lambda: "missed.png" in looked(home))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
    assert (process.returncode, b"Traceback" in err) == (130, False), err
    with home.ledger() as ledger:
        assert ledger.verify() == []


def test_a_changed_configuration_is_read_anew_and_a_wrong_one_is_refused(home: Home, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for store in (first, second):
        write(store, {f"{store.name}.png": still("png", 40, 30, seed=len(store.name))})
    home.add_store("first", url=first)
    notified = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(notified))
        systemd.settimeout(40)
        home.settings["NOTIFY_SOCKET"] = str(notified)

        def next_word(wanted: str) -> None:
            while wanted not in systemd.recv(4096).decode().split("\n"):
                continue

        with watching(home) as process:
            next_word("READY=1")
            until(lambda: "first.png" in looked(home))
            before = (home.folder / "fediwarden.toml").read_text()
            (home.folder / "fediwarden.toml").write_text(before + "\n[wrong]\n")
            process.send_signal(signal.SIGHUP)
            next_word("RELOADING=1")
            next_word("READY=1")
            (first / "still.png").write_bytes(still("png", 44, 30, seed=9))
            until(lambda: "still.png" in looked(home))

            (home.folder / "fediwarden.toml").write_text(before)
            home.add_store("second", url=second)
            process.send_signal(signal.SIGHUP)
            next_word("READY=1")
            until(lambda: "second.png" in looked(home))
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"the old one stays in force" in err
    assert b"the new configuration is in force" in err
    assert b"Traceback" not in err


def test_a_folder_that_was_away_is_watched_again(new_home: Callable[..., Home], tmp_path: Path) -> None:
    port = free_port()
    home = new_home(WATCH__METRICS=f"127.0.0.1:{port}", WATCH__SECONDS="1")
    store = tmp_path / "media"
    write(store, {"a.png": still("png", 40, 30, seed=1)})
    home.add_store("media", url=store)
    with watching(home) as process:
        until(lambda: up(port) and "a.png" in looked(home))
        store.rename(tmp_path / "away")
        until(lambda: any(event["event"] == "store unreached" for event in home.events()))
        until(lambda: 'fediwarden_store_failures{store="media"} 0.0' not in get(port, "/metrics")[1])
        (tmp_path / "away").rename(store)
        (store / "b.png").write_bytes(still("png", 41, 30, seed=2))
        until(lambda: "b.png" in looked(home))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=5)
        assert process.returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_told_to_end_while_it_starts_it_does_not_load_to_the_end(
    new_home: Callable[..., Home], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    policy = tmp_path / "policy.toml"
    os.mkfifo(policy)  # which nobody ever writes: the start takes for ever
    home = new_home(POLICY__FILE=str(policy))
    home.add_store("media", url=tmp_path)
    with watching(home) as process:
        until(lambda: policy_is_being_read(process.pid))
        started = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert time.monotonic() - started < 5
    assert (process.returncode, b"Traceback" in err) == (code, False), err


def policy_is_being_read(pid: int) -> bool:
    """Whether a process waits for the other end of a FIFO."""
    return "fifo_open" in Path(f"/proc/{pid}/wchan").read_text() or "wait_for_partner" in Path(f"/proc/{pid}/wchan").read_text()


def test_told_to_end_it_ends_in_time_whatever_holds_it(new_home: Callable[..., Home], tmp_path: Path) -> None:
    port = free_port()
    home = new_home(WATCH__METRICS=f"127.0.0.1:{port}")
    store = tmp_path / "media"
    write(store, {"a.png": still("png", 40, 30, seed=1)})
    home.add_store("media", url=store)
    with watching(home) as process:
        until(lambda: up(port) and "a.png" in looked(home))
        children = family(process.pid)[1:]
        try:
            for child in children:  # the decoders hang, and with them everything that waits for one
                os.kill(child, signal.SIGSTOP)
            (store / "b.png").write_bytes(still("png", 41, 30, seed=2))
            time.sleep(1)
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
        finally:
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
    assert time.monotonic() - started < 5
    assert process.returncode == 0, err
    assert b"stopped without waiting" in err
    with watching(home) as process:
        until(lambda: "b.png" in looked(home))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=5)


def test_a_store_is_watched_once(home: Home, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for store in (first, second):
        write(store, {f"{store.name}.png": still("png", 40, 30, seed=len(store.name))})
        home.add_store(store.name, url=store)
    with watching(home, "first") as process:
        until(lambda: "first.png" in looked(home))
        until(lambda: "watch: first learns by" in home.run("status").out)
        assert "watch: second NEVER WATCHED" in home.run("status").out
        ran = home.run("watch", expect=4)
        assert f"another process watches the store first (process {process.pid})" in ran.err
        with watching(home, "second"):
            until(lambda: "second.png" in looked(home))
