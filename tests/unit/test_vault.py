"""The vault: sealed once, never in the clear, whole or not there."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import Thread

import pytest
from tests.support.disks import as_stranger, largest_file, small_disk

from fediwarden import vault as vault_module
from fediwarden.errors import BadEvidence, CannotWrite, Misconfigured
from fediwarden.model import Sha256, StoreName
from fediwarden.vault import (
    Identity,
    Sealed,
    Vault,
    identities_here,
    make_identities,
    read_recipients,
    write_recipients,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
NOISE = b"".join(sha256(bytes([n])).digest() for n in range(256))
DIGEST = Sha256(sha256(NOISE).hexdigest())
BECAUSE = {"rule": "stand-in", "because": "a test"}


@pytest.fixture(name="keys")
def _keys(tmp_path: Path) -> Sequence[Identity]:
    return make_identities(tmp_path / "elsewhere")


@pytest.fixture(name="vault")
def _vault(tmp_path: Path, keys: Sequence[Identity]) -> Vault:
    return Vault(tmp_path / "vault", [key.public for key in keys])


def seal(vault: Vault, key: str = "a.jpg", data: bytes = NOISE) -> Sealed:
    return vault.seal(data, Sha256(sha256(data).hexdigest()), store=StoreName("media"), key=key, at=NOW, because=BECAUSE)


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    }


def test_what_was_sealed_comes_back_byte_for_byte_with_either_key(vault: Vault, keys: Sequence[Identity]) -> None:
    seal(vault)

    assert vault.open(DIGEST, [keys[0].path]) == NOISE
    assert vault.open(DIGEST, [keys[1].path]) == NOISE


def test_an_empty_file_can_be_sealed(vault: Vault, keys: Sequence[Identity]) -> None:
    sealed = seal(vault, data=b"")

    assert vault.open(sealed.manifest.sha256, [keys[0].path]) == b""


def test_no_file_anywhere_holds_the_plaintext(vault: Vault, tmp_path: Path) -> None:
    seal(vault)

    pieces = [NOISE[start : start + 32] for start in range(0, len(NOISE), 512)]
    for content in everything(tmp_path).values():
        assert not any(piece in content for piece in pieces)


def test_sealing_holds_no_private_key(vault: Vault, tmp_path: Path) -> None:
    seal(vault)

    assert identities_here(tmp_path / "vault") == []


def test_only_the_owner_may_read_the_vault(vault: Vault, tmp_path: Path) -> None:
    seal(vault)

    for path in (tmp_path / "vault").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert (tmp_path / "vault").stat().st_mode & 0o777 == 0o700


def test_one_copy_is_kept_of_the_same_bytes_and_one_manifest_of_each_object(vault: Vault, tmp_path: Path) -> None:
    first = seal(vault, "a.jpg")
    second = seal(vault, "b/../\n\udcff.jpg")

    assert first.path == second.path
    assert len(list((tmp_path / "vault").rglob("*.age"))) == 1
    assert sorted(manifest.key for manifest in vault.sealed()) == ["a.jpg", "b/../\n\udcff.jpg"]


def test_sealing_twice_changes_nothing(vault: Vault, tmp_path: Path) -> None:
    first = seal(vault)
    before = everything(tmp_path / "vault")

    assert seal(vault) == first
    assert everything(tmp_path / "vault") == before


def test_the_manifest_tells_what_was_sealed_for_whom_and_why(vault: Vault, keys: Sequence[Identity]) -> None:
    sealed = seal(vault)

    read = json.loads(sealed.manifest_path.read_text())
    assert read["sha256"] == DIGEST
    assert read["size"] == len(NOISE)
    assert read["ciphertext_sha256"] == sha256(sealed.path.read_bytes()).hexdigest()
    assert (read["store"], read["key"]) == ("media", "a.jpg")
    assert read["recipients"] == [key.public for key in keys]
    assert read["because"] == BECAUSE
    assert list(vault.sealed()) == [sealed.manifest]


def test_bytes_are_not_sealed_under_the_hash_of_others(vault: Vault, tmp_path: Path) -> None:
    with pytest.raises(BadEvidence):
        vault.seal(b"other", DIGEST, store=StoreName("media"), key="a", at=NOW, because={})

    assert not (tmp_path / "vault").exists()


@pytest.mark.parametrize("publics", [[], 1, "twice"])
def test_fewer_than_two_different_keys_are_refused(publics: object, keys: Sequence[Identity], tmp_path: Path) -> None:
    given = {0: [], 1: [keys[0].public], 2: [keys[0].public] * 2}[0 if publics == [] else 1 if publics == 1 else 2]

    with pytest.raises(Misconfigured, match="at least 2"):
        Vault(tmp_path / "vault", given)


def test_a_private_key_among_the_public_ones_is_refused_and_not_repeated(keys: Sequence[Identity], tmp_path: Path) -> None:
    secret = keys[0].path.read_text().splitlines()[-1]

    with pytest.raises(Misconfigured) as caught:
        Vault(tmp_path / "vault", [secret, keys[1].public])
    assert secret not in str(caught.value)


def test_a_text_that_is_no_key_is_refused(keys: Sequence[Identity], tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="not a public key"):
        Vault(tmp_path / "vault", ["age1nonsense", keys[1].public])


def test_a_key_of_somebody_else_opens_nothing(vault: Vault, tmp_path: Path) -> None:
    seal(vault)
    other = make_identities(tmp_path / "other", 1)

    with pytest.raises(Misconfigured, match="none of the given keys"):
        vault.open(DIGEST, [other[0].path])


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"AGE-SECRET-KEY-1NONSENSE\n", b"\xff\xfe"])
def test_a_key_file_that_holds_no_key_is_a_matter_of_configuration(vault: Vault, tmp_path: Path, content: bytes | None) -> None:
    seal(vault)
    file = tmp_path / "key.txt"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(Misconfigured):
        vault.open(DIGEST, [file])


@pytest.mark.parametrize("place", [0, 100, -1])
def test_tampering_is_seen_by_check_and_by_open_and_by_the_next_seal(vault: Vault, keys: Sequence[Identity], place: int) -> None:
    sealed = seal(vault)
    assert vault.check(DIGEST)
    content = bytearray(sealed.path.read_bytes())
    content[place] ^= 1
    sealed.path.write_bytes(content)

    assert not vault.check(DIGEST)
    with pytest.raises(BadEvidence):
        vault.open(DIGEST, [keys[0].path])
    with pytest.raises(BadEvidence):
        seal(vault, "b.jpg")


def test_another_sealed_file_in_the_place_of_one_is_seen(vault: Vault, keys: Sequence[Identity]) -> None:
    sealed = seal(vault)
    other = seal(vault, "b", b"other bytes")
    sealed.path.write_bytes(other.path.read_bytes())
    sealed.manifest_path.unlink()

    with pytest.raises(BadEvidence, match="other bytes"):
        vault.open(DIGEST, [keys[0].path])


def test_a_missing_copy_is_seen(vault: Vault, keys: Sequence[Identity]) -> None:
    assert not vault.check(DIGEST)
    with pytest.raises(BadEvidence, match="nothing is sealed"):
        vault.open(DIGEST, [keys[0].path])

    seal(vault).path.unlink()
    assert not vault.check(DIGEST)
    with pytest.raises(BadEvidence, match="missing or damaged"):
        seal(vault)


def test_a_manifest_that_cannot_be_read_is_named(vault: Vault) -> None:
    sealed = seal(vault)
    sealed.manifest_path.write_text("{}")

    with pytest.raises(BadEvidence, match="manifest"):
        list(vault.sealed())


def test_a_damaged_copy_that_was_moved_away_can_be_sealed_anew(vault: Vault, keys: Sequence[Identity]) -> None:
    sealed = seal(vault)
    sealed.path.unlink()
    sealed.manifest_path.unlink()

    seal(vault)
    assert vault.open(DIGEST, [keys[0].path]) == NOISE


class PowerCut(BaseException):
    """Nothing in the program may answer this, as nothing answers a kill."""


@pytest.mark.parametrize("step", ["_stage", "_publish", "_sync_folder"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("time", [1, 2, 3])
def test_a_crash_at_any_step_leaves_nothing_half_after_the_next_seal(
    vault: Vault, keys: Sequence[Identity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, moment: str, time: int
) -> None:
    real = getattr(vault_module, step)
    calls = 0

    def cut(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == time and moment == "before":
            raise PowerCut
        real(*arguments)
        if calls == time:
            raise PowerCut

    monkeypatch.setattr(vault_module, step, cut)
    try:
        seal(vault)
    except PowerCut:
        pass
    else:
        assert step in ("_stage", "_publish")  # only two files are made
        assert time == 3
    monkeypatch.undo()

    for path in (tmp_path / "vault").rglob("*.json"):
        assert (
            sha256(path.with_name(f"{DIGEST}.age").read_bytes()).hexdigest() == json.loads(path.read_text())["ciphertext_sha256"]
        )
    seal(vault)
    names = sorted(everything(tmp_path / "vault"))
    assert len(names) == 2
    assert vault.check(DIGEST)
    assert vault.open(DIGEST, [keys[0].path]) == NOISE


def test_half_a_file_left_by_a_crash_is_taken_away(vault: Vault, tmp_path: Path) -> None:
    folder = tmp_path / "vault" / DIGEST[:2]
    folder.mkdir(parents=True, mode=0o700)
    (folder / f"{DIGEST}.age.unfinished").write_bytes(b"half")
    (folder / f"{DIGEST}.0123456789abcdef.json.unfinished").write_bytes(b'{"sha2')

    seal(vault)

    assert not list(folder.glob("*unfinished*"))
    assert vault.check(DIGEST)


def test_a_sealed_copy_without_its_manifest_is_kept_aside(vault: Vault) -> None:
    sealed = seal(vault)
    before = sealed.path.read_bytes()
    sealed.manifest_path.unlink()

    seal(vault)

    assert vault.check(DIGEST)
    assert sealed.path.with_name(f"{DIGEST}.age.unclaimed-1").read_bytes() == before


def test_a_full_disk_is_one_clear_line_and_leaves_nothing_half(vault: Vault, tmp_path: Path) -> None:
    with largest_file(2000), pytest.raises(CannotWrite) as caught:
        seal(vault)

    assert "\n" not in str(caught.value)
    assert everything(tmp_path / "vault") == {}
    assert seal(vault).path.exists()


def test_a_disk_without_space_is_one_clear_line_and_leaves_nothing_half(keys: Sequence[Identity], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "128k") as mounted:
        if not mounted:
            pytest.skip("this user may not mount; the test with a limit on files covers the rest")
        vault = Vault(tmp_path / "disk" / "vault", [key.public for key in keys])
        big = NOISE * 100
        with pytest.raises(CannotWrite, match="No space left") as caught:
            seal(vault, data=big)

        assert "free some space" in caught.value.hint
        assert everything(tmp_path / "disk") == {}


def test_a_folder_that_may_not_be_written_is_one_clear_line(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir(mode=0o555)
    seal(Vault(tmp_path / "warm", [str(key) for key in _publics(vault)]))  # loads what is loaded at first use

    with as_stranger(), pytest.raises(CannotWrite):
        seal(vault)


def _publics(vault: Vault) -> Sequence[str]:
    return vault._recipients


def test_many_threads_may_seal_the_same_bytes(vault: Vault, tmp_path: Path, keys: Sequence[Identity]) -> None:
    threads = [Thread(target=seal, args=(vault, f"{n}.jpg")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(list(vault.sealed())) == 8
    assert len(list((tmp_path / "vault").rglob("*.age*"))) == 1
    assert vault.open(DIGEST, [keys[0].path]) == NOISE


def test_a_hash_is_never_a_path(vault: Vault) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        vault.check(Sha256("../../etc/passwd"))


def test_keys_are_files_for_their_owner_only_and_never_overwritten(tmp_path: Path) -> None:
    made = make_identities(tmp_path / "keys")
    before = everything(tmp_path)

    assert len({identity.public for identity in made}) == 2
    assert all(identity.path.stat().st_mode & 0o777 == 0o600 for identity in made)
    with pytest.raises(Misconfigured, match="there already"):
        make_identities(tmp_path / "keys")
    assert everything(tmp_path) == before


def test_no_key_is_left_when_the_disk_is_full(tmp_path: Path) -> None:
    with largest_file(10), pytest.raises(CannotWrite):
        make_identities(tmp_path / "keys")

    assert everything(tmp_path) == {}


def test_public_keys_are_written_once_and_read_back(tmp_path: Path, keys: Sequence[Identity]) -> None:
    file = tmp_path / "recipients.txt"
    publics = [key.public for key in keys]

    write_recipients(file, publics)
    write_recipients(file, publics)

    assert read_recipients(file) == publics
    with pytest.raises(Misconfigured, match="other keys"):
        write_recipients(file, publics[:1])
    with pytest.raises(Misconfigured):
        read_recipients(tmp_path / "nowhere")


def test_private_keys_that_lie_on_this_host_are_found(tmp_path: Path, keys: Sequence[Identity]) -> None:
    (tmp_path / "dangling").symlink_to("/nowhere")

    assert identities_here(tmp_path) == [key.path for key in keys]
