"""The few words that a service says to systemd, where it was started by it; nothing happens elsewhere."""

import socket
import time
from collections.abc import Mapping
from contextlib import suppress

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


def notify(environment: Mapping[str, str], *words: str) -> None:
    """Send these words, such as READY or "STATUS=..."."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.connect(address)
        to.sendall("\n".join(words).encode())


def reloading() -> tuple[str, str]:
    """The words that begin a reload; READY ends it."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def watchdog_seconds(environment: Mapping[str, str]) -> float:
    """How often ALIVE has to be said, twice as often as systemd wants it; 0 where it does not care."""
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isascii() and text.isdigit() else 0.0
