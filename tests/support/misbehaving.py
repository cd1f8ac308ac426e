"""A fork server whose children obey orders in the bytes that they decode, or lack a wall: what one that was taken over may do.

Run in place of `fediwarden.media.fork_server` by the cages of `tests.support.looking`.
"""

import ctypes
import os
import sys
import time
from typing import Any

from fediwarden.media import lockdown, wire
from fediwarden.media.fork_server import _RESULTS, ForkServer, main


class Misbehaving(ForkServer):
    """Obeys."""

    def _look(self, facts: dict[str, Any], data: bytes) -> wire.Report:
        if data.startswith(b"MISBEHAVE:"):
            _obey(data)
        return super()._look(facts, data)


def _obey(data: bytes) -> None:
    match data[10:].split(b":", 1)[0]:
        case b"spin":
            while True:
                pass
        case b"sleep":
            time.sleep(3600)
        case b"hog":
            hoard = []
            while True:
                hoard.append(bytearray(16 << 20))
        case b"segv":
            ctypes.memset(ctypes.c_void_p(1), 0, 1)
        case b"abort":
            os.abort()
        case b"exit":
            os._exit(7)
        case b"say":  # any bytes on the pipe
            os.write(_RESULTS, data[14:])
            os._exit(0)
        case b"flood":
            while True:
                os.write(_RESULTS, b"F" + b"\xff" * 65535)
        case _:
            return


def obeying() -> None:
    """Run the one that obeys."""
    sys.exit(main(server=Misbehaving))


def unwalled(layer: str) -> None:
    """Run the real one, in whose children one wall cannot be put up."""
    names = {"rlimits": "_limit", "no_new_privs": "_no_new_privs", "landlock": "_landlock", "seccomp": "_seccomp"}
    setattr(lockdown, names[layer], lambda _: False)
    sys.exit(main())
