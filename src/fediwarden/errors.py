"""Every failure the program foresees, under one root that answers three questions: try again? which exit code? what to do?

A failure that a batch must survive becomes a value (`Look.standing`) at the place that meets it; what is
raised past that place stops the command with one line and a hint. Exit codes are promised in `docs/exit-codes.md`.
"""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of every command; where several apply, the order of `design` decides (see `cli`)."""

    OK = 0
    FLAGGED = 1
    USAGE = 2
    NOT_SCANNED = 3
    CONFIGURATION = 4
    UNREACHED = 5
    ALLOWANCE = 6
    INTERNAL = 70
    CANNOT_WRITE = 74
    INTERRUPTED = 130


class FediwardenError(Exception):
    """The root. `retry` says whether the same call may succeed later; `hint` says what a person can do about it."""

    retry: bool = False
    exit: Exit = Exit.INTERNAL

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Misconfigured(FediwardenError):
    """A setting, a file or a missing part makes the command impossible; nothing was done."""

    exit = Exit.CONFIGURATION


class Unreached(FediwardenError):
    """A store, or one object of it, gave no answer in time or an answer that may change. Never a verdict."""

    retry = True
    exit = Exit.UNREACHED


class Refused(Unreached):
    """A store answered and said no: wrong credentials, a missing bucket, a changed host key. Trying again does not help."""

    retry = False


class Lost(Unreached):
    """The platform knows the object and cannot read its file: not gone, and not to be had before the file is back.

    It confirms no hiding and ends no debt; a person may say that it is gone. Trying again at once does not help.
    """

    retry = False


class Gone(FediwardenError):
    """The store answered, and the object is not there (and its bucket or folder is)."""

    exit = Exit.OK


class Changed(FediwardenError):
    """The object is there, with other bytes than the ones meant; it must be looked at again before anything is done."""

    retry = True
    exit = Exit.NOT_SCANNED


class Unsettled(FediwardenError):
    """The object is being written just now (it changed while it was read, or within the settling time)."""

    retry = True
    exit = Exit.NOT_SCANNED


class TooLarge(FediwardenError):
    """The object is larger than this run may hold in memory."""

    exit = Exit.NOT_SCANNED


class NotHidden(FediwardenError):
    """After an object was hidden it can still be had, at its place or from the quarantine place; it stays owed."""

    retry = True
    exit = Exit.NOT_SCANNED


class Occupied(FediwardenError):
    """The key to restore to is taken by other bytes; neither is touched."""

    exit = Exit.CONFIGURATION


class CannotWrite(FediwardenError):
    """A disk is full or read-only: what was being recorded or sealed is not, and so nothing was touched."""

    exit = Exit.CANNOT_WRITE


class Busy(FediwardenError):
    """Another command is acting on the same ledger just now; nothing was done."""

    retry = True
    exit = Exit.CONFIGURATION


class BadEvidence(FediwardenError):
    """Sealed bytes or the chained record of deeds do not agree with what was written."""

    exit = Exit.INTERNAL
