"""What a store over SSH owes beyond the suite: whom it trusts, what it logs in with, links, odd names, lost connections."""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support.servers import SshServer, running_ssh

from fediwarden.errors import Gone, Misconfigured, Refused, Unreached
from fediwarden.model import ObjectRef, Sha256
from fediwarden.stores.interface import Keeper, Reader
from fediwarden.stores.open import open_keeper, open_reader

LIMIT = 1 << 20
NOISE = bytes(range(256)) * 400


def sha(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


class Host:
    """A folder on the SSH host, and stores on it that are closed at the end."""

    def __init__(self, server: SshServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.root = folder / "media"
        self.root.mkdir()
        self._made: list[Reader] = []

    def reader(self, environment: dict[str, str] | None = None, **more: object) -> Reader:
        self._made.append(open_reader(self.server.settings(self.folder, self.root, **more), environment=environment or {}))
        return self._made[-1]

    def keeper(self, **more: object) -> Keeper:
        made = open_keeper(self.server.settings(self.folder, self.root, **more), environment={})
        self._made.append(made)
        return made

    def close(self) -> None:
        for store in self._made:
            store.close()


@pytest.fixture
def host(ssh_server: SshServer, tmp_path: Path) -> Generator[Host]:
    made = Host(ssh_server, tmp_path)
    (made.root / "a.jpg").write_bytes(NOISE)
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_every_kind_of_key_logs_in(host: Host, kind: str) -> None:
    reader = host.reader(credentials=host.server.credentials(host.folder, kind))

    assert reader.fetch(reader.stat("a.jpg"), LIMIT).data == NOISE


def test_a_key_with_a_passphrase_is_not_asked_about(host: Host) -> None:
    reader = host.reader(credentials=host.server.credentials(host.folder, "locked"))

    with pytest.raises(Misconfigured, match="passphrase") as caught:
        reader.stat("a.jpg")

    assert "ssh-agent" in caught.value.hint


@pytest.mark.parametrize("named", [True, False])
def test_the_agent_logs_in(host: Host, named: bool) -> None:
    agent, add = shutil.which("ssh-agent"), shutil.which("ssh-add")
    assert agent
    assert add
    place = host.folder / "agent"
    process = subprocess.Popen([agent, "-D", "-a", place], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 5
        while not place.exists() and time.monotonic() < end:
            time.sleep(0.02)
        ask = host.folder / "ask"
        ask.write_text("#!/bin/sh\necho secret\n")
        ask.chmod(0o700)
        subprocess.run(
            [add, host.server.keys["locked"]],
            env={
                "SSH_AUTH_SOCK": str(place),
                "SSH_ASKPASS": str(ask),
                "SSH_ASKPASS_REQUIRE": "force",
                "PATH": os.environ["PATH"],
            },
            check=True,
            capture_output=True,
        )
        keys = host.server.credentials(host.folder, "locked") if named else None
        reader = host.reader({"SSH_AUTH_SOCK": str(place), "HOME": str(host.folder)}, credentials=keys)

        assert reader.fetch(reader.stat("a.jpg"), LIMIT).data == NOISE
    finally:
        process.terminate()
        process.wait(5)


def test_without_any_key_the_store_is_misconfigured(host: Host) -> None:
    reader = host.reader({"HOME": str(host.folder)}, credentials=None)

    with pytest.raises(Misconfigured):
        reader.stat("a.jpg")


def test_a_host_that_is_not_known_is_not_talked_to(host: Host) -> None:
    empty = host.folder / "known"
    for text in ("", "other.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n"):
        empty.write_text(text)
        with pytest.raises(Refused, match="not known") as caught:
            host.reader(known_hosts=empty).stat("a.jpg")
        assert "ssh-keyscan" in caught.value.hint
    with pytest.raises(Refused):
        host.reader(known_hosts=host.folder / "missing").stat("a.jpg")


def test_a_changed_host_key_stops_everything(host: Host) -> None:
    changed = host.folder / "known"
    other = host.server.keys["ed25519"].with_name("user_ed25519.pub").read_text()
    changed.write_text(f"[127.0.0.1]:{host.server.port} {other}")
    reader, keeper = host.reader(known_hosts=changed), host.keeper(known_hosts=changed)

    for ask in (
        lambda: reader.stat("a.jpg"),
        lambda: list(reader.list()),
        lambda: keeper.hide(ObjectRef(reader.name, "a.jpg", 1, ""), sha(NOISE), "x"),
    ):
        with pytest.raises(Refused, match="CHANGED"):
            ask()
    assert (host.root / "a.jpg").exists()


def test_a_stranger_is_not_let_in(host: Host) -> None:
    key = host.folder / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    login = host.folder / "stranger.toml"
    login.write_text(f'user = "{host.server.user}"\nkey = "{key}"\n')
    login.chmod(0o600)

    with pytest.raises(Refused, match="let"):
        host.reader(credentials=login).stat("a.jpg")


def test_links_are_not_followed_out_of_the_root(host: Host) -> None:
    outside = host.folder / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(NOISE)
    (host.root / "folder").symlink_to(outside)
    (host.root / "file.jpg").symlink_to(outside / "secret.jpg")
    os.mkfifo(host.root / "pipe")
    reader, keeper = host.reader(), host.keeper()

    assert [ref.key for page in reader.list() for ref in page] == ["a.jpg"]
    for key in ("folder/secret.jpg", "file.jpg", "pipe"):
        for ask in (
            lambda: reader.fetch(ObjectRef(reader.name, key, 1, ""), LIMIT),  # noqa: B023
            lambda: keeper.hide(ObjectRef(reader.name, key, 1, ""), sha(NOISE), "one"),  # noqa: B023
        ):
            with pytest.raises(Gone):
                ask()
    assert (outside / "secret.jpg").read_bytes() == NOISE


def test_a_root_that_is_itself_a_link_is_the_operators_choice(host: Host) -> None:
    link = host.folder / "link"
    link.symlink_to(host.root)
    host.root = link

    assert host.reader().stat("a.jpg").size == len(NOISE)


def test_names_that_are_not_utf8(host: Host) -> None:
    (host.root / os.fsdecode(b"caf\xe9.jpg")).write_bytes(NOISE)
    reader, keeper = host.reader(), host.keeper()
    key = os.fsdecode(b"caf\xe9.jpg")

    assert {ref.key for page in reader.list() for ref in page} == {"a.jpg", key}
    place = keeper.hide(reader.stat(key), sha(NOISE), "one")
    assert not (host.root / key).exists()
    keeper.restore(place, sha(NOISE))
    assert (host.root / key).read_bytes() == NOISE


def test_a_missing_root_is_refused_and_never_gone(host: Host) -> None:
    host.root = host.folder / "nothing"
    reader = host.reader()
    for ask in (
        lambda: list(reader.list()),
        lambda: reader.stat("a"),
        lambda: reader.fetch(ObjectRef(reader.name, "a", 1, ""), 1),
    ):
        with pytest.raises(Refused):
            ask()


def test_mode_and_time_survive_hiding_removing_and_coming_back(host: Host) -> None:
    path = host.root / "a.jpg"
    path.chmod(0o640)
    os.utime(path, (1e9, 1e9))
    keeper = host.keeper()

    keeper.restore(keeper.hide(keeper.stat("a.jpg"), sha(NOISE), "one"), sha(NOISE))
    keeper.put_back(keeper.remove(keeper.stat("a.jpg"), sha(NOISE)), NOISE)

    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_mtime == 1e9


def test_a_host_that_goes_away_is_unreached_and_found_again(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    with running_ssh(folder) as server:
        host.server = server
        reader = host.reader(tries=2, timeout_seconds=3.0)
        ref = reader.stat("a.jpg")
        port = server.port
    with pytest.raises(Unreached) as caught:
        reader.fetch(ref, LIMIT)
    assert not isinstance(caught.value, Refused)
    with running_ssh(tmp_path / "third", port), pytest.raises(Refused):  # the same port, but another host key
        reader.fetch(ref, LIMIT)
