"""Where the gate can be reached: this machine's addresses, and the address that pict-rs is given; asks no server."""

import ipaddress
import socket
from dataclasses import dataclass

from fediwarden.config import GateSettings

UNIX = "unix:"
ANY = ("0.0.0.0", "::", "")  # noqa: S104 - what is listened on, not a choice made here
NAMES = (
    "a pict-rs from 0.5.21 on finds no private address by its name, and then refuses every upload (http-client-error);"
    " give it an IPv4 address in numbers"
)


@dataclass(frozen=True, slots=True)
class Given:
    """The host and port that pict-rs is given, and what speaks against it ("" where nothing does)."""

    place: str
    doubt: str = ""


def given(settings: GateSettings) -> Given:
    """What pict-rs should ask: `gate.address`, else where the gate listens, in numbers wherever they can be told."""
    if settings.address:
        host, port = _parts(settings.address)
        return Given(settings.address, "" if _number(host) else f"{host} is a name: {NAMES}")
    if settings.listen.startswith(UNIX):
        return Given(f"{settings.listen}:", "pict-rs itself speaks TCP only: a proxy has to stand in front of a Unix socket")
    host, port = _parts(settings.listen)
    if host in ANY:
        found = [address for address in own_addresses() if ipaddress.ip_address(address.partition("%")[0]).version == 4]
        if not found:
            return Given(f"127.0.0.1:{port}", "it listens everywhere, and this machine has no IPv4 address but its own loopback")
        more = f"; this machine has {', '.join(found)} as well" if len(found) > 1 else ""
        words = f"it listens everywhere: set [gate] address to the address at which pict-rs reaches it{more}"
        return Given(f"{found[0]}:{port}", words)
    if _number(host):
        return Given(settings.listen)
    number = _resolved(host)
    return Given(f"{number or host}:{port}", f"{host} is a name: {NAMES}")


def own_addresses() -> list[str]:
    """This machine's own addresses as far as they can be told, those of loopback left out."""
    found: dict[str, None] = {}
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:  # connecting a datagram socket sends nothing; it tells which address would be used
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found[str(probe.getsockname()[0])] = None
        except OSError:
            continue
    try:
        for info in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM):
            found[str(info[4][0])] = None
    except OSError:
        pass
    return [address for address in found if not ipaddress.ip_address(address.partition("%")[0]).is_loopback]


def is_loopback(listen: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if listen.startswith(UNIX):
        return True
    host, _ = _parts(listen)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parts(place: str) -> tuple[str, str]:
    host, _, port = place.rpartition(":")
    return host.strip("[]"), port


def _number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolved(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return ""
