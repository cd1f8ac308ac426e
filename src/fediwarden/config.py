"""One TOML file plus environment, checked whole and frozen: every setting with its meaning and default; opens no store, ledger or model.

The descriptions below are what `fediwarden init` writes above each key and what `docs/settings.md` is checked against.
Environment variables override the file: FEDIWARDEN_ACTING__ALLOWANCE=20 sets `allowance` in `[acting]`.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fediwarden.errors import Misconfigured

CONFIG_NAME = "fediwarden.toml"
ENVIRONMENT = "FEDIWARDEN_"
STORE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, str_max_length=4096)


class ScanSettings(_Section):
    """How a store is looked at."""

    workers: Annotated[int, Field(ge=0, le=256)] = Field(
        0,
        description="Objects analysed at the same time; 0 means one more than there are processors, and at least 16 where a GPU computes.",
    )
    fetchers: Annotated[int, Field(ge=1, le=128)] = Field(8, description="Objects fetched at the same time.")
    max_object_mb: Annotated[int, Field(ge=1, le=4096)] = Field(
        256, description="Larger objects are not fetched: broken, too large, counted as not scanned."
    )
    in_flight_mb: Annotated[int, Field(ge=1, le=65536)] = Field(
        384, description="Bytes of fetched objects held in memory at once; bounds memory whatever the store holds."
    )


class MediaSettings(_Section):
    """The cage in which foreign bytes are opened."""

    cage: Literal["full", "reduced"] = Field(
        "full",
        description='"full" refuses to scan where a layer of the cage is missing (old kernel, other machine). "reduced" goes on with fewer.',
    )
    memory_mb: Annotated[int, Field(ge=256, le=65536)] = Field(1536, description="Memory one object may use while it is opened.")
    cpu_seconds: Annotated[int, Field(ge=5, le=3600)] = Field(
        60, description="Processor seconds one object may use while it is opened."
    )
    wall_seconds: Annotated[int, Field(ge=10, le=3600)] = Field(
        120, description="Seconds without any progress after which a look is given up and tried again later."
    )
    max_megapixels: Annotated[int, Field(ge=1, le=1000)] = Field(120, description="Larger pictures are broken: a bomb.")
    all_frames: Annotated[int, Field(ge=2, le=10000)] = Field(
        64, description="Animations and documents up to this many frames are seen whole."
    )
    frames_per_second: Annotated[float, Field(ge=0.1, le=60, strict=False)] = Field(
        2.0, description="Longer ones: at least this many a second."
    )
    frame_bound: Annotated[int, Field(ge=2, le=100000)] = Field(256, description="But never more frames than this of one object.")
    archive_depth: Annotated[int, Field(ge=0, le=10)] = Field(3, description="Archives inside archives are opened this deep.")
    archive_mb: Annotated[int, Field(ge=0, le=4096)] = Field(64, description="And up to this much unpacked, in all, per object.")


class AnalysisSettings(_Section):
    """What looks at a picture: the embedded default, and CLIP where a model of it is built (docs/choosing-a-model.md)."""

    mode: Literal["", "fast", "balanced", "thorough"] = Field(
        "",
        description='"fast": the embedded default alone. "balanced": CLIP where that one shows something, and on a random sample of the rest. "thorough": CLIP on everything. Empty: balanced where a CLIP model is built (thorough where the policy has no [further]), else fast.',
    )
    model: str = Field(
        "", description="The image-text model to use, as `fediwarden models list` names it; empty: the one that is built."
    )
    precision: Literal["", "int8", "fp16", "fp32"] = Field(
        "", description="Of the image tower; empty: int8 on a processor and fp16 on a GPU, where they are built."
    )
    device: Literal["", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"] = Field(
        "", description="Where the models compute; empty: a CUDA GPU where there is one, else the processor."
    )
    sample: Annotated[float, Field(ge=0, le=1, strict=False)] = Field(
        0.02, description="balanced: the share of the other objects that CLIP sees all the same, to estimate what is missed."
    )


class PolicySettings(_Section):
    """What is made of what was found."""

    preset: Literal["default", "fedi-safety"] = Field(
        "default",
        description='Which of the policies that come with the program: "default", or "fedi-safety" with that tool\'s rule.',
    )
    file: str = Field("", description="A policy file of your own; empty uses the preset (docs/policy.md).")


class ActingSettings(_Section):
    """How much `apply` may do."""

    allowance: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        50, description="Objects hidden in one day (UTC) at most. What is over it stays owed, worst first."
    )
    drill_allowance: Annotated[int, Field(ge=0, le=1000)] = Field(20, description="The same for drill pictures, counted apart.")


class VaultSettings(_Section):
    """Where exact bytes are sealed before anything is hidden."""

    folder: str = Field("vault", description="The vault's folder; relative to this file's folder.")
    recipients: str = Field(
        "recipients.txt",
        description="The file of public age keys that can open it, two at least (`fediwarden vault init` makes it).",
    )


class LedgerSettings(_Section):
    """Where everything is recorded."""

    url: str = Field("ledger.sqlite3", description="The ledger's file; relative to this file's folder.")


class ModelsSettings(_Section):
    """Where `models pull` fetches image-text models; scans fetch nothing."""

    hub: str = Field("https://huggingface.co", description="The model hub, or a mirror of it; HTTPS only.")
    proxy: str = Field(
        "", description="A proxy for the hub, such as http://proxy:3128; empty takes HTTPS_PROXY of the environment."
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(30, description="Seconds to wait for the next byte.")


class LogSettings(_Section):
    """One event line per object."""

    file: str = Field(
        "fediwarden.log",
        description='The log file; relative to this file\'s folder. "-" writes to standard error, "" writes nowhere.',
    )
    max_mb: Annotated[int, Field(ge=1, le=10000)] = Field(
        50, description="When the log is larger than this it is rotated; five are kept."
    )


class GateSettings(_Section):
    """The check on every upload: `fediwarden gate` (docs/gate.md). What it cannot look at in time passes as a debt, or is refused."""

    listen: str = Field("127.0.0.1:8970", description='Address and port to listen on, or "unix:/run/fediwarden/gate.sock".')
    address: str = Field(
        "",
        description="Where pict-rs asks, as an IPv4 address in numbers and a port, where that is not `listen`: a container's own address, or a proxy in between.",
    )
    secrets: str = Field(
        "gate.secrets",
        description="The file of secrets, one a line, that callers carry in the URL; `fediwarden gate --new-secret` adds one.",
    )
    store: str = Field(
        "", description="The pict-rs store (its name below) whose uploads are checked; debts are fetched from there."
    )
    deadline_seconds: Annotated[float, Field(ge=1, le=300, strict=False)] = Field(
        8.0,
        description="Seconds until the answer, at the latest. Lemmy waits 30 for an upload and 10 for previews and other servers' pictures, pict-rs as long as its own time-out.",
    )
    max_upload_mb: Annotated[int, Field(ge=1, le=4096)] = Field(
        64, description="Larger uploads are hashed while they arrive and not held in memory."
    )
    in_flight_mb: Annotated[int, Field(ge=1, le=65536)] = Field(
        256, description="Bytes of uploads held in memory at once; what comes on top is hashed only."
    )
    queue: Annotated[int, Field(ge=1, le=100_000)] = Field(64, description="Uploads that may wait to be looked at.")
    workers: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="Uploads looked at at the same time; 0 chooses as `scan` does."
    )
    late: Literal["debt", "refuse"] = Field("debt", description="No result within the deadline: pass as a debt, or refuse.")
    busy: Literal["debt", "refuse"] = Field("debt", description="Too many wait already, or the memory for uploads is used up.")
    large: Literal["debt", "refuse"] = Field("debt", description="Larger than max_upload_mb.")
    broken: Literal["debt", "refuse"] = Field(
        "debt", description="It was looked at and cannot be decoded here, though pict-rs could."
    )
    failed: Literal["debt", "refuse"] = Field("refuse", description="The analysis itself did not work.")
    videos: Literal["", "debt", "refuse"] = Field(
        "", description="What happens to videos that could not be looked at, over the five above; empty: the same."
    )
    act: Literal["never", "allowance"] = Field(
        "never",
        description='What the gate does about debts that turn out suspected: "never" leaves them to `apply`; "allowance" hides them at once, within the allowance.',
    )
    lapse_hours: Annotated[int, Field(ge=1, le=8760)] = Field(
        24, description="A debt lapses when pict-rs has not had its object for this long (the upload failed later on)."
    )


class LemmySettings(_Section):
    """The Lemmy server in front of pict-rs, for `trace` and `lemmy` (docs/trace.md)."""

    url: str = Field("", description="Its public address, such as https://lemmy.example; empty: there is none.")
    api: str = Field("", description="Where its API is called, such as http://127.0.0.1:8536; empty: at its public address.")
    credentials: str = Field(
        "",
        description="File with `database`, the PostgreSQL address of a role that may only read what a trace needs, or with a `jwt`.",
    )
    keeper_credentials: str = Field("", description="File with the `jwt` of an administrator (only `lemmy act` opens it).")
    trace_when_hiding: bool = Field(
        True, description="Seal a trace beside the bytes before anything is hidden: Lemmy forgets sessions on logout and ban."
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(10, description="Seconds to wait for one answer.")


class WatchSettings(_Section):
    """Watching for good: `fediwarden watch` (docs/watching.md)."""

    seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        60, description="Seconds between two questions for new objects, where a store is asked; folders tell by themselves."
    )
    requests_per_hour: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        100,
        description="Listing requests per store and hour at most; the first complete listing is not bounded, nor are fetches of what is new.",
    )
    sweep_hours: Annotated[int, Field(ge=1, le=8760)] = Field(
        24, description="Hours between two complete listings, which prove that nothing was missed and find what is gone."
    )
    overlap_minutes: Annotated[int, Field(ge=1, le=10080)] = Field(
        60,
        description="How far questions for new objects reach back behind what is known, for clocks that differ and late arrivals.",
    )
    act: Literal["never", "ask", "allowance"] = Field(
        "never",
        description='What is done about suspected objects: "never" leaves them to `apply`; "ask" does too and sends a notice; "allowance" hides them at once, within the allowance.',
    )
    metrics: str = Field(
        "", description="Address and port for Prometheus and /healthz, such as 127.0.0.1:9470; empty: nothing listens."
    )
    blind_minutes: Annotated[int, Field(ge=1, le=10080)] = Field(
        60,
        description="Minutes without an answer of a store, or without any look that worked, after which watching counts as blind.",
    )


class NoticeSettings(_Section):
    """Who is told what while `watch` or the gate runs: counts only, never keys or pictures. Nothing is contacted unless it is named here."""

    heartbeat: str = Field("", description="An address that is fetched while all is well, for a dead man's switch; empty: none.")
    heartbeat_minutes: Annotated[int, Field(ge=1, le=1440)] = Field(5, description="Minutes between two heartbeats.")
    webhook: str = Field("", description="An address that notices are posted to as JSON; empty: none.")
    mail_to: str = Field("", description="Who gets notices by mail; empty: nobody.")
    mail_from: str = Field("", description="The sender of these mails; empty: the same address.")
    smtp: str = Field("127.0.0.1:25", description="The mail server, with its port.")
    smtp_security: Literal["none", "starttls", "tls"] = Field(
        "none", description='How mail travels to that server; "none" only makes sense on this machine.'
    )
    smtp_credentials: str = Field("", description="File with `user` and `password` for the mail server; empty: no login.")
    digest_hour: Annotated[int, Field(ge=-1, le=23)] = Field(7, description="The hour (UTC) of the daily digest; -1: none.")


class StoreEntry(_Section):
    """One store."""

    url: str = Field(
        description="/a/folder, s3://bucket/prefix, sftp://user@host/folder, pictrs://host:port or pictrs+https://host."
    )
    endpoint: str = Field("", description="S3: the server's address; empty means Amazon's own for the region.")
    region: str = Field("us-east-1", description="S3: the region.")
    path_style: bool = Field(True, description="S3: put the bucket in the path, not in the host name.")
    allow_http: bool = Field(False, description="S3, pict-rs: allow an address without TLS that is not on this machine.")
    credentials: str = Field("", description="File with the credentials that may only read (scan never opens another).")
    keeper_credentials: str = Field(
        "", description="File with the credentials that may move objects (only apply and restore open it)."
    )
    quarantine: str = Field(
        "", description="Where hidden objects go; empty chooses a place beside the store that is not public (docs/stores.md)."
    )
    hide: Literal["move", "remove"] = Field(
        "move", description='"move" hides in the quarantine place; "remove" leaves the vault as the only copy.'
    )
    known_hosts: str = Field("", description="SFTP: file of known host keys; empty means ~/.ssh/known_hosts.")
    public_url: str = Field(
        "", description="The address under which strangers fetch objects, to prove that hidden ones cannot be had."
    )
    pictrs: str = Field(
        "",
        description="The name of the pict-rs store whose files lie here: they are looked at and hidden through pict-rs, each content once.",
    )
    overlap_seconds: Annotated[int, Field(ge=0, le=86400)] = Field(
        60, description="pict-rs: how far listings by time overlap; at least its external_validation_timeout (30)."
    )
    private_messages: bool = Field(
        False,
        description="true says that this store holds media of private messages; it is scanned only where the profile allows that.",
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(30, description="Seconds to wait for one answer.")
    tries: Annotated[int, Field(ge=1, le=100)] = Field(5, description="Tries before an object is unreached in this run.")


class Settings(_Section):
    """The whole configuration."""

    profile: str = Field(
        "",
        description="The jurisdiction profile: us, uk, eu-xx (such as eu-de), ca, au or other. Nothing can be applied without one (docs/profiles.md).",
    )
    scan: ScanSettings = ScanSettings()
    media: MediaSettings = MediaSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    policy: PolicySettings = PolicySettings()
    acting: ActingSettings = ActingSettings()
    vault: VaultSettings = VaultSettings()
    ledger: LedgerSettings = LedgerSettings()
    models: ModelsSettings = ModelsSettings()
    log: LogSettings = LogSettings()
    gate: GateSettings = GateSettings()
    lemmy: LemmySettings = LemmySettings()
    watch: WatchSettings = WatchSettings()
    notice: NoticeSettings = NoticeSettings()
    stores: dict[str, StoreEntry] = Field(default_factory=dict, description="The stores to look at, each under a short name.")


@dataclass(frozen=True, slots=True)
class Profile:
    """What a jurisdiction asks of evidence. Data, reviewed by no lawyer; `source` and `as_of` say where it comes from."""

    name: str
    title: str
    keep: Literal["preserve", "metadata only"]
    retention_days: int  # after which destruction may be *proposed*; 0 means never
    scan_private_messages: bool
    as_of: str
    reviewed: bool
    words: str
    source: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings together with the folder they live in; relative paths of the file are relative to it."""

    home: Path
    settings: Settings
    file: Path

    def path(self, text: str) -> Path:
        """A path of the configuration, made absolute."""
        return self.home / Path(text).expanduser()

    @property
    def models(self) -> Path:
        """The folder of installed models."""
        return self.home / "models"

    @property
    def calibration(self) -> Path:
        """The folder of what `calibrate` learned, one file for each version of an analyser."""
        return self.home / "calibration"

    @property
    def catalogue(self) -> Path:
        """The operator's own list of image-text models; an entry here stands over the shipped one of its name."""
        return self.home / "catalogue.toml"

    @property
    def profiles(self) -> Path:
        """The folder of the operator's own profiles; a file here stands over the shipped one of its name."""
        return self.home / "profiles"

    @property
    def drill_key(self) -> Path:
        """The secret that makes this installation's drill pictures its own."""
        return self.home / "drill.key"

    @property
    def drill_vault(self) -> Path:
        """The vault of drill pictures, apart from the evidence."""
        vault = self.path(self.settings.vault.folder)
        return vault.with_name(vault.name + "-drill")


