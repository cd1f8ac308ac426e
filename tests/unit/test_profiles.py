"""The jurisdiction profiles that come with the program: data that loads, says where it comes from and promises nothing."""

from contextlib import nullcontext
from datetime import date
from importlib.resources import files
from pathlib import Path

import pytest

from fediwarden import config
from fediwarden.app import App
from fediwarden.errors import Misconfigured


def test_every_jurisdiction_that_init_offers_has_a_profile() -> None:
    assert set(config.profile_names()) == {"us", "uk", "eu-xx", "ca", "au", "other"}


@pytest.mark.parametrize("name", config.profile_names())
def test_every_profile_loads_and_names_its_source_and_its_date(name: str) -> None:
    profile = config.profile(name)

    assert profile.keep in ("preserve", "metadata only")
    assert date(2025, 1, 1) < date.fromisoformat(profile.as_of)
    assert len(profile.source) > 20
    assert profile.words.endswith(".")
    assert profile.title


@pytest.mark.parametrize("name", config.profile_names())
def test_no_profile_destroys_anything_by_default_or_claims_a_lawyer_s_review(name: str) -> None:
    profile = config.profile(name)

    assert profile.retention_days == 0
    assert profile.reviewed is False


def test_the_european_profile_serves_every_member_state_and_leaves_private_messages_alone() -> None:
    german = config.profile("eu-de")

    assert german.name == "eu-de"
    assert german.source == config.profile("eu-xx").source
    assert german.scan_private_messages is False


@pytest.mark.parametrize("name", ["", "eu", "eu-germany", "EU-DE", "../us", "mars"])
def test_a_profile_that_does_not_exist_is_named_with_the_ones_that_do(name: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        config.profile(name)

    assert "uk" in refused.value.hint


def test_a_profile_of_the_operators_own_stands_over_the_shipped_one(tmp_path: Path) -> None:
    shipped = (files("fediwarden") / "data" / "profiles" / "other.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(shipped.replace('keep = "preserve"', 'keep = "metadata only"'), encoding="utf-8")
    (tmp_path / "us.toml").write_text(shipped.replace("retention_days = 0", "retention_days = 400"), encoding="utf-8")

    assert config.profile("mine", tmp_path).keep == "metadata only"
    assert config.profile("us", tmp_path).retention_days == 400
    assert config.profile("uk", tmp_path) == config.profile("uk")


def test_a_profile_that_lacks_a_key_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('title = "mine"\n', encoding="utf-8")

    with pytest.raises(Misconfigured, match=r"mine\.toml.*keep"):
        config.profile("mine", tmp_path)


def test_a_store_of_private_messages_is_scanned_only_where_the_profile_allows_it(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    written = f'profile = "NAME"\n[stores.dms]\nurl = "{tmp_path}/media"\nprivate_messages = true\n'
    for name, allowed in (("us", True), ("eu-de", False), ("", False)):
        (tmp_path / config.CONFIG_NAME).write_text(written.replace("NAME", name), encoding="utf-8")
        app = App({"FEDIWARDEN_HOME": str(tmp_path)})
        with nullcontext() if allowed else pytest.raises(Misconfigured, match="private messages"), app.readers([]) as readers:
            assert [reader.name for reader in readers] == ["dms"]
