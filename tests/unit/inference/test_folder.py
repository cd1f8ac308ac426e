"""How the folder of models changes where the file system is a poor one, or another process is at work."""

import errno
import os
from pathlib import Path

import pytest

from fediwarden.errors import CannotWrite
from fediwarden.inference import folder


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP])
def test_a_file_is_copied_where_it_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "a").write_bytes(b"numbers")
    monkeypatch.setattr(os, "link", refuse)

    folder.keep(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "b").read_bytes() == b"numbers"
    assert not (tmp_path / "a").samefile(tmp_path / "b")


def test_a_file_is_linked_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"numbers")

    folder.keep(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "a").samefile(tmp_path / "b")


def test_a_held_folder_that_its_holder_removed_is_made_again_for_the_next(tmp_path: Path) -> None:
    place = tmp_path / "held"

    with folder.held(place):
        place.rmdir()
        with folder.held(place):
            assert place.is_dir()


def test_a_copy_is_weighed_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"numbers")

    assert folder.copy(tmp_path / "a", tmp_path / "b") == folder.digest_of(tmp_path / "b")
    with pytest.raises(FileExistsError):
        folder.copy(tmp_path / "a", tmp_path / "b")


def test_a_workspace_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CannotWrite, match="models cannot be written"), folder.workspace(tmp_path / "file" / "models", "x"):
        pass
