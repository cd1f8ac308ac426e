"""`fediwarden gate` as a real process on a port of its own; for end-to-end tests and benches."""

import http.client
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.command import Home

STARTING = 60.0  # seconds until it answers


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class GateProcess:
    """A running gate."""

    process: "subprocess.Popen[bytes]"
    port: int
    url: str  # what pict-rs is given

    def answers(self) -> bool:
        """Whether it takes requests."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def ready(self) -> None:
        """Wait until it does."""
        end = time.monotonic() + STARTING
        while not self.answers():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, "the gate did not come up"
            time.sleep(0.05)


@contextmanager
def running_gate(home: Home, command: Sequence[str] = (), **settings: object) -> Iterator[GateProcess]:
    """Start it, or `command` in its place, wait until it answers, and end it."""
    port = free_port()
    home.settings |= {f"FEDIWARDEN_GATE__{name.upper()}": str(value) for name, value in settings.items()}
    home.settings["FEDIWARDEN_GATE__LISTEN"] = f"127.0.0.1:{port}"
    if not (home.folder / "gate.secrets").exists():
        home.run("gate", "--new-secret")
    url = home.run("gate", "--url").out.strip()
    process = subprocess.Popen(
        command or home.command("gate"),
        env=home.environment,
        cwd=home.folder.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    gate = GateProcess(process, port, url)
    try:
        gate.ready()
        yield gate
    finally:
        if gate.process.poll() is None:
            gate.process.terminate()
        try:
            gate.process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            gate.process.kill()
            gate.process.communicate()
            raise
