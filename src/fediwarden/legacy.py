"""Reads what fedi-safety wrote down (`lemmy_safety.db`) and says what it had missed; takes over no verdict and changes no store.

That tool kept one boolean for a file's name: nothing of the bytes, of a score, or of what looked. So its words are history
here. They settle nothing: every object is looked at as if it had never been met.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from fediwarden.errors import Misconfigured
from fediwarden.ledger import Entry, Ledger, LegacyWord
from fediwarden.model import RunId, Step, StoreName

TOOL = "fedi-safety"
WRONG = "name the lemmy_safety.db that fedi-safety wrote beside its scripts"
PAGE = 5000


@dataclass(frozen=True, slots=True)
class Missed:
    """One object that the earlier tool left as it was, though there was something to do or to know."""

    what: str  # one of the words of MISSED
    key: str
    suspected: bool | None  # what it said; None where it said nothing
    entry: Entry | None = None


MISSED = {
    "skipped": "it met and never looked at: an error marked them as checked for ever",
    "called safe": "it called safe, and are suspected here",
    "still there": "it suspected, and are in the store all the same",
    "never met": "are in the store, and it never met them",
}


@dataclass(slots=True)
class Imported:
    """What was in the file, and what it means for the store."""

    rows: int = 0
    safe: int = 0
    suspected: int = 0
    skipped: int = 0
    unreadable: int = 0  # rows without a name, or with a verdict that is none
    matched: int = 0  # names of objects that the ledger knows in this store
    unmatched: int = 0
    ambiguous: int = 0  # of these: several objects could be meant
    queued: int = 0  # objects that the ledger had never heard of, and now expects
    missed: Counter[str] = field(default_factory=Counter)


def read(file: Path) -> Iterator[tuple[str, LegacyWord] | None]:
    """Every row of the file: a name and what was said of it, or None for a row that is not to be understood.

    The file is opened for reading alone, and nothing is left beside it.

    Raises: Misconfigured when it is no such file, or is being written to.
    """
    path = file.absolute()
    if not path.is_file():
        raise Misconfigured(f"there is no file {file}", hint=WRONG)
    for beside in ("-wal", "-journal"):
        waiting = path.with_name(path.name + beside)
        if waiting.exists() and waiting.stat().st_size:
            raise Misconfigured(
                f"{file} is being written to, or a writer was cut off ({waiting.name} is beside it)",
                hint="stop fedi-safety; if it is stopped, copy both files elsewhere, open the copy once with sqlite3, and import that",
            )
    try:
        address = "file:" + quote(os.fsencode(path)) + "?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.text_factory = bytes
            columns = {_words(row[1]) for row in connection.execute("PRAGMA table_info(images)")}
            if not {"filename", "csam"} <= columns:
                raise Misconfigured(f"{file} has no table images with filename and csam", hint=WRONG)
            when = "created" if "created" in columns else "''"
            cursor = connection.execute(f"SELECT filename, csam, {when} FROM images")  # noqa: S608 - one of two constants
            while page := cursor.fetchmany(PAGE):
                yield from (_row(*row) for row in page)
    except sqlite3.Error as error:
        raise Misconfigured(f"{file} is not a database of fedi-safety, or is damaged: {error}", hint=WRONG) from error


def _row(name: object, suspected: object, when: object) -> tuple[str, LegacyWord] | None:
    if not isinstance(name, bytes) or not name or suspected not in (None, 0, 1):
        return None
    said = None if suspected is None else bool(suspected)
    return _words(name), LegacyWord(TOOL, said, _words(when) if isinstance(when, bytes) else "")


def _words(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def take_over(
    ledger: Ledger,
    run: RunId,
    store: StoreName,
    file: Path,
    *,
    root: str = "",
    expect: bool = True,
    tell: Callable[[Missed], None] = lambda _: None,
) -> Imported:
    """Import a file's words about one store, and compare them with what is known of it.

    A name means the object of that key; else the one that a platform knows by it; else the only one whose key ends with
    it. The file's names are held in memory.

    Args:
        root: the folder that the store is, for names that are whole paths.
        expect: note what it skipped as never looked at where this store was never listed, so that `status` counts it.

    Raises: Misconfigured, CannotWrite.
    """
    done = Imported()
    words: dict[str, LegacyWord] = {}
    for row in read(file):
        done.rows += 1
        if row is None:
            done.unreadable += 1
            continue
        name, word = row
        if root and name.startswith(root.rstrip("/") + "/"):
            name = name[len(root.rstrip("/")) + 1 :]
        words[name] = word
        match word.suspected:
            case None:
                done.skipped += 1
            case True:
                done.suspected += 1
            case False:
                done.safe += 1
    meant, listed = _meant(ledger, store, words, done)
    ledger.legacy.add(run, store, ((meant.get(name, name), word) for name, word in words.items()))
    done.matched = len(meant)
    done.unmatched = len(words) - len(meant)
    if expect and not listed:
        done.queued = ledger.legacy.expect(run, store, (name for name, word in words.items() if word.suspected is None))
    _compare(ledger, store, words, meant, done, tell)
    return done


def _meant(ledger: Ledger, store: StoreName, words: Mapping[str, LegacyWord], done: Imported) -> tuple[dict[str, str], bool]:
    """The key of the object that each name means, and whether the ledger knows anything in this store."""
    exact: dict[str, str] = {}
    ends: dict[str, list[str]] = {}
    by_end: dict[str, list[str]] = {}
    for name in words:
        by_end.setdefault(name.rpartition("/")[2], []).append(name)
    listed = False
    for entry in ledger.entries(store=store):
        listed = True
        if entry.ref.key in words:
            exact[entry.ref.key] = entry.ref.key
        else:
            for name in by_end.get(entry.ref.key.rpartition("/")[2], ()):
                ends.setdefault(name, []).append(entry.ref.key)
    for name in words:
        if name in exact:
            continue
        named = ledger.platforms.named(name) if listed else []
        keys = {key for where, key in named if where == store} or set(ends.get(name, ()))
        keys = {key for key in keys if key not in exact}
        if len(keys) == 1:
            exact[name] = keys.pop()
        elif keys:
            done.ambiguous += 1
    return exact, listed


def _compare(
    ledger: Ledger,
    store: StoreName,
    words: Mapping[str, LegacyWord],
    meant: Mapping[str, str],
    done: Imported,
    tell: Callable[[Missed], None],
) -> None:
    said: dict[str, bool | None] = {key: words[name].suspected for name, key in meant.items()}

    def miss(what: str, key: str, suspected: bool | None, entry: Entry | None) -> None:
        done.missed[what] += 1
        tell(Missed(what, key, suspected, entry))

    for name, word in words.items():
        if word.suspected is None and name not in meant:
            miss("skipped", name, None, None)
    for entry in ledger.entries(store=store):
        key = entry.ref.key
        if key not in said:
            if not entry.gone and not entry.hidden and key not in words:  # what was queued just now is in `words`
                miss("never met", key, None, entry)
            continue
        if said[key] is None:
            miss("skipped", key, None, entry)
        elif said[key] and not entry.gone and not entry.hidden:
            miss("still there", key, True, entry)
        elif said[key] is False and entry.decision is not None and entry.decision.step in (Step.QUARANTINE, Step.REVIEW):
            miss("called safe", key, False, entry)
