"""Who may ask the gate: a secret of one's own, never a sample, never in an error."""

from pathlib import Path

import pytest
from tests.support.gates import SECRET

from fediwarden.errors import Misconfigured
from fediwarden.gate import secrets

SAMPLES = [
    "changeme",
    "IPADDR",
    "secret",
    "0" * 40,
    "your-secret-goes-here-please",
    "example-Kq3vX9-7Zt-Wm4pR8xx",
    "with a space Kq3vX9-7Zt-Wm4p",
]


def test_a_secret_is_added_read_and_fits_and_others_do_not(tmp_path: Path) -> None:
    file = tmp_path / "gate.secrets"
    secrets.add(file)
    secrets.add(file)
    first, second = file.read_text().split()

    known = secrets.read(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert known.first == first
    assert known.fit(first)
    assert known.fit(second)
    for wrong in ("", first[:-1], first + "x", first.swapcase(), "\udcff", "é"):
        assert not known.fit(wrong)
    assert first not in repr(known)


@pytest.mark.parametrize("sample", SAMPLES)
def test_samples_and_short_secrets_are_refused_and_not_repeated(tmp_path: Path, sample: str) -> None:
    file = tmp_path / "gate.secrets"
    file.write_text(f"# mine\n{SECRET}\n{sample}\n")
    file.chmod(0o600)

    with pytest.raises(Misconfigured, match="line 3") as caught:
        secrets.read(file)
    assert sample not in str(caught.value).replace(str(tmp_path), "").replace("a secret that", "").replace(file.name, "")
    assert "--new-secret" in caught.value.hint


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "gate.secrets"
    file.write_text(SECRET)
    file.chmod(mode)

    with pytest.raises(Misconfigured, match="others"):
        secrets.read(file)


@pytest.mark.parametrize("content", [None, b"", b"# only a comment\n", b"\xff\xfe"])
def test_no_secret_is_a_clear_answer(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "gate.secrets"
    if content is not None:
        file.write_bytes(content)
        file.chmod(0o600)

    with pytest.raises(Misconfigured) as caught:
        secrets.read(file)
    assert "--new-secret" in caught.value.hint


def test_a_new_secret_joins_no_line_that_was_written_without_an_end(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text("Kq3vX9-stand-in-for-tests-7Zt")  # as `printf` leaves it
    file.chmod(0o600)
    secrets.add(file)

    assert secrets.read(file).fit("Kq3vX9-stand-in-for-tests-7Zt")
    assert len(file.read_text().splitlines()) == 2


def test_an_empty_file_takes_a_new_secret(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_text("# of the gate\n")
    file.chmod(0o600)
    secrets.add(file)
    secrets.read(file)
