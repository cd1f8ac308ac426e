"""Units, Compose files and the container's file against the program: what they name exists, and none is less shut in than another.

That they work is proved elsewhere: `make container` runs the image.
"""

import ipaddress
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]

from fediwarden import config
from fediwarden.cli.main import app

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy/systemd").glob("*.*[!d]"))
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
COMPOSE = sorted((ROOT / "deploy/compose").glob("*.yaml"))
SANDBOX = ROOT / "deploy/systemd/fediwarden-.service.d/sandbox.conf"
HEALTH = (ROOT / "deploy/container/healthcheck.py").read_text(encoding="utf-8")


def lines(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)


def parsed(words: list[str]) -> str:
    """The command that these arguments call, read as the program reads them; raises where it would refuse them."""
    command: Any = typer.main.get_command(app)
    name = "fediwarden"
    while words and words[0] in getattr(command, "commands", {}):
        command, name, words = command.commands[words[0]], words[0], words[1:]
    command.make_context(name, list(words))
    return name


def compositions() -> Iterator[Any]:
    for file in COMPOSE:
        for name, service in yaml.safe_load(file.read_text(encoding="utf-8"))["services"].items():
            yield pytest.param(service, id=f"{file.stem}-{name}")


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_every_unit_calls_commands_that_exist_with_options_that_exist(unit: Path) -> None:
    called = [line.split() for line in lines(unit, "ExecStart")]

    assert called
    for program, *words in called:
        assert program == "/usr/local/bin/fediwarden"
        assert parsed(words) == unit.stem.removeprefix("fediwarden-")
    environment = dict(line.split("=", 1) for line in lines(unit, "Environment"))
    assert environment.keys() == {"FEDIWARDEN_HOME", "FEDIWARDEN_LOG__FILE"}
    assert config.load(environment).settings.log.file == "-"


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_no_unit_loosens_the_sandbox_that_all_share(unit: Path) -> None:
    shared = {key for key, _ in re.findall(r"^(\w+)=(.*)$", SANDBOX.read_text(encoding="utf-8"), re.MULTILINE)}
    own = {key for key, _ in re.findall(r"^(\w+)=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)}

    assert {"NoNewPrivileges", "ProtectSystem", "CapabilityBoundingSet", "SystemCallFilter", "LimitCORE"} <= shared
    assert shared & own == set()
    assert lines(unit, "User") == ["fediwarden"]


def test_the_gate_s_socket_has_the_address_that_the_gate_has_by_itself() -> None:
    assert lines(ROOT / "deploy/systemd/fediwarden-gate.socket", "ListenStream") == [config.GateSettings().listen]


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_the_page_tells_how_exposed_systemd_finds_each_unit(unit: Path) -> None:
    analyse = shutil.which("systemd-analyze")
    if analyse is None or "systemd 252 " not in subprocess.run([analyse, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("there is no systemd-analyze of version 252 here, and versions count differently")
    said = subprocess.run(
        [analyse, "security", "--no-pager", "--offline=true", str(unit)], capture_output=True, text=True, check=True
    ).stdout
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)

    assert exposure is not None
    assert float(exposure[1]) < 2
    assert f"| `{unit.name}` | {exposure[1]} |" in (ROOT / "docs/running.md").read_text(encoding="utf-8")


def test_systemd_reads_the_units_without_a_word(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    folder = tmp_path / "units"
    shutil.copytree(ROOT / "deploy/systemd", folder)
    for unit in folder.glob("*.service"):  # the program need not be installed for this
        unit.write_text(unit.read_text(encoding="utf-8").replace("/usr/local/bin/fediwarden", "/bin/true"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(folder.glob("*.*[!d]")))],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("service", list(compositions()))
def test_every_compose_service_calls_a_command_that_exists_shut_in_like_the_others(service: dict[str, Any]) -> None:
    name = parsed(service["command"])

    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges"]
    assert service["user"] == "10001:10001"
    assert service["tmpfs"] == ["/tmp:rw,noexec,nosuid,nodev,size=256m"]  # noqa: S108 - the container's own
    assert "ports" not in service
    assert "privileged" not in service
    environment = {key: value for key, value in service["environment"].items() if key.startswith("FEDIWARDEN_")}
    settings = config.load({"FEDIWARDEN_HOME": "/nowhere"} | environment).settings
    asked = service["environment"].get("HEALTH_URL", re.search(r'"HEALTH_URL", "([^"]+)"', HEALTH)[1])  # type: ignore[index]
    port = (settings.gate.listen if name == "gate" else settings.watch.metrics).rpartition(":")[2]
    assert asked == f"http://127.0.0.1:{port}/healthz"


def test_the_gate_beside_lemmy_has_one_address_in_numbers_in_a_network_of_its_own_and_every_page_says_the_same() -> None:
    composed = yaml.safe_load((ROOT / "deploy/compose/same-host.yaml").read_text(encoding="utf-8"))
    own = composed["networks"]["gate"]
    pool = own["ipam"]["config"][0]
    gate = composed["services"]["gate"]
    subnet, others = (ipaddress.ip_network(_default(pool[key])) for key in ("subnet", "ip_range"))
    address = ipaddress.ip_address(_default(gate["networks"]["gate"]["ipv4_address"]))

    assert address in subnet
    assert address not in others  # nobody else is given it while the gate is down
    assert others.subnet_of(subnet)  # type: ignore[arg-type]
    assert gate["environment"]["FEDIWARDEN_GATE__ADDRESS"] == "${GATE_ADDRESS:-" + f"{address}" + "}:8970"
    assert (
        composed["services"]["watch"]["environment"]["FEDIWARDEN_GATE__ADDRESS"]
        == gate["environment"]["FEDIWARDEN_GATE__ADDRESS"]
    )
    assert own["name"] == "fediwarden-gate"
    page = (ROOT / "docs/container.md").read_text(encoding="utf-8")
    lemmy = yaml.safe_load(next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "pictrs:" in block))
    assert lemmy["services"]["pictrs"]["networks"] == ["default", own["name"]]
    assert lemmy["networks"] == {own["name"]: {"external": True}}
    assert f"http://{address}:8970/validate/" in lemmy["services"]["pictrs"]["environment"][0]
    for file in ("scripts/container.sh", "docs/container.md"):
        assert f"{address}" in (ROOT / file).read_text(encoding="utf-8"), file
    for path in [*(ROOT / "docs").glob("*.md"), *COMPOSE]:  # a name would be found by no pict-rs from 0.5.21 on
        assert "EXTERNAL_VALIDATION=http://gate" not in path.read_text(encoding="utf-8"), path.name


def _default(text: str) -> str:
    """What `${NAME:-default}` means where NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_the_page_the_proofs_and_the_compose_files_shut_a_container_in_with_the_same_flags() -> None:
    flags = "--init --read-only --cap-drop all --security-opt no-new-privileges --tmpfs /tmp:rw,noexec,nosuid,nodev,size=256m"

    for file in ("docs/container.md", "scripts/container.sh"):
        assert flags in " ".join((ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ").split()), file
