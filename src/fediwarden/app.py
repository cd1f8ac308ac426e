"""The only place that builds parts from settings and tells the time; decides nothing and prints nothing."""

import fcntl
import getpass
import hmac
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import structlog

from fediwarden import calibration, config
from fediwarden.acting.automatic import Acting, Automatic, Suspected
from fediwarden.acting.blast_radius import Radii
from fediwarden.acting.executor import Custody, Executor, Outcome
from fediwarden.acting.plan import midnight
from fediwarden.analysers import cascade as cascades
from fediwarden.analysers.bundled import Bundled
from fediwarden.analysers.cascade import Cascade
from fediwarden.analysers.clip import Clip, version_of
from fediwarden.analysers.drill import DrillAnalyser, DrillKey
from fediwarden.analysers.flat import Flat
from fediwarden.analysers.interface import Analyser
from fediwarden.config import Configuration, Profile, StoreEntry
from fediwarden.errors import Busy, CannotWrite, FediwardenError, Misconfigured, Refused
from fediwarden.gate.core import Gate
from fediwarden.gate.debts import Payer
from fediwarden.inference import registry, towers
from fediwarden.inference.sessions import CPU
from fediwarden.inference.towers import ChosenTower
from fediwarden.ledger import Ledger
from fediwarden.media import Cage, Limits
from fediwarden.model import Concepts, EngineVersion, ObjectRef, Owed, RunId, Sha256, StoreName
from fediwarden.pipeline import Looker, Pace, Scan, rejudge
from fediwarden.platforms.lemmy.api import Api, Token
from fediwarden.platforms.lemmy.database import Database
from fediwarden.platforms.lemmy.evidence import Evidence, Shelf
from fediwarden.platforms.lemmy.http_tracer import Asking
from fediwarden.platforms.lemmy.model import Tracer
from fediwarden.platforms.pictrs.server import Server
from fediwarden.policy import Policy, parse
from fediwarden.stores.credentials import lemmy_access, mail_login
from fediwarden.stores.interface import Keeper, Reader
from fediwarden.stores.open import open_keeper, open_reader, open_server, patience_of
from fediwarden.stores.pictrs import PictrsKeeper
from fediwarden.stores.unaccounted import PlatformFirst, Remainder
from fediwarden.stores.url import StoreSettings, TargetKind, parse_target
from fediwarden.tracing import Subject, Tracing
from fediwarden.vault import Vault, Vaults, read_recipients

if TYPE_CHECKING:
    from fediwarden.watch.heartbeat import Beat
    from fediwarden.watch.notices import Channel, Occasions, UploadNotices
    from fediwarden.watch.session import Watch

log = structlog.get_logger("fediwarden")

GPU_WORKERS = 16  # pictures at a time at least where a GPU computes: its batches are made of them
SWITCH = 0.0005  # seconds one thread may keep the others from the interpreter; what they hold it for is much shorter
UNTOLD = "unknown"  # an actor whose name the system does not know

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Layers:
    """Whether each layer of the cage is there, for `status` and `doctor`."""

    layers: Mapping[str, bool]
    formats: frozenset[str]
    problem: str = ""


