"""What `doctor` says of the gate, pict-rs and Lemmy: whether they answer, who can reach what, and what does not fit; changes nothing."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import TypeVar

from fediwarden.app import App
from fediwarden.cli.reach import given, is_loopback
from fediwarden.cli.reach import own_addresses as _addresses
from fediwarden.drill_uploads import Formats, asked_at
from fediwarden.errors import FediwardenError, Gone, Lost, Misconfigured, Unreached
from fediwarden.model import StoreName
from fediwarden.platforms.lemmy.api import Api
from fediwarden.platforms.lemmy.database import NOT_SEARCHED, Database
from fediwarden.platforms.lemmy.http_tracer import NOT_TO_THE_END, Asking
from fediwarden.platforms.pictrs.server import Generation, Server, ServerLimits
from fediwarden.stores.interface import Proving
from fediwarden.stores.url import TargetKind, parse_target

T = TypeVar("T")
LEMMY_GIVES_UP = 10.0  # seconds after which Lemmy no longer waits for a preview or another server's picture
LEMMY_UPLOADS = 30  # seconds that it waits for an upload
MEGABYTE = 1 << 20  # bytes, as pict-rs counts them
VALIDATION = 30  # seconds that pict-rs waits for the gate, unless it was told otherwise
NOBODY = "fediwarden-doctor.png"  # an alias that nothing has
ENDS_SOON = timedelta(days=2)  # a token that ends sooner is told: those of Lemmy 1.0 live a week
PROBE = 0.5  # seconds for one of this machine's own addresses to answer


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing a doctor looked at."""

    what: str
    well: bool
    words: str
    hint: str = ""
    vital: bool = True  # nothing can be scanned without it


def examine(app: App) -> Iterator[Diagnosis]:
    """The gate where one is set up, every pict-rs store, and Lemmy where it is configured."""
    names = [StoreName(name) for name, entry in app.settings.stores.items() if _is_pictrs(entry.url)]
    if app.settings.gate.store or app.gate_secrets.exists():
        yield from _gate(app)
    for name in names:
        yield from _pictrs(app, name)
    if names:
        yield from _links(app, names)
    if app.settings.lemmy.url or app.settings.lemmy.credentials:
        yield from _lemmy(app)
        yield from _acting(app)


def _is_pictrs(url: str) -> bool:
    try:
        return parse_target(url).kind is TargetKind.PICTRS
    except Misconfigured:
        return False  # said where stores are


def _gate(app: App) -> Iterator[Diagnosis]:
    from fediwarden.gate import secrets

    settings = app.settings.gate
    try:
        secrets.read(app.gate_secrets)
        yield Diagnosis("gate's secrets", True, str(app.gate_secrets), vital=False)
    except FediwardenError as error:
        yield Diagnosis("gate's secrets", False, str(error), error.hint, vital=False)
    met = _outside(settings.listen)
    if met:
        words = f"it answers at {', '.join(met)}: other machines can try what passes"
    elif not is_loopback(settings.listen):
        words = f"it listens on {settings.listen}, which other machines can reach"
    else:
        words = ""
    yield Diagnosis(
        "gate's reach",
        not words,
        words or f"{settings.listen}: this machine only",
        "listen on 127.0.0.1 or a Unix socket; over a network only through a tunnel (docs/gate.md)",
        vital=False,
    )
    asked = given(settings)
    yield Diagnosis(
        "gate's address",
        not asked.doubt,
        asked.doubt or f"pict-rs is given {asked.place}",
        "set [gate] address to an IPv4 address in numbers, and its port; `fediwarden gate --url` prints what pict-rs is given",
        vital=False,
    )
    late = settings.deadline_seconds >= LEMMY_GIVES_UP
    yield Diagnosis(
        "gate's deadline",
        not late,
        f"{settings.deadline_seconds:g} s"
        + (
            f"; Lemmy waits {LEMMY_GIVES_UP:g} for previews and other servers' pictures, {LEMMY_UPLOADS} for uploads"
            if late
            else ""
        ),
        "set [gate] deadline_seconds to 8",
        vital=False,
    )
    entry = app.settings.stores.get(settings.store)
    fits = entry is not None and _is_pictrs(entry.url)
    yield Diagnosis(
        "gate's store",
        fits,
        settings.store if fits else f"{settings.store or 'none'}: debts that left memory cannot be fetched, and wait for a scan",
        "set [gate] store to the name of the pict-rs store whose uploads are checked",
        vital=False,
    )


