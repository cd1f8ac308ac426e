"""A child that was taken over cannot hold a look up for ever by sending a byte now and then."""

import os
import threading
import time

import pytest

from fediwarden.media import wire


def test_a_message_that_trickles_in_is_given_up_after_some_times_the_silence_that_is_allowed() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    ended = threading.Event()

    def trickle() -> None:
        os.write(theirs, b"R" + (1 << 19).to_bytes(4, "big"))
        while not ended.wait(0.01):
            os.write(theirs, b" ")

    sender = threading.Thread(target=trickle)
    sender.start()
    began = time.monotonic()
    try:
        with pytest.raises(wire.Silent):
            wire.WireReader(ours, 0.05, 16).next()
        took = time.monotonic() - began
    finally:
        ended.set()
        sender.join()
        os.close(ours)
        os.close(theirs)
    assert 0.3 < took < 5