class App:
    """Parts, built when they are first asked for, from one configuration."""

    def __init__(self, environment: Mapping[str, str], clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Reads the configuration. Raises: Misconfigured."""
        self.environment = environment
        self.clock = clock
        self.stop = Event()
        self.tell: Callable[[str], None] = lambda _: None  # hears why something takes long, where a person is waiting
        self.configuration: Configuration = config.load(environment)

    @property
    def settings(self) -> config.Settings:
        """The checked settings."""
        return self.configuration.settings

    @cached_property
    def actor(self) -> str:
        """Who is acting, for the record: the user behind sudo where there is one."""
        try:
            return self.environment.get("SUDO_USER") or getpass.getuser()
        except (KeyError, OSError):
            return UNTOLD

    @cached_property
    def profile(self) -> Profile:
        """The jurisdiction profile. Raises: Misconfigured when none was chosen."""
        if not self.settings.profile:
            raise Misconfigured(
                "no jurisdiction profile is set, and without one nothing can be applied",
                hint=f"run `fediwarden init`, or set profile in {self.configuration.file}",
            )
        return config.profile(self.settings.profile, self.configuration.profiles)

    @cached_property
    def policy_text(self) -> tuple[str, str]:
        """The policy file in force and what to call it in errors. Raises: Misconfigured."""
        chosen = self.settings.policy
        if not chosen.file:
            return config.default_policy(chosen.preset), f"the policy {chosen.preset!r}"
        file = self.configuration.path(chosen.file)
        try:
            return file.read_text(encoding="utf-8"), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{file}: {error}", hint="set [policy] file to a readable file, or leave it empty") from error

    @cached_property
    def policy(self) -> Policy:
        """The policy in force, held to what was calibrated. Raises: Misconfigured, naming file and line."""
        return parse(*self.policy_text, points=calibration.points(self.configuration.calibration))

    def make_home(self) -> None:
        """Make the folder that everything lies in. Raises: CannotWrite."""
        try:
            self.configuration.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CannotWrite(
                f"cannot make {self.configuration.home}: {error.strerror}",
                hint="set FEDIWARDEN_HOME to a folder that this user may write",
            ) from error

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, made if it is not there. Raises: CannotWrite, Misconfigured."""
        self.make_home()
        return Ledger.open(self.configuration.path(self.settings.ledger.url))

    # -- looking ------------------------------------------------------------------------------------------------------

    @cached_property
    def cage(self) -> Cage:
        """The cage, not started."""
        media = self.settings.media
        limits = Limits(
            memory_mb=media.memory_mb,
            cpu_seconds=media.cpu_seconds,
            wall_seconds=media.wall_seconds,
            max_pixels=media.max_megapixels * 1_000_000,
            all_frames=media.all_frames,
            frames_per_second=media.frames_per_second,
            frame_bound=media.frame_bound,
            archive_depth=media.archive_depth,
            archive_mb=media.archive_mb,
        )
        return Cage(limits, reduced=media.cage == "reduced")

    @cached_property
    def drill_key(self) -> DrillKey:
        """This installation's drill key, made when it is first needed. Raises: CannotWrite."""
        self.make_home()
        return DrillKey.load_or_make(self.configuration.drill_key)

    @cached_property
    def mode(self) -> str:
        """How much looks at a picture: "fast", "balanced" or "thorough". Raises: Misconfigured.

        Left to itself it is no cascade for a policy that names nothing for it to go by: CLIP would see the sample alone.
        """
        if self.settings.analysis.mode:
            return self.settings.analysis.mode
        built = any(manifest.precisions for manifest in registry.image_text(self.configuration.models))
        if not built or self.policy.concepts is None:
            return "fast"
        return "balanced" if self.policy.further else "thorough"

    @cached_property
    def clip_choice(self) -> ChosenTower | None:
        """Which image-text model is used, in which precision and where; None in the mode "fast". Raises: Misconfigured."""
        if self.mode == "fast":
            return None
        chosen = self.settings.analysis
        installed = registry.image_text(self.configuration.models)
        return towers.choose(installed, chosen.model, chosen.precision, chosen.device)

    @property
    def concepts(self) -> Concepts:
        """What an image-text model compares pictures with. Raises: Misconfigured where the policy says nothing of it."""
        if self.policy.concepts is None:
            raise Misconfigured(
                "the policy has no [concepts], which an image-text model needs",
                hint='copy the section from the default policy, or set [analysis] mode = "fast"',
            )
        return self.policy.concepts

    @cached_property
    def clip(self) -> Clip | None:
        """The image-text analyser, None in the mode "fast". Raises: Misconfigured when a part of it is missing or altered."""
        if self.clip_choice is None:
            return None
        return Clip.load(self.configuration.models, self.clip_choice, self.concepts)

    @cached_property
    def clip_version(self) -> str:
        """The version of the image-text analyser, "" in the mode "fast"; on the processor its tower is not loaded for it.

        Raises: Misconfigured as `clip`.
        """
        choice = self.clip_choice
        if choice is None:
            return ""
        if choice.device != CPU and self.clip is not None:
            return self.clip.version
        vectors = towers.text_vectors(self.configuration.models, choice.manifest, self.concepts)
        return version_of(choice.manifest, choice.file, vectors, self.concepts)

    @cached_property
    def cascade(self) -> Cascade | None:
        """Who is shown to CLIP; None in the mode "fast". Raises: Misconfigured."""
        return None if self.clip is None else self.cascade_of(self.clip, thorough=self.mode == "thorough")

    def cascade_of(self, dear: Analyser, *, thorough: bool) -> Cascade:
        """The cascade as the policy has it, or one that shows everything."""
        secret = hmac.digest(self.drill_key.secret, b"fediwarden sample", "sha256")
        asks = None if thorough else self.policy.asks_further
        return Cascade(dear, asks, self.policy.further_digest, self.settings.analysis.sample, secret)

    @property
    def calibrated(self) -> bool:
        """Whether operating points are known for the CLIP that is in use; without, it informs and never decides."""
        return self.clip_version in self.calibrated_versions

    @property
    def rules(self) -> str:
        """Digest of the policy's marks and rules, whatever they are held to. Raises: Misconfigured."""
        return parse(*self.policy_text).digest

    @property
    def counted_otherwise(self) -> str:
        """For what else the flags were counted when this CLIP was calibrated, in words; "" where it was for mode and policy of now."""
        known = calibration.chosen(self.configuration.calibration)
        now = next((one for one in known if one.points.version == self.clip_version), None)
        others = []
        if now is not None and now.mode != self.mode:
            others.append(f"the mode {now.mode}")
        if now is not None and now.rules != self.rules:
            others.append("another policy")
        return " and ".join(others)

    @property
    def calibrated_versions(self) -> frozenset[str]:
        """The versions of analysers whose scores were calibrated here. Raises: Misconfigured for an unreadable file."""
        return frozenset(points.version for points in calibration.points(self.configuration.calibration))

    @cached_property
    def embedded(self) -> Sequence[Analyser]:
        """The embedded default and the drill. Raises: Misconfigured when a model is missing or altered."""
        return (Bundled(self.configuration.models, threads=1), DrillAnalyser(self.drill_key, self.clock))

    @cached_property
    def analysers(self) -> Sequence[Analyser]:
        """Every analyser that sees everything. Raises: Misconfigured when a model is missing or altered."""
        always = self.embedded
        return [*always, Flat()] if self.mode == "balanced" else always

    @cached_property
    def engine(self) -> EngineVersion:
        """Digest of everything that decides what a look can see: models, preprocessing, views, decoder settings."""
        parts = [self.cage.version, *(f"{analyser.name}={analyser.version}" for analyser in self.analysers if analyser.version)]
        if self.clip_version:
            asked = cascades.version(
                self.clip_version, "" if self.mode == "thorough" else self.policy.further_digest, self.settings.analysis.sample
            )
            parts.append(f"cascade={asked}")
        return EngineVersion(sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16])

    @cached_property
    def looker(self) -> Looker:
        """The cage and the analysers as one. The cage must be started (see `looking`)."""
        return Looker(self.cage, self.analysers, self.engine, self.clock, self.cascade)

    def looker_of(self, analysers: Sequence[Analyser]) -> Looker:
        """The cage with other analysers, for measuring: what it finds belongs to no engine version."""
        return Looker(self.cage, analysers, EngineVersion(""), self.clock)

    @contextmanager
    def looking(self) -> Iterator[Looker]:
        """The looker with its cage started, and closed at the end. Raises: Misconfigured when a layer of the cage is missing."""
        before = sys.getswitchinterval()
        try:
            looker = self.looker
            self.cage.start()
            sys.setswitchinterval(SWITCH)
            yield looker
        finally:
            sys.setswitchinterval(before)
            self.cage.close()

    def layers(self) -> Layers:
        """Start a cage to see which layers this machine has."""
        try:
            self.cage.start()
        except FediwardenError as error:
            return Layers(self.cage.layers, self.cage.formats, str(error))
        return Layers(self.cage.layers, self.cage.formats)

    @property
    def cores(self) -> int:
        """Processors that this process may use."""
        return len(os.sched_getaffinity(0))

    @property
    def object_limit(self) -> int:
        """Bytes of the largest object that is held in memory; unlike `pace`, to be known without asking for devices."""
        return self.settings.scan.max_object_mb << 20

    @property
    def _on_gpu(self) -> bool:
        """Whether CLIP computes elsewhere than on the processor, where what several threads ask for is joined."""
        try:
            return self.clip_choice is not None and self.clip_choice.device != CPU
        except FediwardenError:
            return False  # whoever needs it will say why

    @property
    def pace(self) -> Pace:
        """How much is done at once."""
        scan = self.settings.scan
        return Pace(
            # one more than there are processors: while one waits for its decoder, another computes (bench/RESULTS.md)
            workers=scan.workers or max(self.cores + 1, GPU_WORKERS if self._on_gpu else 0),
            fetchers=scan.fetchers,
            object_limit=self.object_limit,
            in_flight=scan.in_flight_mb << 20,
        )

    def scan(self, looker: Looker, *, again: bool = False, partial: bool = False, accept_gone: bool = False) -> Scan:
        """One scan, ready to run."""
        return Scan(
            self.ledger, looker, self.policy, self.pace, self.clock, again=again, partial=partial, accept_gone=accept_gone
        )

    # -- stores -------------------------------------------------------------------------------------------------------

    def targets(self, names: Sequence[str]) -> list[StoreSettings]:
        """The stores meant by names of the configuration or by paths and URLs; every configured one if none is named.

        Raises: Misconfigured.
        """
        if not names:
            if not self.settings.stores:
                raise Misconfigured(
                    "no store is configured and none was named",
                    hint="name a folder or a URL: fediwarden scan /srv/pictrs/files; or add [stores.NAME] to the configuration",
                )
            names = list(self.settings.stores)
        return [self.store(name) for name in dict.fromkeys(names)]

    def store(self, name: str) -> StoreSettings:
        """The store of that name, or the one that a path or URL names. Raises: Misconfigured."""
        if name in self.settings.stores:
            return self._configured(name, self.settings.stores[name])
        url = name
        target = parse_target(url)
        if target.kind is TargetKind.FOLDER:
            url = str(Path(target.path).absolute())
            if not Path(url).is_dir() and "/" not in name and "://" not in name:
                known = ", ".join(self.settings.stores) or "none"
                raise Misconfigured(f"there is no store and no folder {name!r}", hint=f"configured stores: {known}")
        for known_name, entry in self.settings.stores.items():
            if entry.url.rstrip("/") == url.rstrip("/"):
                return self._configured(known_name, entry)
        endpoint = self.environment.get("AWS_ENDPOINT_URL_S3") or self.environment.get("AWS_ENDPOINT_URL") or ""
        region = self.environment.get("AWS_REGION") or self.environment.get("AWS_DEFAULT_REGION") or "us-east-1"
        return StoreSettings(name=StoreName(url), url=url, endpoint=endpoint, region=region)

    def _configured(self, name: str, entry: StoreEntry) -> StoreSettings:
        path = self.configuration.path
        url = entry.url
        if parse_target(url).kind is TargetKind.FOLDER and "://" not in url:
            url = str(path(url))
        return StoreSettings(
            name=StoreName(name),
            url=url,
            endpoint=entry.endpoint,
            region=entry.region,
            path_style=entry.path_style,
            allow_http=entry.allow_http,
            credentials=path(entry.credentials) if entry.credentials else None,
            keeper_credentials=path(entry.keeper_credentials) if entry.keeper_credentials else None,
            quarantine=entry.quarantine,
            hide=entry.hide,
            known_hosts=path(entry.known_hosts) if entry.known_hosts else None,
            public_url=entry.public_url,
            timeout_seconds=float(entry.timeout_seconds),
            tries=entry.tries,
            pictrs=entry.pictrs,
            overlap_seconds=float(entry.overlap_seconds),
        )

    def pictrs(self, name: StoreName, *, keeper: bool = False) -> Server:
        """The pict-rs behind a store of that kind, with its database where the credentials name it. Close it. Raises: Misconfigured."""
        return open_server(self.store(name), keeper=keeper)

    def reader(self, settings: StoreSettings) -> Reader:
        """One store to look at; beside pict-rs only what that does not account for. Raises: Misconfigured."""
        reader = open_reader(
            settings,
            environment=self.environment,
            stop=self.stop,
            aliases=self._aliases,
            holding=partial(self._holding, settings.name),
            known=partial(self.ledger.platforms.names_of, settings.name),
        )
        if not settings.pictrs:
            return reader
        repository = open_server(self._beside(settings)).repository
        return Remainder(
            reader,
            repository,
            patience_of(settings, self.stop),
            self.clock,
            overlap=timedelta(seconds=self._beside(settings).overlap_seconds),
            owed=lambda: {owed.ref.key for owed in self.ledger.owed() if owed.ref.store == settings.name},
        )

    def _beside(self, settings: StoreSettings) -> StoreSettings:
        """The pict-rs store whose files lie in this store. Raises: Misconfigured."""
        known = self.settings.stores.get(settings.pictrs)
        if known is None or parse_target(known.url).kind is not TargetKind.PICTRS:
            raise Misconfigured(
                f"stores.{settings.name}.pictrs: {settings.pictrs!r} is no pict-rs store",
                hint="write the name of a store whose url begins with pictrs://",
            )
        return self._configured(settings.pictrs, known)

    def _aliases(self) -> Iterator[str]:
        """Every alias that Lemmy knows, for a pict-rs 0.4. Raises: Unreached, Refused."""
        tracer = self.tracer()
        if tracer is None:
            raise Refused(
                "a pict-rs 0.4 cannot list what it holds, and no Lemmy is configured that could",
                hint="tell [lemmy] its database or API; or scan the bucket or folder behind pict-rs",
            )
        try:
            yield from tracer.aliases()
        finally:
            tracer.close()

    @contextmanager
    def readers(self, names: Sequence[str]) -> Iterator[list[Reader]]:
        """Readers of the stores meant, closed at the end. Never opens a keeper's credentials. Raises: Misconfigured."""
        readers: list[Reader] = []
        try:
            chosen = {settings.name: settings for settings in self.targets(names)}
            beside = [self._beside(settings) for settings in chosen.values() if settings.pictrs]
            # pict-rs first: what lies beside it is then known, and only the rest is looked at
            for settings in ({settings.name: settings for settings in beside} | chosen).values():
                self._may_scan(settings.name)
                readers.append(self.reader(settings))
            yield readers
        finally:
            for reader in readers:
                reader.close()

    def _may_scan(self, name: StoreName) -> None:
        """Refuse a store of private messages where the profile does not let them be scanned. Raises: Misconfigured."""
        entry = self.settings.stores.get(name)
        if entry is not None and entry.private_messages and not (self.settings.profile and self.profile.scan_private_messages):
            raise Misconfigured(
                f"store {name} holds media of private messages, and {self._profile_words} does not let them be scanned",
                hint="name the other stores to scan them; a profile that allows it is a legal decision (docs/profiles.md)",
            )

    @property
    def _profile_words(self) -> str:
        return f"profile {self.settings.profile}" if self.settings.profile else "having no profile"

    # -- acting -------------------------------------------------------------------------------------------------------

    def vault(self, *, drill: bool = False) -> Vault:
        """The vault for evidence, or the one for drill pictures. Raises: Misconfigured without two public keys."""
        folder = self.configuration.drill_vault if drill else self.configuration.path(self.settings.vault.folder)
        return Vault(folder, read_recipients(self.configuration.path(self.settings.vault.recipients)))

    def vaults(self) -> Vaults | None:
        """Both; None where the profile keeps no bytes. Raises: Misconfigured without two public keys."""
        return Vaults(self.vault(), self.vault(drill=True)) if self.profile.keep == "preserve" else None

    @contextmanager
    def keepers(self, run: RunId | None = None) -> Iterator[Callable[[StoreName], Custody]]:
        """Opens the keeper of a store when it is first asked for (Misconfigured where it cannot); all are closed at the end.

        `run` is for what a keeper puts on record before it acts; without one nothing may be acted on.
        """
        keepers: dict[StoreName, Custody] = {}

        def hold(name: StoreName) -> Custody:
            if name not in keepers:
                keepers[name] = self._hold(self.store(name), run)
            return keepers[name]

        try:
            yield hold
        finally:
            for kept in keepers.values():
                kept.keeper.close()

    def _hold(self, settings: StoreSettings, run: RunId | None) -> Custody:
        keeper = self._keeper(settings, run)
        if isinstance(keeper, PictrsKeeper):
            return Custody(keeper, removes=True, platform=True)
        removes = settings.hide == "remove"
        if not settings.pictrs:
            return Custody(keeper, removes)
        pictrs = self._keeper(self._beside(settings), run)
        assert isinstance(pictrs, PictrsKeeper)  # noqa: S101 - `_beside` says so
        first = PlatformFirst(
            keeper,
            pictrs,
            patience_of(settings, self.stop),
            known=partial(self.ledger.platforms.names_of, settings.name),
            remember=self._rememberer(run),
            holding=partial(self._holding, pictrs.name),
            doubt=partial(self._disbelieved, pictrs.name),
        )
        return Custody(first, removes, platform=True)

    def _keeper(self, settings: StoreSettings, run: RunId | None) -> Keeper:
        return open_keeper(
            settings,
            environment=self.environment,
            stop=self.stop,
            known=partial(self.ledger.platforms.names_of, settings.name),
            remember=self._rememberer(run),
            holding=partial(self._holding, settings.name),
        )

    def _holding(self, name: StoreName, sha256: Sha256) -> list[str]:
        """Keys of this store under which these bytes were met."""
        return [key for store, key in self.ledger.platforms.holding(sha256) if store == name]

    def _disbelieved(self, name: StoreName, sha256: Sha256) -> str:
        """Why a pict-rs is not to be believed when it says that it does not know these bytes; "" where it is."""
        doubt = self.ledger.watching.doubt(name)
        if doubt is not None:
            return doubt.words
        entries = (self.ledger.entry(name, key) for key in self._holding(name, sha256))
        if any(entry is not None and entry.sha256 == sha256 and not (entry.gone or entry.hidden) for entry in entries):
            return f"{name} had these bytes when it was last listed"
        return ""

    def _rememberer(self, run: RunId | None) -> Callable[[ObjectRef], None]:
        return lambda ref: None if run is None else self.ledger.platforms.add_names(run, [ref])

    @contextmanager
    def executor(self, run: RunId) -> Iterator[Executor]:
        """The only one who acts on this ledger now, with keepers opened when needed and closed at the end.

        Raises: Misconfigured, CannotWrite, Busy while another `apply`, `restore` or `drill run` is at work.
        """
        with acting_alone(Path(self.ledger.path).resolve()), self.keepers(run) as hold, self._sealing(run) as seal:
            yield Executor(
                self.ledger, run, hold, self.vaults(), self.profile, self.clock, self.actor, self.object_limit, seal_trace=seal
            )

    @contextmanager
    def radii(self) -> Iterator[Radii]:
        """Tells who else is met when an object is hidden; what cannot be asked is said in the answers. Raises: Misconfigured."""
        servers: dict[StoreName, Server | None] = {}

        def server(name: StoreName) -> Server | None:
            if name not in servers:
                settings = self.store(name)
                if settings.pictrs:
                    settings = self._beside(settings)
                servers[name] = open_server(settings) if parse_target(settings.url).kind is TargetKind.PICTRS else None
            return servers[name]

        tracer, problem = None, ""
        try:
            tracer = self.tracer()
        except FediwardenError as error:
            problem = str(error)
        try:
            private = self.profile.scan_private_messages
            yield Radii(self.ledger, server, tracer, private_messages=private, problem=problem, platform=self._platform_store)
        finally:
            for opened in servers.values():
                if opened is not None:
                    opened.close()
            if tracer is not None:
                tracer.close()

    def _platform_store(self, name: StoreName) -> StoreName:
        """The pict-rs store behind a store: itself, where it is one. Raises: Misconfigured."""
        settings = self.store(name)
        return self._beside(settings).name if settings.pictrs else settings.name

    # -- the gate -----------------------------------------------------------------------------------------------------

    @property
    def gate_secrets(self) -> Path:
        """The file of the secrets that callers of the gate know."""
        return self.configuration.path(self.settings.gate.secrets)

    @contextmanager
    def gate(self, run: RunId, looker: Looker) -> Iterator[Gate]:
        """The gate at work, with the thread that pays its debts; ended when this is left. Raises: Misconfigured."""
        settings = self.settings.gate
        reader, vaults = self._gate_parts()
        gate = Gate(
            settings,
            self.ledger,
            run,
            looker,
            self.policy,
            vaults,
            self.clock,
            workers=settings.workers or self.pace.workers,
            store=reader.name if reader else None,
            beside=[StoreName(name) for name, entry in self.settings.stores.items() if reader and entry.pictrs == reader.name],
        )
        payer = Payer(
            self.ledger,
            gate.desk,
            reader,
            looker.engine,
            self.clock,
            object_limit=self.object_limit,
            lapse=timedelta(hours=settings.lapse_hours),
            act=self._hiding(run, reader.name).turn if reader and settings.act == "allowance" else None,
        )
        notices = self._gate_notices()
        telling = Thread(target=notices.run, name="gate-notices", daemon=True)
        gate.start()
        payer.start()
        telling.start()
        try:
            yield gate
        finally:
            self.stop.set()
            payer.end(1.0)
            telling.join(1.0)
            gate.end()
            if reader is not None:
                reader.close()

    def _gate_notices(self) -> "UploadNotices":
        """What tells that uploads cannot be looked at. No mistake in `[notice]` keeps a gate from running: every upload would fail."""
        from fediwarden.watch.notices import UploadNotices

        ways: list[Channel] = []
        try:
            ways = self._ways()
        except FediwardenError as error:
            log.warning("the gate sends no notices", problem=str(error))
        return UploadNotices(self.ledger, ways, self.clock, time.monotonic, self.stop)

    def _gate_parts(self) -> tuple[Reader | None, Vaults | None]:
        """The pict-rs store that uploads end in, and the vaults; opens no connection. Raises: Misconfigured."""
        name = self.settings.gate.store
        reader: Reader | None = None
        if name:
            chosen = self.store(name)
            if not chosen.url.startswith(("pictrs://", "pictrs+")):
                raise Misconfigured(f"gate.store: {name} is no pict-rs store", hint="its url begins with pictrs://")
            reader = self.reader(chosen)
        return reader, self.vaults()

    def check_gate(self) -> None:
        """Build what `gate` needs but models and connections, so that what is wrong shows. Raises: Misconfigured."""
        from fediwarden.gate import secrets

        _ = (self.policy, self._gate_parts(), secrets.read(self.gate_secrets))

    def _hiding(self, run: RunId, store: StoreName) -> Acting:
        """Hides what was a debt of the gate's store and is suspected since."""

        def meant(owed: Owed) -> bool:
            return owed.ref.store == store and self.ledger.uploads.was_debt(owed.sha256)

        @contextmanager
        def executor() -> Iterator[tuple[Executor, Counts]]:
            with self.executor(run) as one:
                yield one, {}

        return self._acting(self._automatic(meant), executor)

    # -- acting where nobody can be asked ------------------------------------------------------------------------------

    def _automatic(self, meant: Callable[[Owed], bool] = lambda _: True) -> Automatic:
        acting = self.settings.acting
        return Automatic(
            self.ledger,
            self.radii,
            self.clock,
            self.stop,
            allowance=acting.allowance,
            drill_allowance=acting.drill_allowance,
            meant=meant,
        )

    def _acting(self, automatic: Automatic, executor: Callable[[], AbstractContextManager[tuple[Executor, Counts]]]) -> Acting:
        """`executor`: who acts, alone on this ledger while it is held, and where it is counted what came of it."""

        def act() -> int | None:
            choice = automatic.choose()
            if not choice.objects:
                return 0 if choice.owed else None
            with executor() as (one, counts):
                counts |= {"done": 0, "over": choice.over, "shared": choice.shared}
                for result in automatic.hide(one, choice):
                    counts["done"] += result.outcome is Outcome.DONE
            return counts["done"]

        return Acting(act, Suspected(self.ledger), time.monotonic, self.stop)

    # -- watching -----------------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self, names: Sequence[str], looker: Looker) -> Iterator["Watch"]:
        """A watch over the stores meant, not started; ended when this is left. Raises: Misconfigured, Busy where one is watched."""
        from fediwarden.watch.heartbeat import Pulse
        from fediwarden.watch.lanes import Turns, queued
        from fediwarden.watch.metrics import Collector, Ledgers, MetricsPage, counted
        from fediwarden.watch.notices import DayTotals, Notices
        from fediwarden.watch.session import Watch, Watched
        from fediwarden.watch.state import Board
        from fediwarden.watch.store import Bench, WatchPlan
        from fediwarden.watch.supervisor import Part

        settings, acting, ticks = self.settings.watch, self.settings.acting, time.monotonic
        board = Board(settings.blind_minutes * 60.0, ticks)
        turns = Turns(self.pace.workers, self.stop)
        ways, occasions = self._ways(), self._occasions()
        pulse = Pulse(self.ledger, board, self.clock, ticks)
        more = [Part("rejudge", self._rejudge_once), Part("pulse", lambda: pulse.run(self.stop))]
        if settings.act == "allowance":
            _ = self.profile
            more.append(Part("acting", self._acting(self._automatic(), self._watch_executor).run))
        if ways or occasions.heartbeat:

            def standing() -> DayTotals:
                return DayTotals(
                    self.ledger.totals(looker.engine),
                    acting.allowance,
                    self.ledger.acted(midnight(self.clock()), drill=False),
                )

            notices = partial(Notices, self.ledger, looker.engine, board, ways, occasions, standing, self.clock, ticks, self.stop)
            more.append(Part("notices", lambda: notices().run()))
        numbers = Ledgers(
            lambda: counted(self.ledger, looker.engine, self.clock(), midnight(self.clock()), acting.allowance), ticks
        )
        collector = Collector(board, turns, numbers, looker.engine, self.policy.digest)
        with self.readers(names) as fetching, self.readers(names) as asking, ExitStack() as alone:
            for reader in fetching:
                alone.enter_context(watching_alone(Path(self.ledger.path).resolve(), reader.name))
            stores = [Watched(reader, other, *self._watched(reader.name)) for reader, other in zip(fetching, asking, strict=True)]
            # arrivals and gaps of every store hold bytes at the same time; together no more than one scan
            pace = replace(self.pace, in_flight=max(1 << 20, self.pace.in_flight // (2 * len(stores))))
            bench = Bench(
                self.ledger,
                queued(looker, turns, arrival=True),
                queued(looker, turns, arrival=False),
                self.policy,
                pace,
                self.clock,
                ticks,
                board,
                self.stop,
            )
            plan = WatchPlan(float(settings.seconds), float(settings.sweep_hours), settings.requests_per_hour)
            page = (lambda: MetricsPage(settings.metrics, collector, board)) if settings.metrics else None
            watch = Watch(bench, stores, plan, more, page)
            try:
                yield watch
            finally:
                self.stop.set()
                watch.end()

    def watched(self) -> "list[Beat]":
        """What the last watch of each configured store said last."""
        from fediwarden.watch.heartbeat import last_beat

        beats = (last_beat(self.ledger, StoreName(name), self.clock()) for name in self.settings.stores)
        return [beat for beat in beats if beat is not None]

    def check_watching(self, names: Sequence[str], metrics: str = "") -> None:
        """Build everything that `watching` needs but the watch itself, so that what is wrong shows.

        `metrics` is the address that is listened on already. Raises: FediwardenError.
        """
        from fediwarden.watch.metrics import check

        with self.readers(names):
            _ = (self._ways(), self._occasions(), self.policy, self.looker, self.ledger)
        if self.settings.watch.act == "allowance":
            _ = self.profile
        if self.settings.watch.metrics:
            check(self.settings.watch.metrics, taken=metrics)

    def _watched(self, name: StoreName) -> tuple[str, str, timedelta]:
        """Of a store: its address, the pict-rs store that tells of what comes in, and how far questions reach back."""
        chosen, entry = self.store(name), self.settings.stores.get(name)
        if parse_target(chosen.url).kind is TargetKind.PICTRS:
            return chosen.url, "", timedelta(seconds=2 * (entry.overlap_seconds if entry else 60))
        return chosen.url, entry.pictrs if entry else "", timedelta(minutes=self.settings.watch.overlap_minutes)

    def _rejudge_once(self) -> None:
        run = self.ledger.begin("rejudge", {"by": self.actor, "for": "watch"}, self.clock())
        tally = rejudge(self.ledger, run, self.policy)
        self.ledger.end(run, "finished", {"decided": tally.listed}, self.clock())
        self.stop.wait()

    @contextmanager
    def _watch_executor(self) -> Iterator[tuple[Executor, Counts]]:
        """Who acts for the watch, with a run of its own. Raises: as `executor`."""
        run = self.ledger.begin("watch", {"by": self.actor, "what": "acting"}, self.clock())
        counts: Counts = {}
        try:
            with self.executor(run) as executor:
                yield executor, counts
        except FediwardenError as error:
            if not isinstance(error, CannotWrite):
                self.ledger.end(run, f"failed: {error}", counts, self.clock())
            raise
        self.ledger.end(run, "finished", counts, self.clock())

    def _ways(self) -> "list[Channel]":
        """How notices reach people. Raises: Misconfigured."""
        from fediwarden.watch.notices import Channel, Mail, Webhook

        notice = self.settings.notice
        ways: list[Channel] = []
        if notice.webhook:
            ways.append(Webhook(_web_address(notice.webhook, "notice.webhook")))
        if notice.mail_to:
            host, _, port = notice.smtp.rpartition(":")
            if not host or not port.isdecimal():
                raise Misconfigured("notice.smtp is not a mail server's address", hint="write host:port, such as 127.0.0.1:25")
            login = mail_login(self.configuration.path(notice.smtp_credentials)) if notice.smtp_credentials else None
            sender = notice.mail_from or notice.mail_to
            ways.append(Mail(host.strip("[]"), int(port), notice.smtp_security, sender, notice.mail_to, login))
        return ways

    def _occasions(self) -> "Occasions":
        """When notices go out. Raises: Misconfigured."""
        from fediwarden.watch.notices import Occasions

        notice = self.settings.notice
        heartbeat = _web_address(notice.heartbeat, "notice.heartbeat") if notice.heartbeat else ""
        return Occasions(notice.digest_hour, self.settings.watch.act == "ask", heartbeat, notice.heartbeat_minutes * 60.0)

    # -- Lemmy --------------------------------------------------------------------------------------------------------

    def tracer(self) -> Tracer | None:
        """Who can be asked who is behind a picture; None where no [lemmy] is configured. Close it. Raises: Misconfigured."""
        lemmy = self.settings.lemmy
        if not lemmy.url and not lemmy.credentials:
            return None
        if not lemmy.credentials:
            raise Misconfigured(
                "[lemmy] has no credentials, and a trace needs its database or an administrator's token",
                hint="`fediwarden lemmy grants` prints the rights of a role for it; set credentials to a file with `database`",
            )
        access = lemmy_access(self.configuration.path(lemmy.credentials))
        if access.database:
            return Database(access.database, float(lemmy.timeout_seconds), lemmy.url)
        return Asking(self._lemmy(access.jwt))

    @contextmanager
    def tracing(self, run: RunId, *, seals: bool = False) -> Iterator[Tracing]:
        """Who says who is behind an object; with `seals` it may put traces into the vault. Raises: Misconfigured."""
        tracer = self.tracer()
        if tracer is None:
            raise Misconfigured("no Lemmy is configured", hint="set [lemmy] url and credentials (docs/trace.md)")
        stores = self.settings.stores
        servers: dict[StoreName, Server] = {}
        try:
            for name in (StoreName(name) for name in stores if self.is_pictrs(StoreName(name))):
                servers[name] = self.pictrs(name)
            vaults = self.vaults() if seals else None
            private = bool(self.settings.profile) and self.profile.scan_private_messages
            yield Tracing(self.ledger, run, tracer, servers, vaults, self.clock, self.actor, private_messages=private)
        finally:
            tracer.close()
            for server in servers.values():
                server.close()

    @contextmanager
    def evidence(self, run: RunId, api: Api, meant: Subject) -> Iterator[tuple[Evidence, Shelf]]:
        """What Lemmy would have pict-rs delete, to be sealed before, and every configured pict-rs to ask. Raises: Misconfigured."""
        stores = self.settings.stores
        servers: list[Server] = []
        try:
            for name in (StoreName(name) for name in stores if parse_target(stores[name].url).kind is TargetKind.PICTRS):
                servers.append(self.pictrs(name))  # noqa: PERF401 - what was opened is closed, also where the next cannot be
            shelf = Shelf(servers, self.object_limit, self.stop)
            vault = self.vault(drill=meant.drill) if self.profile.keep == "preserve" else None
            sealed = dict.fromkeys(meant.aliases, meant.sha256) if meant.sha256 else {}
            yield Evidence(api, shelf, vault, self.ledger, run, self.clock, self.actor, sealed=sealed), shelf
        finally:
            for server in servers:
                server.close()

    @contextmanager
    def _sealing(self, run: RunId) -> Iterator[Callable[[Owed], str] | None]:
        """Seals who is behind what is being hidden; None where that is not wanted. What stands in its way is raised per object."""
        lemmy = self.settings.lemmy
        if not lemmy.trace_when_hiding or not (lemmy.url or lemmy.credentials):
            yield None
            return
        with ExitStack() as stack:
            seal: Callable[[Owed], str]
            try:
                seal = stack.enter_context(self.tracing(run, seals=True)).seal_for
            except Misconfigured as error:
                seal = partial(_raise, error)
            yield seal

    def is_pictrs(self, name: StoreName) -> bool:
        """Whether the configuration has a store of this name that is a pict-rs."""
        entry = self.settings.stores.get(name)
        return entry is not None and parse_target(entry.url).kind is TargetKind.PICTRS

    def lemmy(self) -> Api:
        """Lemmy's API with the right to act; only `lemmy act` opens these credentials. Close it. Raises: Misconfigured."""
        file = self.settings.lemmy.keeper_credentials
        access = lemmy_access(self.configuration.path(file)) if file else None
        if access is None or not access.jwt:
            raise Misconfigured(
                "acting in Lemmy needs the token of an administrator",
                hint="set [lemmy] keeper_credentials to a file with `jwt`, readable by you alone",
            )
        return self._lemmy(access.jwt)

    def _lemmy(self, jwt: str) -> Api:
        lemmy = self.settings.lemmy
        if not (lemmy.api or lemmy.url):
            raise Misconfigured(
                "[lemmy] has no url", hint="set url to the server's public address, such as https://lemmy.example"
            )
        return Api(lemmy.api or lemmy.url, Token(jwt), float(lemmy.timeout_seconds), stop=self.stop, tell=self._waits)

    def _waits(self, seconds: float) -> None:
        log.info("waiting for the rate limit of Lemmy", seconds=round(seconds))
        self.tell(f"Lemmy's rate limit is reached: waiting {seconds:,.0f} s")

    # -- the log ------------------------------------------------------------------------------------------------------

    def open_log(self) -> None:
        """Send events to the configured file, one JSON object a line. Raises: CannotWrite."""
        logging.raiseExceptions = False  # a full disk must not print tracebacks over a progress line; the ledger says it clearly
        root = logging.getLogger()
        root.handlers.clear()
        root.setLevel(logging.INFO)
        root.addHandler(self._log_handler())
        for noisy in ("httpx2", "httpcore2", "asyncssh", "alembic", "sqlalchemy", "watchfiles"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=False,
        )

    def _log_handler(self) -> logging.Handler:
        file = self.settings.log.file
        if not file:
            return logging.NullHandler()
        if file == "-":
            return logging.StreamHandler(sys.stderr)
        self.make_home()
        path = self.configuration.path(file)
        try:
            return logging.handlers.RotatingFileHandler(
                path, maxBytes=self.settings.log.max_mb << 20, backupCount=5, encoding="utf-8"
            )
        except OSError as error:
            raise CannotWrite(
                f"cannot write the log {path}: {error.strerror}", hint="set [log] file to a place that this user may write"
            ) from error


def _web_address(text: str, setting: str) -> str:
    """An address that may be contacted; it may hold a secret, so no error says it. Raises: Misconfigured."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        good = False
    if not good:
        raise Misconfigured(f"{setting} is no address", hint="write https://host/path")
    return text


def _raise(error: FediwardenError, _owed: Owed) -> NoReturn:
    raise error


def acting_alone(ledger: Path) -> AbstractContextManager[None]:
    """Hold the lock beside the ledger that lets one process act at a time; the kernel gives it back when the process dies.

    Raises: Busy when another process holds it, CannotWrite.
    """
    return _alone(
        ledger.with_name(f"{ledger.name}.acting"),
        lambda who: f"another command is acting on this ledger (process {who}); nothing was done",
        "wait until that apply, restore or drill has ended, then run this again",
    )


def watching_alone(ledger: Path, store: StoreName) -> AbstractContextManager[None]:
    """The same for whoever watches a store: a second watch would look at everything a second time. Raises: Busy, CannotWrite."""
    return _alone(
        ledger.with_name(f"{ledger.name}.watching-{sha256(store.encode(errors='surrogateescape')).hexdigest()[:16]}"),
        lambda who: f"another process watches the store {store} (process {who})",
        "one watch is enough for a store; end that one first, or name other stores",
    )


@contextmanager
def _alone(path: Path, busy: Callable[[str], str], hint: str) -> Iterator[None]:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotWrite(f"cannot make {path}: {error.strerror}", hint="check who owns the folder of the ledger") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise Busy(busy(who), hint=hint) from error
        with suppress(OSError):  # only words for whoever finds it held; a full disk is told by what must be written
            os.pwrite(lock, f"{os.getpid():<20}".encode(), 0)
        yield
    finally:
        os.close(lock)
