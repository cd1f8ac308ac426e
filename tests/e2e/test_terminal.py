"""What a person at a terminal meets: a progress line, questions, help for every command, shell completion."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
import typer.main
from tests.support.command import Home, files_below, write
from tests.support.crashes import Forks
from tests.support.fault_proxy import bad_days
from tests.support.media_makers import animation, still
from tests.support.servers import S3Server

from fediwarden.cli.main import app

BIN = Path(sys.executable).parent


def at_a_terminal(home: Home, *arguments: str | Path, timeout: int = 60) -> "pexpect.spawn[str]":
    command, *rest = home.command(*arguments)
    environment = {**home.environment, "TERM": "xterm-256color", "COLUMNS": "160"}
    return pexpect.spawn(command, rest, env=environment, encoding="utf-8", timeout=timeout, dimensions=(40, 160))


def test_the_progress_line_shows_rate_time_left_and_what_is_not_scanned(home: Home, s3_server: S3Server, tmp_path: Path) -> None:
    bucket = s3_server.bucket()
    for number in range(30):
        s3_server.put(bucket, f"{number:02}", still("png", 40 + number, 30, seed=number) if number % 6 else b"broken %d" % number)
    reader, _ = s3_server.credentials(tmp_path)
    home.settings["FEDIWARDEN_SCAN__FETCHERS"] = "1"
    with bad_days(s3_server.port) as proxy:
        home.add_store("media", url=f"s3://{bucket}", endpoint=f"http://127.0.0.1:{proxy.port}", credentials=reader)
        proxy.plan = lambda number, line: "slow:0.15" if f"{bucket}/" in line else ""
        scan = at_a_terminal(home, "scan")
        scan.expect(r"looked at (\d+) of 30 \| [\d.]+/s \| .{1,9} left \| (\d+) not scanned \| 0 suspected")
        scan.expect(r"looked at (\d+) of 30 \| [\d.]+/s \| .{1,9} left \| [1-5] not scanned")
        scan.expect(pexpect.EOF)
        scan.close()
    assert scan.exitstatus == 3


def test_apply_asks_and_a_no_changes_nothing(home: Home, tmp_path: Path) -> None:
    store = tmp_path / "store"
    write(store, {"a\x1b[31m.gif": animation("gif", 3)})
    home.run("scan", store, expect=1)

    for answer, code, left in (("n", 2, 1), ("y", 0, 0)):
        asked = at_a_terminal(home, "apply")
        asked.expect(r"1 object.* will be sealed in .*vault.* Go on\?")
        shown = asked.before or ""
        assert "a\x1b[31m" not in shown
        asked.sendline(answer)
        asked.expect(pexpect.EOF)
        asked.close()
        assert asked.exitstatus == code
        assert len(files_below(store)) == left


def test_a_question_that_is_not_answered_keeps_nobody_from_acting(home: Home, tmp_path: Path) -> None:
    store = tmp_path / "store"
    write(store, {"a.gif": animation("gif", 3)})
    home.run("scan", store, expect=1)
    asked = at_a_terminal(home, "apply")
    asked.expect(r"Go on\?")

    assert home.run("apply", "--yes", "--json").last["done"] == 1

    asked.sendline("y")
    asked.expect("0 hidden")
    asked.expect(pexpect.EOF)
    asked.close()
    assert asked.exitstatus == 0


def test_init_asks_for_the_profile_at_a_terminal(tmp_path: Path) -> None:
    home = Home(tmp_path / "new")
    asked = at_a_terminal(home, "init")
    asked.expect("profile")
    asked.expect(r": $")
    asked.sendline("eu-de")
    asked.expect(pexpect.EOF)
    asked.close()
    assert asked.exitstatus == 0
    assert 'profile = "eu-de"' in (home.folder / "fediwarden.toml").read_text()


def commands() -> list[list[str]]:
    """Every command, and every group."""
    found: list[list[str]] = [[]]
    root = typer.main.get_command(app)
    for name, command in sorted(root.commands.items()):  # type: ignore[attr-defined]
        found.append([name])
        found += [[name, inner] for inner in sorted(getattr(command, "commands", {}))]
    return found


def test_every_command_explains_itself(home: Home, forked: Forks) -> None:
    special = {"scan": "135", "check": "13", "apply": "63", "restore": "3", "doctor": "4", "drill run": "3", "vault verify": "70"}
    assert len(commands()) > 15
    for command in commands():
        told = forked.run(home, *command, "--help").out
        assert "Usage: fediwarden" in told
        assert len(told.splitlines()) > 5, command
        assert re.search(r"-h, --help|--help", told)
        words = " ".join(told.split())
        for code in re.findall("70|.", special.get(" ".join(command), "")):
            assert re.search(rf"\b{code} (if|something)|, {code} |[Cc]ode {code}\b", words), (command, code, words)
        group = any(other[:1] == command and len(other) > 1 for other in commands())
        if len(command) == 1 and not group and command != ["watch"]:  # which tells through its log, its metrics and `status`
            assert "--json" in told, command
    everything = forked.run(home, "--help").out
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "70 ", "74 ", "130 "):
        assert code in everything
    assert forked.run(home, "--version").out.startswith("fediwarden ")


def test_help_without_a_configuration_or_models_works(tmp_path: Path, forked: Forks) -> None:
    forked.run(Home(tmp_path / "nothing"), "scan", "--help")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("shell", ["bash"])
def test_shell_completion_can_be_shown_and_used(home: Home, shell: str) -> None:
    program = BIN / "fediwarden"
    shown = subprocess.run(
        [shell, "-c", f"{shlex.quote(str(program))} --show-completion; true"],
        env=home.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "complete " in shown.stdout
    assert "fediwarden" in shown.stdout
    script = f"{shown.stdout}\nCOMP_WORDS=(fediwarden res); COMP_CWORD=1; PATH={BIN}:$PATH; _fediwarden_completion fediwarden; echo ${{COMPREPLY[@]}}"
    used = subprocess.run([shell, "-c", script], env=home.environment, capture_output=True, text=True, check=True)
    assert "restore" in used.stdout.split()