def _outside(listen: str) -> list[str]:
    """This machine's addresses, those of loopback left out, at which a gate answers."""
    if listen.startswith("unix:"):
        return []
    port = listen.rpartition(":")[2]
    return [address for address in _addresses() if port.isdecimal() and _answers(address, int(port))]


def _answers(address: str, port: int) -> bool:
    asked = http.client.HTTPConnection(address, port, timeout=PROBE)
    try:
        with closing(asked):
            asked.request("GET", "/healthz")
            return asked.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def once_more(look: Callable[[], T]) -> T:
    """What `look` finds, asked a second time where the first connection was reset: one hiccup is no alarm. Raises as `look` does."""
    try:
        return look()
    except Unreached as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ConnectionResetError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
    return look()


def _pictrs(app: App, name: StoreName) -> Iterator[Diagnosis]:
    entry = app.settings.stores[name]
    what = f"pict-rs {name}"
    try:
        yield from once_more(lambda: list(_as_reader(app, name)))
    except FediwardenError as error:
        yield Diagnosis(what, False, str(error), error.hint, vital=False)
    if not entry.keeper_credentials:
        yield Diagnosis(
            f"{what}, acting", False, "no keeper_credentials: nothing can be hidden there", "a file with `api_key`", vital=False
        )
    else:
        try:
            yield from once_more(lambda: list(_as_keeper(app, name)))
        except FediwardenError as error:
            yield Diagnosis(f"{what}, acting", False, str(error), error.hint, vital=False)
    if entry.overlap_seconds < VALIDATION:
        yield Diagnosis(
            f"{what}, overlap",
            False,
            f"overlap_seconds is {entry.overlap_seconds}: listings may miss what is being validated meanwhile",
            f"at least pict-rs' external_validation_timeout ({VALIDATION})",
            vital=False,
        )


def _as_reader(app: App, name: StoreName) -> Iterator[Diagnosis]:
    what = f"pict-rs {name}"
    with closing(app.pictrs(name)) as server:
        if server.repository is not None:
            server.repository.page()
            yield Diagnosis(what, True, f"{server.generation}, by its database", vital=False)
        else:
            server.aliases(NOBODY)
            yield Diagnosis(what, True, f"{server.generation}, answers and accepts the API key", vital=False)
        if server.version == "0.4":
            yield from _aliases(app, what)
        else:
            yield from _files(app, name)


def _as_keeper(app: App, name: StoreName) -> Iterator[Diagnosis]:
    with closing(app.pictrs(name, keeper=True)) as server:
        server.repository = None  # it is the key that is tried
        server.aliases(NOBODY)
        yield Diagnosis(f"pict-rs {name}, acting", True, "the keeper's API key is accepted", vital=False)
        yield from _settings(app, name, server)


def _files(app: App, name: StoreName) -> Iterator[Diagnosis]:
    """Whether it can read what it lists, asked of its newest object and of the last one of the same page. Raises: FediwardenError."""
    with closing(app.reader(app.store(name))) as reader:
        page = next(iter(reader.list()), ())
        asked = list({ref.key: ref for ref in (page[0], page[-1])}.values()) if page else []
        lost: list[str] = []
        if not isinstance(reader, Proving):
            return
        for ref in asked:
            try:
                reader.prove(ref)
            except Gone:
                continue  # deleted just now
            except Lost:
                lost.append(ref.key)
    if lost:
        every = len(lost) == len(asked)
        yield Diagnosis(
            f"pict-rs {name}, files",
            False,
            f"it cannot read the file of {' nor that of '.join(f'{key[:16]}…' for key in lost)}",
            "see that the folder or bucket behind it is there, and that it may read it"
            if every
            else "one file may be lost by itself; a scan does not fetch what it knows: `fediwarden scan --again` says of how many",
            vital=False,
        )
    elif asked:
        yield Diagnosis(f"pict-rs {name}, files", True, "its files can be read", vital=False)


