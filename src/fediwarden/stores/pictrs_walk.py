"""The walk over everything that a pict-rs 0.5 lists, past rows that it cannot tell of and slugs that mean nothing any more.

Fetches nothing and takes nothing for gone: what could not be proved to be the whole listing ends in an error.
"""

from base64 import urlsafe_b64decode
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from fediwarden.errors import Gone, Lost, TooLarge, Unreached
from fediwarden.platforms.pictrs.server import AT_ONCE, HashesPage, Server
from fediwarden.platforms.pictrs.words import Item

T = TypeVar("T")

LOST = 5  # times in a row that a listing may begin anew without meeting anything new
REMEMBERED = 10_000  # hashes listed last, so that pages which overlap list nothing twice
MANY = 20  # rows in a row that pict-rs cannot tell of, after which it is asked whether it can read anything at all
SAMPLE = 64 << 20  # bytes of something that was listed, fetched to see whether any file can be read
MOST = 1000  # rows in one page at most, when it is only asked what comes before it
NO_STORE = "see that the folder or bucket behind pict-rs is there, and that pict-rs may read it; the same command goes on later"
FIRST_EVER = datetime(2015, 1, 1, tzinfo=UTC)  # no row is older: pict-rs is younger than this
FINEST = timedelta(microseconds=1)  # what PostgreSQL keeps of a row's time, and what a question can tell apart
STEP = timedelta(milliseconds=1)  # the first step back in time; each further one is RATIO times as long
RATIO, FINER = 4, 1.2
AHEAD = timedelta(days=400)  # a row dated later than this is nobody's clock
TIES = 20  # rows of one and the same microsecond that are gone through


@dataclass(frozen=True, slots=True)
class WalkStep:
    """A piece of the listing: items, or the key of one of which pict-rs cannot tell more than that it is there."""

    items: tuple[Item, ...] = ()
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class _After:
    """What follows an item that cannot be told of.

    `by_time`: the two are told apart by the smallest step in time, and the second cannot be told of either; rows of that very
    moment may lie between them.
    """

    slug: str  # "" where nothing does
    proved: bool
    by_time: bool = False
    at: datetime | None = None  # a time between the two


