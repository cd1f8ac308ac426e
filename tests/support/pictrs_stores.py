"""A fake pict-rs as the stores of this program see it: by its HTTP interface, or by its database too."""

from dataclasses import dataclass, field
from pathlib import Path

from tests.support.fake_pictrs import KEY, FakePictrs

from fediwarden.model import Name, ObjectRef, StoreName
from fediwarden.stores.open import open_keeper, open_reader
from fediwarden.stores.pictrs import PictrsKeeper, PictrsReader
from fediwarden.stores.url import StoreSettings


def settings_of(fake: FakePictrs, folder: Path, database: str = "", **more: object) -> StoreSettings:
    """A pict-rs store with two credentials files in `folder`. With `database` the reader has no API key."""
    reading, keeping = folder / "pictrs-read.toml", folder / "pictrs-keep.toml"
    named = f'database = "{database}"\n' if database else ""
    reading.write_text(named or f'api_key = "{KEY}"\n')
    keeping.write_text(f'api_key = "{KEY}"\n{named}')
    for file in (reading, keeping):
        file.chmod(0o600)
    settings = StoreSettings(
        StoreName("pictrs"), f"pictrs://127.0.0.1:{fake.port}", credentials=reading, keeper_credentials=keeping, tries=2
    )
    for name, value in more.items():
        object.__setattr__(settings, name, value)
    return settings


@dataclass
class Names:
    """What is on record of names, in place of the ledger."""

    told: dict[str, list[Name]] = field(default_factory=dict)
    doubt: str = ""  # why pict-rs is not believed

    def known(self, key: str) -> list[Name]:
        return self.told.get(key, [])

    def remember(self, ref: ObjectRef) -> None:
        self.told.setdefault(ref.key, []).extend(name for name in ref.names if name not in self.known(ref.key))


def reader_of(settings: StoreSettings) -> PictrsReader:
    reader = open_reader(settings, environment={})
    assert isinstance(reader, PictrsReader)
    return reader


def keeper_of(settings: StoreSettings, names: Names | None = None) -> PictrsKeeper:
    names = names or Names()
    keeper = open_keeper(settings, environment={}, known=names.known, remember=names.remember)
    assert isinstance(keeper, PictrsKeeper)
    return keeper
