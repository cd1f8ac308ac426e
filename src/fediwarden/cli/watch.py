"""`watch`: looks at what comes in, for good; how a service starts, reloads and ends. Decides nothing."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from types import FrameType

import typer

from fediwarden.app import App
from fediwarden.cli.common import build
from fediwarden.cli.output import say, tell
from fediwarden.config import environment
from fediwarden.errors import Exit, FediwardenError

ALIVE_EVERY = 30.0  # seconds between two signs of life where systemd names no time
LEAVE_SECONDS = 4.6  # after which a watch that was told to end has ended; five are promised


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(short_help="Look at what comes in, for good.")(watch)


def watch(
    stores: list[str] = typer.Argument(
        None, metavar="[STORE]...", help="Configured names, folders or URLs. Default: every configured store."
    ),
) -> int:
    """Watch the stores until it is stopped: new media are looked at as they come in, the back-catalogue in the gaps.

    Each store is asked by the cheapest way it offers, and listed whole now and then to prove that nothing was missed
    (docs/watching.md). What is found is recorded, as by `scan`; it is hidden only where `watch.act` allows that.
    SIGTERM and Ctrl-C end it within five seconds. SIGHUP reads the configuration anew; a wrong one is refused and the
    old one stays in force. Exit code 0 when it was told to stop, 130 on Ctrl-C.
    """
    app = build()
    asked = _Asked()
    with _signals(asked):
        wanted: App | None = app
        with suppress(_Ended):
            while wanted is not None and not asked.end:
                wanted = _run(wanted, stores or [], asked)
    if not asked.interrupted:
        say("stopped; what was finished is recorded")
    return asked.exit


class _Ended(BaseException):
    """Told to end while nothing was running yet."""


class _Asked:
    """What signals asked for. Told to end, the process ends in time, whatever still holds it."""

    def __init__(self) -> None:
        self.end = False
        self.again = False
        self.interrupted = False
        self._interruptible = False
        self._heard: SimpleQueue[None] = SimpleQueue()  # unlike an Event it may be used in a handler, whatever that interrupted
        self._ending: SimpleQueue[None] = SimpleQueue()
        Thread(target=self._leave, name="leave", daemon=True).start()

    @property
    def exit(self) -> Exit:
        """The exit code of a watch that was told to end."""
        return Exit.INTERRUPTED if self.interrupted else Exit.OK

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Note what was asked; everything else happens outside the handler."""
        if number == signal.SIGHUP:
            self.again = True
        else:
            self.end = True
            self.interrupted = self.interrupted or number == signal.SIGINT
            self._ending.put(None)
        self._heard.put(None)
        if self.end and self._interruptible:
            self._interruptible = False
            raise _Ended

    def wait(self, seconds: float) -> None:
        """Until something was asked, at most so long."""
        with suppress(Empty):
            self._heard.get(timeout=seconds)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """What is done here may be broken off anywhere: models are loaded, nothing is recorded. Raises: _Ended."""
        self._interruptible = True
        try:
            if self.end:
                raise _Ended
            yield
        finally:
            self._interruptible = False

    def _leave(self) -> None:
        """End the process if it does not by itself; what it held is found again, as after a crash."""
        self._ending.get()
        time.sleep(LEAVE_SECONDS)
        with suppress(OSError):  # not through a stream, which somebody may hold
            os.write(2, b"stopped without waiting for what did not end; it is found again\n")
        os._exit(self.exit)


@contextmanager
def _signals(asked: _Asked) -> Iterator[None]:
    before = {number: signal.signal(number, asked.hear) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(app: App, stores: Sequence[str], asked: _Asked) -> App | None:
    """Watch with one configuration; the next one when it was read anew, None at the end."""
    from fediwarden.watch.systemd import ALIVE, READY, STOPPING, notify, watchdog_seconds

    with ExitStack() as stack:
        with asked.interruptible():
            looker = stack.enter_context(app.looking())
        watching = stack.enter_context(app.watching(stores, looker))
        watching.start()
        names = ", ".join(store.name for store in watching.stores)
        say(f"watching {names}" + (f"; metrics on {app.settings.watch.metrics}" if watching.page else ""))
        notify(os.environ, READY, f"STATUS=watching {names}")
        every = watchdog_seconds(os.environ) or ALIVE_EVERY
        while not asked.end:
            asked.wait(every)
            if watching.complete:
                notify(os.environ, ALIVE)
            if asked.again and not asked.end:
                asked.again = False
                with asked.interruptible():
                    fresh = _read_anew(stores, app.settings.watch.metrics)
                if fresh is not None:
                    return fresh
        notify(os.environ, STOPPING)
    return None


def _read_anew(stores: Sequence[str], metrics: str) -> App | None:
    """The configuration as it is now, checked whole; None where it is wrong, and then the old one stays."""
    from fediwarden.watch.systemd import READY, notify, reloading

    notify(os.environ, *reloading())
    try:
        app = App(environment())
        app.check_watching(stores, metrics)
        app.open_log()
    except FediwardenError as error:
        tell(error)
        say("the new configuration was refused; the old one stays in force")
        notify(os.environ, READY)
        return None
    say("the new configuration is in force")
    return app
