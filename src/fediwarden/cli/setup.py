"""`init` and `doctor`: preparing a machine and saying what is missing on it; changes no store."""

import os
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import typer

from fediwarden import config
from fediwarden.analysers.clip import Clip
from fediwarden.app import App
from fediwarden.cli.common import JSON, build
from fediwarden.cli.doctor import Diagnosis, examine
from fediwarden.cli.output import console, emit, plain, result, row, say, show, table
from fediwarden.errors import CannotWrite, Exit, FediwardenError, Misconfigured
from fediwarden.inference.registry import FileState, verify
from fediwarden.inference.sessions import devices
from fediwarden.vault import identities_here


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(short_help="Write a commented configuration; choose a jurisdiction profile.")(init)
    app.command(short_help="Check this machine and this installation; say what is missing.")(doctor)


def init(
    profile: str = typer.Option("", "--profile", help="The jurisdiction profile; asked for if it is not given."),
    force: bool = typer.Option(
        False, "--force", help="Replace a configuration that is there already (the old one is kept beside it)."
    ),
    json: bool = JSON,
) -> int:
    """Write a commented configuration file with every key at its default.

    Asks for the jurisdiction profile, which says whether evidence is kept and for how long. Without one, everything can
    be looked at and nothing can be applied. The profiles are data, cite their sources, and no lawyer has reviewed them.
    """
    folder = config.home(config.environment())
    file = folder / config.CONFIG_NAME
    if file.exists() and not force:
        raise Misconfigured(f"{file} exists already", hint="edit it, or replace it with --force")
    chosen = profile or _ask()
    told = config.profile(chosen, folder / "profiles")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if file.exists():
            file.replace(file.with_suffix(".toml.old"))
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(config.template(chosen))
    except OSError as error:
        raise CannotWrite(
            f"cannot write {file}: {error.strerror}", hint="set FEDIWARDEN_HOME to a folder that this user may write"
        ) from error
    if json:
        emit({"file": str(file), "profile": chosen, "keep": told.keep, "retention_days": told.retention_days})
        return Exit.OK
    result(f"wrote {file}")
    result(f"profile {chosen}: {told.title}; {told.keep}; {told.words}")
    result("next: add your stores to it, then `fediwarden models install`, `fediwarden vault init`, `fediwarden doctor`")
    return Exit.OK


def _ask() -> str:
    if not sys.stdin.isatty():
        raise Misconfigured("no profile was given and nobody is at the terminal to ask", hint="fediwarden init --profile other")
    say("Which law applies to the person who runs this instance? Nothing can be applied without an answer.")
    for name in config.profile_names():
        told = config.profile(name)
        say(f"  {name:<6} {told.title} ({told.keep}; as of {told.as_of}{'' if told.reviewed else ', not reviewed by a lawyer'})")
    say("  eu-xx stands for your country: eu-de, eu-fr, ...")
    return str(typer.prompt("profile", err=True)).strip().lower()


def doctor(json: bool = JSON) -> int:
    """Check this machine and this installation, and say what to do about what is missing.

    Exit code 4 if something without which nothing works is missing.
    """
    app = build()
    findings = list(_examine(app))
    if json:
        for found in findings:
            emit({"what": found.what, "well": found.well, "words": found.words, "hint": found.hint, "vital": found.vital})
    else:
        _tell(findings)
    return Exit.CONFIGURATION if any(found.vital and not found.well for found in findings) else Exit.OK


def _tell(findings: Sequence[Diagnosis]) -> None:
    """A table at a terminal; elsewhere a line a finding, however long, for `grep` and for mails."""
    wide = not console().is_terminal
    shown = table("", "what", "words")
    for found in findings:
        state = "ok" if found.well else "NO" if found.vital else "!"
        words = found.words + (f" -> {found.hint}" if found.hint and not found.well else "")
        if wide:
            result(f"{state:<2}  {plain(found.what)}: {plain(words)}")
        else:
            row(shown, state, found.what, words)
    if not wide:
        show(shown)