def home(environment: Mapping[str, str]) -> Path:
    """The folder of configuration, ledger, models and vault: FEDIWARDEN_HOME, or the user's data folder."""
    if chosen := environment.get("FEDIWARDEN_HOME"):
        return Path(chosen).expanduser().absolute()
    data = environment.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser().absolute() / "fediwarden"


def load(environment: Mapping[str, str]) -> Configuration:
    """Read the configuration file if there is one, apply the environment over it, and check the whole.

    Raises:
        Misconfigured: naming the key and, for TOML errors, the line.
    """
    folder = home(environment)
    file = folder / CONFIG_NAME
    table: dict[str, object] = {}
    text = ""
    try:
        text = file.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        pass
    except ValueError as error:  # TOML's own errors, bytes that are no text, and numbers of thousands of digits
        raise Misconfigured(f"{file}: {error}", hint=_mending(text)) from error
    except OSError as error:
        raise Misconfigured(
            f"{file}: {error.strerror or error}", hint="the user that runs fediwarden must be able to read it"
        ) from error
    merged = _merge(table, _from_environment(environment))
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Misconfigured(f"{file}: {where}: {first['msg']}", hint="docs/settings.md describes every key") from error
    for name in settings.stores:
        if not STORE_NAME.fullmatch(name):
            raise Misconfigured(f"{file}: stores.{name}: not a store's name", hint="use lower-case letters, digits, - and _")
        if name == "gate":
            raise Misconfigured(f"{file}: stores.gate: the name is taken by the gate's own record", hint="choose another name")
    configuration = Configuration(folder, settings, file)
    if settings.profile:
        profile(settings.profile, configuration.profiles)
    return configuration


