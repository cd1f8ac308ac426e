"""What an operator writes to name a pict-rs and its keys, and what the program makes of a store whose files are pict-rs'."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fake_pictrs import KEY

from fediwarden.app import App
from fediwarden.errors import Misconfigured
from fediwarden.model import StoreName
from fediwarden.stores.credentials import pictrs_keys
from fediwarden.stores.open import open_keeper, open_reader
from fediwarden.stores.pictrs import PictrsKeeper, PictrsReader
from fediwarden.stores.unaccounted import PlatformFirst, Remainder
from fediwarden.stores.url import StoreSettings, TargetKind, parse_target, pictrs_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("pictrs://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("pictrs://localhost", "http://localhost:8080"),
        ("pictrs+http://[::1]:81/", "http://[::1]:81"),
        ("pictrs+https://pics.example", "https://pics.example:443"),
        ("PICTRS+HTTPS://pics.example:8443/behind/", "https://pics.example:8443/behind"),
    ],
)
def test_a_pictrs_is_named_by_its_address(text: str, address: str) -> None:
    target = parse_target(text)

    assert (target.kind, target.address) == (TargetKind.PICTRS, address)
    assert pictrs_address(StoreSettings(StoreName("p"), text), target) == address


@pytest.mark.parametrize(
    "text", ["pictrs://", "pictrs://host:port", "pictrs://user@host", "pictrs://u:s3cret@host:1", "pictrs://host/?api_key=s3cret"]
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        parse_target(text)

    assert "s3cret" not in f"{refused.value} {refused.value.hint}"


def test_a_key_goes_over_no_open_network_unless_somebody_says_so(tmp_path: Path) -> None:
    settings = StoreSettings(StoreName("p"), "pictrs://pictrs:8080", credentials=keys(tmp_path))

    with pytest.raises(Misconfigured, match="not encrypted"):
        open_reader(settings, environment={})
    assert isinstance(open_reader(replace(settings, allow_http=True), environment={}), PictrsReader)


def keys(folder: Path, text: str = f'api_key = "{KEY}"\n', name: str = "keys.toml") -> Path:
    file = folder / name
    file.write_text(text)
    file.chmod(0o600)
    return file


def test_keys_are_in_no_representation(tmp_path: Path) -> None:
    told = pictrs_keys(keys(tmp_path, f'api_key = "{KEY}"\ndatabase = "postgresql://u:s3cret@h/d"\n'), "p")

    assert (told.api_key, told.database) == (KEY, "postgresql://u:s3cret@h/d")
    assert KEY not in repr(told)
    assert "s3cret" not in repr(told)


def test_a_reader_needs_a_key_or_the_database_and_a_keeper_the_key(tmp_path: Path) -> None:
    settings = StoreSettings(StoreName("p"), "pictrs://127.0.0.1:1")
    with pytest.raises(Misconfigured, match="no credentials"):
        open_reader(settings, environment={})
    with pytest.raises(Misconfigured) as refused:
        open_keeper(settings, environment={})
    assert "keeper_credentials" in refused.value.hint
    with pytest.raises(Misconfigured, match="empty"):
        open_reader(replace(settings, credentials=keys(tmp_path, "")), environment={})
    with pytest.raises(Misconfigured, match="api_key is missing"):
        open_keeper(replace(settings, keeper_credentials=keys(tmp_path, 'database = "x"')), environment={})
    one = keys(tmp_path)
    with pytest.raises(Misconfigured, match="are one file"):
        open_reader(replace(settings, credentials=one, keeper_credentials=one), environment={})


@pytest.fixture
def app_with(tmp_path: Path) -> Callable[[str], App]:
    def made(more: str) -> App:
        keys(tmp_path, name="read.toml")
        keys(tmp_path, name="keep.toml")
        for folder in ("media", "other"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "fediwarden.toml").write_text(
            '[stores.other]\nurl = "other"\n'
            '[stores.media]\nurl = "media"\npictrs = "pics"\n'
            '[stores.pics]\nurl = "pictrs://127.0.0.1:9"\ncredentials = "read.toml"\nkeeper_credentials = "keep.toml"\n' + more
        )
        return App({"FEDIWARDEN_HOME": str(tmp_path)})

    return made


def test_pictrs_is_listed_before_its_files_and_comes_along_when_only_they_are_named(app_with: Callable[[str], App]) -> None:
    app = app_with("")

    with app.readers([]) as readers:
        assert [reader.name for reader in readers] == ["pics", "other", "media"]
        assert isinstance(readers[0], PictrsReader)
        assert isinstance(readers[2], Remainder)
    with app.readers(["media"]) as readers:
        assert [reader.name for reader in readers] == ["pics", "media"]
    with app.readers(["other"]) as readers:
        assert [reader.name for reader in readers] == ["other"]


def test_a_keeper_of_pictrs_says_what_it_does(app_with: Callable[[str], App]) -> None:
    app = app_with("")

    with app.keepers() as hold:
        pics, media, other = (hold(StoreName(name)) for name in ("pics", "media", "other"))
        assert isinstance(pics.keeper, PictrsKeeper)
        assert isinstance(media.keeper, PlatformFirst)
        assert [(one.removes, one.platform) for one in (pics, media, other)] == [(True, True), (False, True), (False, False)]
    assert app.pictrs(StoreName("pics")).requests == 0
    with pytest.raises(Misconfigured, match="is no pict-rs"):
        app.pictrs(StoreName("other"))


def test_files_of_a_pictrs_that_is_not_configured_are_a_mistake(app_with: Callable[[str], App]) -> None:
    app = app_with('[stores.more]\nurl = "other"\npictrs = "other"\n')

    with pytest.raises(Misconfigured, match=r"stores\.more\.pictrs"), app.readers(["more"]):
        pass
