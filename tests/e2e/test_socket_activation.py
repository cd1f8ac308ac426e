"""The gate behind systemd's socket: what asks while it restarts waits, and is answered by the next one."""

import http.client
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.support.command import Home
from tests.support.gate_process import GateProcess

# what systemd does between fork and exec
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "fediwarden-gate.socket"}
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def activated(home: Home, bound: socket.socket) -> Iterator[GateProcess]:
    """A gate that is given the socket and opens none."""
    handed = bound.fileno()
    process = subprocess.Popen(
        [sys.executable, "-c", HAND_OVER, str(handed), *home.command("gate")],
        env=home.environment,
        pass_fds=(handed,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield GateProcess(process, bound.getsockname()[1], "")
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_gate_that_systemd_restarts_keeps_its_socket_and_loses_no_request(home: Home) -> None:
    home.run("gate", "--new-secret")
    home.settings["FEDIWARDEN_GATE__LISTEN"] = "192.0.2.1:1"  # nobody's: only the socket that is handed over can work
    with socket.create_server(("127.0.0.1", 0), backlog=16) as bound, ThreadPoolExecutor(1) as pool:
        with activated(home, bound) as first:
            first.ready()
        waiting = pool.submit(_health, first.port)  # nobody takes it now
        with activated(home, bound):
            assert waiting.result(60) == 200


def _health(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/healthz")
    status = connection.getresponse().status
    connection.close()
    return status