def _mending(text: str) -> str:
    """What to do about a file that is no TOML; names both lines of a table or a key that is there twice."""
    table, met = "", dict[tuple[str, str], int]()
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.fullmatch(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?", line):
            table, key = match[1].strip(), ""
        elif match := re.match(r"\s*([A-Za-z0-9_-]+)\s*=", line):
            key = match[1]
        else:
            continue
        first = met.setdefault((table, key), number)
        if first == number:
            continue
        if not key:
            return f"[{table}] stands in line {first} already: change its lines there, and take the block of line {number} away"
        return f"{key} stands in line {first} already: change that line, and take line {number} away"
    return "mend that line, or write a fresh file with `fediwarden init`"


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    """FEDIWARDEN_SECTION__KEY=value as a table; values are read as TOML where they are TOML, else as words."""
    table: dict[str, object] = {}
    for name, value in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT) or name in ("FEDIWARDEN_HOME", "FEDIWARDEN_TEST_MODELS"):
            continue
        path = name.removeprefix(ENVIRONMENT).lower().split("__")
        if path[0] not in Settings.model_fields:
            if len(path) > 1:  # a misspelt section: what it should have set is not in force, and somebody thinks it is
                raise Misconfigured(f"{name}: there is no section {path[0]!r}", hint="docs/settings.md describes every key")
            continue  # not ours to judge
        inner = table
        for part in path[:-1]:
            step = inner.setdefault(part, {})
            if not isinstance(step, dict):
                raise Misconfigured(f"{name} contradicts another variable", hint="set one of them only")
            inner = step
        inner[path[-1]] = _toml_value(value)
    return table


