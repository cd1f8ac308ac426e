"""The jurisdiction profiles that come with the program: data that loads, says where it comes from and promises nothing."""

from datetime import date

import pytest

from fediwarden import config
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