def _settings(app: App, name: StoreName, server: Server) -> Iterator[Diagnosis]:
    """What this pict-rs tells of its settings, what it takes, and what it may be made to fetch."""
    what = f"pict-rs {name}"
    yield _formats(app, name)
    if server.generation in (Generation.FROM_0_5_17, Generation.V0_6) and server.reaches_inside():
        older = "" if server.generation is Generation.V0_6 else ", or it is older than 0.5.21"
        yield Diagnosis(
            f"{what}, inside",
            False,
            "it fetches addresses of this machine and its network for anybody who asks: PICTRS__CLIENT__ALLOW_LOCAL_CONNECTIONS is set"
            + older,
            "take that setting away (the gate needs it never: give pict-rs its address in numbers), or upgrade (docs/upgrading-pict-rs.md)",
            vital=False,
        )
    if app.settings.gate.store == name and (limits := server.limits()) is not None:
        yield _held_against(app, what, limits)


def _formats(app: App, name: StoreName) -> Diagnosis:
    """Formats that it takes and that cannot be opened here: as the last drill saw it, else as is known of every version."""
    refuses = app.settings.gate.broken == "refuse"
    videos = (
        "" if find_spec("av") else "videos and HEIC (pict-rs stores it as a video) cannot be opened here: PyAV is not installed; "
    )
    seen = Formats.last(app.ledger, name)
    if seen is None:
        words = "HEIC arrives as a video and is opened as one; JPEG XL, where it takes it, cannot be opened here"
        words += "; `fediwarden drill gate` tries each format"
    else:
        unopened = (
            f"cannot be opened here: {', '.join(seen.unopened)}" if seen.unopened else "every format it takes is opened here"
        )
        words = f"{unopened} (drill of {seen.at:%Y-%m-%d})"
    bad = bool(videos) or bool(seen and seen.unopened and not refuses)
    return Diagnosis(
        f"pict-rs {name}, formats",
        not bad,
        videos + words,
        "install the extra `video`"
        if videos
        else '[gate] broken = "refuse" keeps out what cannot be opened; else it passes as a debt',
        vital=False,
    )


def _held_against(app: App, what: str, limits: ServerLimits) -> Diagnosis:
    """`/internal/limits` beside the gate's settings; the validator's address without its secret."""
    gate = app.settings.gate
    asked = given(gate)
    wrong: list[str] = []
    if not limits.validator:
        wrong.append("it asks nobody about uploads: PICTRS__MEDIA__EXTERNAL_VALIDATION is not set")
    elif asked_at(limits.validator) != asked.place:
        wrong.append(f"it asks {asked_at(limits.validator)}, and this gate would be at {asked.place}")
    if limits.validator and limits.validator_seconds is not None and limits.validator_seconds <= gate.deadline_seconds:
        wrong.append(f"it waits {limits.validator_seconds:g} s for an answer, and the gate may take {gate.deadline_seconds:g}")
    most = (
        max((size for size in (limits.image.size, limits.animation.size, limits.video.size) if size), default=0)
        or limits.size
        or 0
    )
    if most > gate.max_upload_mb * MEGABYTE:
        wrong.append(f"it takes {most // MEGABYTE} MB, and the gate looks at {gate.max_upload_mb} MB at most")
    if most > app.object_limit:
        wrong.append(f"it takes {most // MEGABYTE} MB, and a scan fetches {app.object_limit // MEGABYTE} MB at most")
    told = f"asks {asked_at(limits.validator)}, waits {limits.validator_seconds or 0:g} s" if limits.validator else ""
    return Diagnosis(
        f"{what}, limits",
        not wrong,
        "; ".join(wrong) or f"{told}; `fediwarden drill gate` proves that it is this gate",
        "set PICTRS__MEDIA__EXTERNAL_VALIDATION to what `fediwarden gate --url` prints, its time-out over gate.deadline_seconds, and "
        "gate.max_upload_mb and scan.max_object_mb to what pict-rs takes",
        vital=False,
    )


def _aliases(app: App, what: str) -> Iterator[Diagnosis]:
    try:
        tracer = app.tracer()
    except FediwardenError:
        return  # said where Lemmy is
    if tracer is None:
        yield Diagnosis(
            f"{what}, aliases",
            False,
            "0.4 cannot list what it holds, and no Lemmy is configured that could",
            "set [lemmy], or scan the bucket or folder behind it",
            vital=False,
        )
    else:
        tracer.close()


