"""The rows of the earlier tools' defects that lie in acting behind pict-rs' back, each named after its row."""

import hashlib
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.fake_pictrs import FakePictrs, FilesBelow, running_pictrs
from tests.support.pictrs_stores import keeper_of, settings_of

from fediwarden.errors import Lost
from fediwarden.model import Sha256, StoreName
from fediwarden.stores.files import FolderKeeper
from fediwarden.stores.retry import Patience
from fediwarden.stores.unaccounted import PlatformFirst

NOISE = bytes(range(256)) * 40
SHA256 = Sha256(hashlib.sha256(NOISE).hexdigest())


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_f14_hiding_an_object_of_pictrs_leaves_no_row_of_it_and_the_same_bytes_can_be_uploaded_again(
    tmp_path: Path, version: str
) -> None:
    """Behind its back, pict-rs would keep alias and hash, take the next upload for a duplicate and drop its file."""
    root = tmp_path / "files"
    root.mkdir()
    with running_pictrs(FakePictrs(version=version, objects=FilesBelow(root))) as fake:
        alias = fake.put(NOISE, alias="shared.jpeg")
        fake.put(NOISE, alias="twin.jpeg")
        thumbnail = fake.variant(alias)
        row = fake.row(alias)
        assert row is not None
        folder = FolderKeeper(StoreName("media"), root, settle_seconds=0)
        pictrs = keeper_of(settings_of(fake, tmp_path))
        first = PlatformFirst(folder, pictrs, Patience(tries=1), holding=lambda sha256: ["shared.jpeg"])
        with closing(first):
            place = first.hide(first.stat(row.identifier), SHA256, "spot")

            assert (fake.row("shared.jpeg"), fake.row("twin.jpeg")) == (None, None)
            fake.tick()
            assert thumbnail not in fake.objects  # aliases and variants went with it: one item
            assert fake.upload(NOISE, alias="again.jpeg").status == 201
            fake.tick()
            assert fake.data("again.jpeg") == NOISE
            first.put_back(place, NOISE)
            assert fake.data("shared.jpeg") == NOISE


def test_f14_what_the_earlier_tool_did_breaks_pictrs(tmp_path: Path) -> None:
    """The fake keeps that trap, so the test above can fail."""
    root = tmp_path / "files"
    root.mkdir()
    with running_pictrs(FakePictrs(objects=FilesBelow(root))) as fake:
        row = fake.row(fake.put(NOISE, alias="shared.jpeg"))
        assert row is not None
        (root / row.identifier).unlink()

        assert fake.upload(NOISE, alias="again.jpeg").status == 201
        fake.tick()

        assert fake.data("again.jpeg") is None
        with closing(keeper_of(settings_of(fake, tmp_path))) as keeper, pytest.raises(Lost):
            keeper.fetch(keeper.stat(row.hash.hex()), 1 << 20)
