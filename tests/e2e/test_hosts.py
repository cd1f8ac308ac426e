"""A folder on a real SSH server, through the command line; a host that is not the one known stops it, and nothing ever prompts."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from tests.support.command import Home, by_key, files_below, write
from tests.support.crashes import folder_site
from tests.support.media_makers import animation, still
from tests.support.servers import SshServer

PICTURE = still("png", 96, 64, seed=1)
ANIMATION = animation("gif", 3)


@pytest.fixture
def store(home: Home, ssh_server: SshServer, tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    write(folder, {"a.gif": ANIMATION, "deep/b.png": PICTURE, "odd\n name.gif": ANIMATION})
    home.add_store(
        "host",
        url=ssh_server.url(folder),
        credentials=ssh_server.credentials(tmp_path, name="reader"),
        keeper_credentials=tmp_path / "keeper.toml",
        known_hosts=tmp_path / "known_hosts",
        tries=2,
        timeout_seconds=5,
    )
    shutil.copy(ssh_server.known_hosts, tmp_path / "known_hosts")
    return folder


def test_the_main_road_over_ssh(home: Home, ssh_server: SshServer, store: Path, tmp_path: Path) -> None:
    before = files_below(store)
    mode = (store / "a.gif").stat().st_mode
    totals = home.run("scan", "--json", expect=1).last  # no keeper's credentials are there yet
    assert (totals["listed"], totals["seen"], totals["flagged"]) == (3, 3, 2)
    again = home.run("scan", "--json", expect=1).last
    assert (again["skipped"], again["bytes"]) == (3, 0)
    refused = home.run("apply", "--yes", expect=4)
    assert "keeper.toml" in refused.err

    ssh_server.credentials(tmp_path, "ecdsa", name="keeper")
    home.run("apply", "--yes")
    assert files_below(store) == {"deep/b.png": PICTURE}
    assert folder_site("host", store).quarantined() == [ANIMATION, ANIMATION]
    assert home.unsealed(ANIMATION)
    home.run("restore", "a.gif", "odd\n name.gif")
    assert files_below(store) == before
    assert (store / "a.gif").stat().st_mode == mode
    assert by_key(home.run("list", "--json").lines)["a.gif"]["deed"] == "restored"


def test_a_changed_host_key_stops_every_command_before_anything_is_sent(
    home: Home, ssh_server: SshServer, store: Path, tmp_path: Path
) -> None:
    ssh_server.credentials(tmp_path, "ecdsa", name="keeper")
    home.run("scan", expect=1)
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{ssh_server.port} {other.with_suffix('.pub').read_text()}")

    started = time.monotonic()
    for command, code in ((["scan"], {5}), (["scan", "--estimate"], {5}), (["apply", "--yes"], {3, 5})):
        stopped = home.run(*command, expect=None)
        assert stopped.code in code, stopped
        assert "CHANGED" in stopped.out + stopped.err
        assert "hint: " in stopped.err
        assert "Traceback" not in stopped.err
    assert time.monotonic() - started < 30
    assert len(files_below(store)) == 3
    assert home.run("status", "--json").last["owed"] == 2


def test_an_unknown_host_is_not_trusted_on_first_sight(home: Home, store: Path, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text("")

    stopped = home.run("scan", expect=5)
    assert "not known" in stopped.err
    assert "ssh-keyscan" in stopped.err
    assert (tmp_path / "known_hosts").read_text() == ""


def test_a_key_with_a_passphrase_is_refused_with_words_instead_of_a_prompt(
    home: Home, ssh_server: SshServer, store: Path, tmp_path: Path
) -> None:
    ssh_server.credentials(tmp_path, "locked", name="reader")
    home.settings["SSH_AUTH_SOCK"] = ""

    stopped = home.run("scan", expect=None, timeout=30)
    assert stopped.code in (4, 5)
    assert "passphrase" in stopped.err
    assert "ssh-agent" in stopped.err