def _links(app: App, names: list[StoreName]) -> Iterator[Diagnosis]:
    for name, entry in app.settings.stores.items():
        if not entry.pictrs and not _is_pictrs(entry.url):
            yield Diagnosis(
                f"store {name}, link",
                False,
                "not linked to pict-rs: if its files lie there, each thumbnail is looked at, and hiding goes behind its back",
                f'pictrs = "{names[0]}" in [stores.{name}]',
                vital=False,
            )


def _lemmy(app: App) -> Iterator[Diagnosis]:
    try:
        tracer = app.tracer()
    except FediwardenError as error:
        yield Diagnosis("Lemmy", False, str(error), error.hint, vital=False)
        return
    if tracer is None:
        return
    with closing(tracer):
        if isinstance(tracer, Asking):
            yield from _lemmy_api(app, tracer)
            return
        try:
            private = bool(app.settings.profile) and app.profile.scan_private_messages
            trace = once_more(lambda: tracer.trace([NOBODY], [], private_messages=private))
        except FediwardenError as error:
            yield Diagnosis("Lemmy", False, str(error), error.hint, vital=False)
            return
        limits = [limit for limit in trace.limits if limit != NOT_SEARCHED]  # that one is as it should be
        yield Diagnosis(
            "Lemmy",
            not limits,
            f"{trace.version}, by its {trace.source}" + "".join(f"; {limit}" for limit in limits),
            "`fediwarden lemmy grants` prints what a role needs",
            vital=False,
        )
        if isinstance(tracer, Database):
            readable = tracer.secrets_readable()
            yield Diagnosis(
                "Lemmy's secrets",
                not readable,
                f"the role may read {', '.join(readable)}" if readable else "the role can read none",
                "a role with nothing but the rights that `fediwarden lemmy grants` prints",
                vital=False,
            )


def _lemmy_api(app: App, tracer: Asking) -> Iterator[Diagnosis]:
    """By an administrator's token: whose it is, what its own settings hide, and when it ends."""
    api = tracer.api
    try:
        account = once_more(api.need_admin)
        trace = once_more(lambda: tracer.trace([NOBODY], [], private_messages=False))
    except FediwardenError as error:
        yield Diagnosis("Lemmy", False, str(error), error.hint, vital=False)
        return
    failed = [limit for limit in trace.limits if NOT_TO_THE_END in limit]
    yield Diagnosis(
        "Lemmy",
        not failed,
        f"{trace.version}, by its API as {account.name}, which tells less than its database"
        + "".join(f"; {one}" for one in failed),
        "the database tells more: `fediwarden lemmy grants` prints what a role needs (docs/trace.md)",
        vital=False,
    )
    yield Diagnosis(
        "Lemmy's account",
        not account.hides,
        f"its own settings hide from every search: {', '.join(account.hides)}"
        if account.hides
        else "its own settings hide nothing",
        f"show them in the settings of {account.name}: what is hidden there is in no trace",
        vital=False,
    )
    yield _ends(app, "Lemmy's token", api)


def _acting(app: App) -> Iterator[Diagnosis]:
    """The token that `lemmy act` uses, however Lemmy is asked otherwise: whether Lemmy takes it, and when it ends."""
    if not app.settings.lemmy.keeper_credentials:
        return
    what = "Lemmy's token, acting"
    try:
        with closing(app.lemmy()) as acting:
            acting.need_admin()
            yield _ends(app, what, acting)
    except FediwardenError as error:
        yield Diagnosis(what, False, str(error), error.hint, vital=False)


def _ends(app: App, what: str, api: Api) -> Diagnosis:
    ends = api.token_ends
    if ends is None:
        return Diagnosis(what, True, "it names no end; a logout, a ban and a new password end it", vital=False)
    left = ends - app.clock()
    words = f"it ends {ends:%Y-%m-%d %H:%M} UTC" if left > timedelta() else f"it ended {ends:%Y-%m-%d %H:%M} UTC"
    return Diagnosis(what, left > ENDS_SOON, words, "log in anew with `stay_logged_in` (docs/trace.md)", vital=False)