class Walk:
    """One listing, from the newest item to the oldest. Make one, go through `steps` once.

    In the good case it is one request a page. pict-rs names the first item of the next page, and fails a whole page for one row
    that it cannot make a blurhash for; so the page is halved until that row is the first of its own page, and thereby named. What
    follows it nobody tells, but times do: of two questions about a time that are answered with nothing at all but names, the one
    that still meets the row and the one that does not any more are brought together until the row comes just before the next one.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        ask: "Callable[[Callable[[], object]], object]",
        clock: Callable[[], datetime],
        overlap: timedelta,
    ) -> None:
        """
        Args:
            name: of the store, for words.
            ask: has a call tried until it works or patience ends.
            clock: the time, aware.
            overlap: how much later than its own details say an item may have come in.
        """
        self._name = name
        self._server = server
        self._patience = ask
        self._clock = clock
        self._overlap = overlap
        self._recent: deque[str] = deque(maxlen=REMEMBERED)
        self._known: set[str] = set()
        self._last: datetime | None = None  # not later than the row that was listed last, and about when that came in
        self._sample = ""  # an alias of something that was listed
        self._run: list[str] = []  # slugs of rows in a row that could not be told of
        self._by_time = ""  # the first of these after which only times told what follows
        self._doubt = ""  # why this is not the whole listing

    def steps(self) -> Iterator[WalkStep]:
        """What is listed, each item once. Raises: Unreached at the end where that was not everything, Refused."""
        slug, window, lost = "", 0, 0  # window: how many items from here on hold one that makes a page fail; 0: none is known
        last: HashesPage | None = None
        begun: set[str] = set()  # slugs of pages since the walk last lost its way
        while True:
            limit = 1 if self._run else max(1, window // 2) if window else AT_ONCE
            page = self._tried(slug, limit)
            if page is None:
                if limit > 1:
                    window = limit
                    continue
                culprit = slug or self._first()
                if not culprit:
                    return self._end()
                yield WalkStep(unreadable=_key(culprit))
                after = self._after(culprit)
                if not after.slug:
                    return self._end()
                slug, window, last = after.slug, 0, None
                continue
            if slug and not _begins_with(page, slug):
                if lost > LOST:
                    raise self._circles()
                if last is None:
                    raise Unreached(
                        f"{self._name} was not listed to its end: what was listed last was deleted meanwhile",
                        hint="run the scan again",
                    )
                found = self._resumed(last)
                if not found:
                    return self._end()
                slug, window = found, 0
                lost += 1
                begun.clear()
                continue
            if self._run:
                self._close_run(slug)
            fresh = self._fresh(page)
            if fresh:
                lost = 0
                yield WalkStep(fresh)
            if not page.next:
                return self._end()
            if page.next in begun or lost > LOST:
                raise self._circles()
            begun.add(page.next)
            window = max(0, window - limit)
            slug, last = page.next, page

    def _end(self) -> None:
        """Raises: Unreached where something may not have been listed."""
        if self._doubt:
            raise Unreached(self._doubt, hint="what was listed is looked at; nothing is taken for gone")

    def _circles(self) -> Unreached:
        hint = "write the address of pict-rs itself: a proxy or cache in between answers for it"
        return Unreached(f"{self._name} lists in circles", hint=hint)

    def _words(self, culprit: str) -> str:
        return f"{self._name} was not listed whole: pict-rs cannot tell what comes after {_key(culprit)[:16]}…, whose file it cannot read"

    def _fresh(self, page: HashesPage) -> tuple[Item, ...]:
        fresh = tuple(item for item in page.items if item.key not in self._known)
        for item in fresh:
            self._remember(item.key)
            self._last = item.created or self._last
            self._sample = item.aliases[0] if item.aliases else self._sample
        return fresh

    def _remember(self, key: str) -> None:
        if len(self._recent) == REMEMBERED:
            self._known.discard(self._recent[0])
        self._recent.append(key)
        self._known.add(key)

    # -- asking -------------------------------------------------------------------------------------------------------

    def _tried(self, slug: str, limit: int) -> HashesPage | None:
        """A page; None where pict-rs is well and this very page fails. Raises: Unreached, Refused where it is not."""
        call = self._server.page
        try:
            return call(slug, limit=limit) if limit > 1 else self._ask(lambda: call(slug, limit=limit))
        except Unreached:
            self._first()
            return None

    def _first(self) -> str:
        """The slug of the newest item of all, "" where there is none; also tells whether pict-rs answers."""
        return self._ask(self._server.peek)

    def _ask(self, call: Callable[[], T]) -> T:
        return self._patience(call)  # type: ignore[return-value]

    # -- when a slug means nothing any more ------------------------------------------------------------------------------

    def _resumed(self, last: HashesPage) -> str:
        """Where to go on when the slug that a page gave is of no use any more; "" where nothing is older than the page."""
        for item in reversed(last.items):
            if self._ask(lambda item=item: self._server.has_hash(bytes.fromhex(item.key))):  # type: ignore[misc]
                return item.slug
        oldest = min((item.created for item in last.items if item.created is not None), default=None)
        if oldest is None:
            raise Unreached(
                f"{self._name} was not listed to its end: what was listed last was deleted meanwhile", hint="run the scan again"
            )
        before = oldest + self._overlap
        slug = self._ask(lambda: self._server.around(before))[1]
        page = self._tried(slug, 1) if slug else None
        first = page.items[0] if page is not None and page.items else None
        # nothing is older: PostgreSQL gives the first page then, sled an empty one
        return "" if first is not None and first.created is not None and first.created >= before else slug

    # -- past what cannot be told of -------------------------------------------------------------------------------------

    def _after(self, culprit: str) -> _After:
        """What comes after an item that cannot be told of."""
        self._run.append(culprit)
        self._remember(_key(culprit))
        if len(self._run) % MANY == 0:
            self._see_whether_it_reads()
        closing = _Closing(
            culprit,
            lambda at: self._ask(lambda: self._server.around(at)),
            self._previous,
            lambda slug: _key(slug) in self._known,
            self._first(),
        )
        found = closing.found(self._last, self._clock())
        self._last = found.at or self._last
        if not found.proved:
            self._doubt = self._doubt or self._words(culprit)
        if found.by_time and not self._by_time:
            self._by_time = culprit
        return found

    def _previous(self, slug: str) -> str | None:
        page = self._tried(slug, 1)
        return page.prev if page is not None and _begins_with(page, slug) else None

    def _close_run(self, slug: str) -> None:
        """An item could be told of again; it tells whether as many come before it as were gone past since times alone told."""
        if self._by_time:
            places = len(self._run) - self._run.index(self._by_time)
            page = self._tried(slug, places) if places <= MOST else None
            if page is not None and page.prev != self._by_time:
                self._doubt = self._doubt or self._words(self._by_time)
        self._run.clear()
        self._by_time = ""

    def _see_whether_it_reads(self) -> None:
        """Raises: Unreached where pict-rs can read no file at all."""
        if self._sample:
            try:
                self._ask(lambda: self._server.fetch(self._sample, SAMPLE))
            except Lost:
                pass
            except (Gone, TooLarge):
                return
            else:
                return
        raise Unreached(
            f"{self._name}: pict-rs lists its objects and cannot read the files of {len(self._run)} of them in a row",
            hint=NO_STORE,
        )


class _Closing:
    """Closes in on what comes after one item, by questions about times that are answered with names alone.

    All of them go by the time of the row, which nobody tells; what an item's details say of it is a little earlier, as a rule.
    """

    def __init__(
        self,
        culprit: str,
        around: Callable[[datetime], tuple[str, str]],
        previous: Callable[[str], str | None],
        listed: Callable[[str], bool],
        newest: str,
    ) -> None:
        """
        Args:
            culprit: the slug of the item.
            around: `Server.around`.
            previous: what comes just before an item, told by that item's own page; None where that page fails as well.
            listed: whether it comes before the culprit.
            newest: the slug of the newest item of all, which PostgreSQL tells where nothing is older.
        """
        self._culprit = culprit
        self._around = around
        self._previous = previous
        self._listed = listed
        self._newest = newest
        self._near = ""  # the newest item found so far that comes after the culprit
        self._between = ""  # what sled and fjall tell to come before it
        self._proved: str | None = None  # what comes just after the culprit
        self._last: datetime | None = None
        self._at: datetime | None = None  # the latest time so far that lies after the culprit's
        self._nearest = ""  # what the earliest question so far that was too late told
        self._asked: set[str] = set()

    def found(self, last: datetime | None, now: datetime) -> _After:
        """What comes after it. `last`: about when the item before it came in, and not later; None where it is the first of all."""
        self._last = last
        about = last or now
        bounds = self._on_from(about, now) if self._older(about) else self._back_from(about)
        if bounds is None and self._proved is None:
            return _After("", proved=False)
        while self._proved is None and bounds is not None and bounds[1] - bounds[0] > FINEST:
            middle = bounds[0] + (bounds[1] - bounds[0]) / 2
            bounds = (middle, bounds[1]) if self._older(middle) else (bounds[0], middle)
        return self._among_ties() if self._proved is None else _After(self._proved, proved=True, at=self._at)

    def _back_from(self, about: datetime) -> tuple[datetime, datetime] | None:
        """Two times, the culprit's between them; None where there is no telling them apart, as with PostgreSQL and the newest of all."""
        newer = about
        for ratio in (RATIO, FINER) if self._newest == self._culprit else (RATIO,):
            newer, step = about, STEP
            while newer - step > FIRST_EVER:
                if self._older(newer - step):
                    return newer - step, newer
                newer, step = newer - step, step * ratio
        return None if self._newest == self._culprit else (FIRST_EVER, newer)

    def _on_from(self, about: datetime, now: datetime) -> tuple[datetime, datetime]:
        older, step = about, STEP
        while self._proved is None and older + step < now + AHEAD and self._older(older + step):
            older, step = older + step, step * RATIO
        return older, older + step

    def _older(self, at: datetime) -> bool:
        """Whether what is older than this time comes after the culprit."""
        before, slug = self._around(at)
        # the newest of all is not older than what was listed: PostgreSQL tells it where nothing is
        none = not slug or (self._last is not None and at <= self._last and not before and slug == self._newest != self._culprit)
        if before == self._culprit:
            self._proved = slug
        elif none:
            self._near, self._between = "", before
        elif slug == self._culprit or slug == self._newest or self._listed(slug):
            self._nearest = slug
            return False
        else:
            self._near, self._between = slug, before
            if not before and slug not in self._asked:  # PostgreSQL tells it only of an item of its own
                self._asked.add(slug)
                if self._previous(slug) == self._culprit:
                    self._proved = slug
        self._at = at
        return True

    def _among_ties(self) -> _After:
        """What is left between two questions that lie as close together as can be: rows of the same time."""
        slug = self._between or self._near
        if not slug:
            return _After("", proved=self._nearest == self._culprit)
        for _ in range(TIES):
            previous = self._previous(slug)
            if previous == self._culprit:
                return _After(slug, proved=True, at=self._at)
            if previous is None and slug == self._near and self._nearest == self._culprit:
                return _After(slug, proved=True, by_time=True, at=self._at)
            if not previous:
                break
            slug = previous
        return _After(self._near, proved=False, at=self._at)


def _begins_with(page: HashesPage, slug: str) -> bool:
    return bool(page.items) and page.items[0].slug == slug


def _key(slug: str) -> str:
    """The key that our ledger has for the item of a slug. Raises: Unreached for what no pict-rs would give as one."""
    try:
        return urlsafe_b64decode(slug).hex()
    except ValueError as error:
        raise Unreached(
            "pict-rs answers, but with slugs that mean nothing", hint="write the address of pict-rs itself"
        ) from error