def _toml_value(text: str) -> object:
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _merge(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def profile_names() -> tuple[str, ...]:
    """The names of the profiles that come with the program; eu-xx stands for every EU country without one of its own."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in _shipped().iterdir() if entry.name.endswith(".toml")))


def profile(name: str, folder: Path | None = None) -> Profile:
    """The jurisdiction profile of that name: the operator's own in `folder`, else a shipped one; eu-de falls back to eu-xx.

    Raises:
        Misconfigured: there is no such profile, or the operator's own is not one.
    """
    own = folder / f"{name}.toml" if folder is not None and STORE_NAME.fullmatch(name) else None
    if own is not None and own.is_file():
        return _parsed_profile(name, own.read_text(encoding="utf-8", errors="replace"), str(own))
    names = profile_names()
    chosen = name if name in names else "eu-xx" if re.fullmatch(r"eu-[a-z]{2}", name) else ""
    if not chosen:
        where = f", or write your own as {own}" if own else ""
        raise Misconfigured(
            f"profile {name!r} is not known",
            hint=f"choose one of {', '.join(names)}, with your country's two letters for eu-xx{where}",
        )
    file = _shipped() / f"{chosen}.toml"
    return _parsed_profile(name, file.read_text(encoding="utf-8"), str(file))


def _shipped() -> Traversable:
    return files("fediwarden") / "data" / "profiles"


class _ProfileFile(_Section):
    title: str
    keep: Literal["preserve", "metadata only"]
    retention_days: Annotated[int, Field(ge=0)]
    scan_private_messages: bool
    as_of: str
    reviewed: bool
    words: str
    source: str


def _parsed_profile(name: str, text: str, origin: str) -> Profile:
    try:
        read = _ProfileFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{origin}: {error}", hint="mend that line") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Misconfigured(f"{origin}: {where}: {first['msg']}", hint="docs/profiles.md describes every key") from error
    return Profile(name=name, **read.model_dump())


def default_policy(preset: str = "default") -> str:
    """The text of a policy that comes with the program."""
    return (files("fediwarden") / "data" / f"{preset}-policy.toml").read_text(encoding="utf-8")


def template(profile_name: str) -> str:
    """A commented configuration file with every key at its default."""
    lines = [
        "# Fediwarden's configuration. Every key is here with its default; a line that begins with # is not in force.",
        "# The environment overrides it: FEDIWARDEN_ACTING__ALLOWANCE=20 sets allowance in [acting].",
        "",
    ]
    for name, info in Settings.model_fields.items():
        if name == "profile":
            lines += [f"# {info.description}", f'profile = "{profile_name}"', ""]
        elif name != "stores":
            section = info.annotation
            assert isinstance(section, type)  # noqa: S101 - a fact of the class above
            assert issubclass(section, BaseModel)  # noqa: S101
            lines += [f"# {section.__doc__}", f"[{name}]", *_keys(section, commented=False), ""]
    lines += [
        "# The stores to look at. Copy this block for each, give it a short name, and take the # away from what you set.",
        "# [stores.media]",
        *_keys(StoreEntry, commented=True),
    ]
    return "\n".join(lines) + "\n"


def _keys(section: type[BaseModel], *, commented: bool) -> Iterator[str]:
    for name, info in section.model_fields.items():
        yield f"# {'# ' if commented else ''}{info.description}"
        value = "/srv/pictrs/files" if info.is_required() else info.default
        yield f"{'# ' if commented else ''}{name} = {_as_toml(value)}"


def _as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def every_setting() -> Iterator[tuple[str, str]]:
    """Each setting's dotted name and meaning, for the documentation test."""
    for name, info in Settings.model_fields.items():
        section = StoreEntry if name == "stores" else info.annotation
        prefix = "stores.NAME" if name == "stores" else name
        if isinstance(section, type) and issubclass(section, BaseModel):
            for key, inner in section.model_fields.items():
                yield f"{prefix}.{key}", inner.description or ""
        else:
            yield name, info.description or ""


def environment() -> Mapping[str, str]:
    """This process's environment; the only place that reads it."""
    return os.environ