def _examine(app: App) -> Iterator[Diagnosis]:
    file = app.configuration.file
    yield Diagnosis(
        "configuration",
        file.exists(),
        str(file) if file.exists() else "there is none; defaults are in force",
        "fediwarden init",
        vital=False,
    )
    yield Diagnosis(
        "profile",
        bool(app.settings.profile),
        app.settings.profile or "none; nothing can be applied",
        "fediwarden init",
        vital=False,
    )
    yield Diagnosis("policy", True, f"{app.policy.name} {app.policy.digest}")
    bad = [
        f"{check.model}/{check.file}: {check.state.value}"
        for check in verify(app.configuration.models)
        if check.state is not FileState.OK
    ]
    yield Diagnosis("models", not bad, "installed and unaltered" if not bad else "; ".join(bad), "fediwarden models install")
    for module, extra, what in (("onnxruntime", "cpu", "inference"), ("av", "video", "video"), ("asyncssh", "sftp", "SFTP")):
        there = find_spec(module) is not None
        yield Diagnosis(
            what,
            there,
            f"{module} {'found' if there else 'not installed'}",
            f"pip install 'fediwarden[{extra}]'",
            vital=extra == "cpu",
        )
    yield from _analysis(app)
    try:
        layers = app.layers()
    finally:
        app.cage.close()
    missing = [name for name, there in layers.layers.items() if not there]
    yield Diagnosis(
        "cage",
        not missing and not layers.problem,
        layers.problem or (f"missing: {', '.join(missing)}" if missing else "every layer is there"),
        'cage = "reduced" goes on with fewer',
    )
    yield Diagnosis("formats", True, ", ".join(sorted(layers.formats)))
    yield from _vault(app)
    try:
        broken = app.ledger.verify()
        yield Diagnosis(
            "ledger",
            not broken,
            "the record of deeds is whole" if not broken else "; ".join(broken),
            "keep the file and ask for help",
        )
    except FediwardenError as error:
        yield Diagnosis("ledger", False, str(error), error.hint)
    for name in app.settings.stores:
        try:
            app.store(name)
            yield Diagnosis(f"store {name}", True, app.settings.stores[name].url)
        except FediwardenError as error:
            yield Diagnosis(f"store {name}", False, str(error), error.hint)
    yield from examine(app)


def _analysis(app: App) -> Iterator[Diagnosis]:
    """What looks at pictures, where it computes, whether it may decide, and what would suit this machine better."""
    try:
        there = devices()
        yield Diagnosis("devices", True, f"ONNX Runtime can compute on {', '.join(there)}")
    except FediwardenError:
        return  # said above
    gpu = "cuda" in there
    try:
        clip = app.clip
    except FediwardenError as error:
        yield Diagnosis("analysis", False, str(error), error.hint)
        return
    if clip is None:
        suits = "clip-vit-l-14" if gpu or _multiplies_bytes() else "clip-vit-b-32"
        yield Diagnosis(
            "analysis",
            False,
            "the embedded default alone: blind to drawings and to pictures without a visible face",
            f"fediwarden models pull {suits}, models build {suits}, calibrate (docs/choosing-a-model.md)",
            vital=False,
        )
        return
    yield Diagnosis("analysis", True, f"{app.mode}; {clip.model} {clip.precision} on {clip.device}")
    other = app.counted_otherwise
    may = (
        f"counted for {other}: the budget is not kept to"
        if other
        else "CLIP may decide, at the operating points of your own media"
    )
    yield Diagnosis(
        "calibration",
        app.calibrated and not other,
        may if app.calibrated else "none: CLIP informs, it decides nothing",
        "fediwarden calibrate",
        vital=False,
    )
    if advice := _advice(clip, gpu=gpu):
        yield Diagnosis("speed", False, *advice, vital=False)


def _advice(clip: Clip, *, gpu: bool) -> tuple[str, str] | None:
    """What is slower than it need be, and what to do about it."""
    if clip.device == "cpu" and gpu:
        return "there is a CUDA GPU, and CLIP computes on the processor", 'leave [analysis] device empty, or set it to "cuda"'
    if clip.device == "cpu" and clip.precision != "int8":
        return f"{clip.precision} on a processor is slower than int8", f"fediwarden models build {clip.model} --precision int8"
    if clip.device == "cuda" and clip.precision != "fp16":
        return f"{clip.precision} on a GPU is slower than fp16", f"fediwarden models build {clip.model} --precision fp16"
    return None


def _multiplies_bytes() -> bool:
    """Whether this processor has instructions for eight-bit products (VNNI, dot product), which make int8 models fast."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return False
    return not words.isdisjoint({"avx512_vnni", "avx_vnni", "asimddp"})


def _vault(app: App) -> Iterator[Diagnosis]:
    if app.settings.profile and app.profile.keep != "preserve":
        yield Diagnosis("vault", True, f"not used: profile {app.profile.name} keeps metadata only")
        return
    try:
        app.vault()
        yield Diagnosis("vault", True, str(app.configuration.path(app.settings.vault.folder)), vital=False)
    except FediwardenError as error:
        yield Diagnosis("vault", False, str(error), error.hint or "fediwarden vault init", vital=False)
    left = identities_here(app.configuration.home)
    yield Diagnosis(
        "private keys",
        not left,
        "none on this machine" if not left else f"they lie on this machine: {', '.join(plain(str(path)) for path in left)}",
        "move each to another person's safe place (a USB stick, a password manager), then delete it here",
        vital=False,
    )
