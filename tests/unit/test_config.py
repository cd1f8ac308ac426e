"""The configuration is checked whole and once: every key named, the environment over the file, nothing silently ignored."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from fediwarden import config
from fediwarden.config import Configuration, Settings
from fediwarden.errors import Misconfigured


def load(folder: Path, text: str | bytes | None = None, environment: Mapping[str, str] | None = None) -> Configuration:
    """The configuration of an installation whose file holds `text`."""
    if text is not None:
        (folder / config.CONFIG_NAME).write_bytes(text.encode() if isinstance(text, str) else text)
    return config.load({"FEDIWARDEN_HOME": str(folder), **(environment or {})})


def test_without_a_file_the_defaults_are_in_force(tmp_path: Path) -> None:
    settings = load(tmp_path).settings

    assert settings == Settings()
    assert settings.profile == ""
    assert settings.acting.allowance == 50
    assert settings.media.cage == "full"


@pytest.mark.parametrize("name", config.profile_names())
def test_the_file_that_init_writes_parses_to_the_defaults_and_the_chosen_profile(tmp_path: Path, name: str) -> None:
    settings = load(tmp_path, config.template(name)).settings

    assert settings == Settings(profile=name)


def test_the_template_names_every_setting_with_its_meaning_and_its_store_block_works(tmp_path: Path) -> None:
    text = config.template("other")
    for name, meaning in config.every_setting():
        assert f"{name.rpartition('.')[2]} = " in text or name == "stores"
        assert meaning
        assert meaning in text
    start = text.index("# [stores.media]")
    block = "\n".join(line.removeprefix("# ") for line in text[start:].splitlines())
    stores = load(tmp_path, text[:start] + block).settings.stores
    assert stores["media"].url == "/srv/pictrs/files"
    assert stores["media"].hide == "move"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[acting]\nallowence = 5", "acting.allowence"),
        ("colour = 1", "colour"),
        ("[stores.media]\nurl = '/x'\nprefx = 'y'", "stores.media.prefx"),
        ("[stores.media]\nendpoint = 'x'", "stores.media.url"),
        ("[acting]\nallowance = -1", "acting.allowance"),
        ("[acting]\nallowance = '5'", "acting.allowance"),
        ("[acting]\nallowance = true", "acting.allowance"),
        ("[acting]\nallowance = 2.5", "acting.allowance"),
        ("[media]\ncage = 'none'", "media.cage"),
        ("[media]\nframes_per_second = nan", "media.frames_per_second"),
        ("[stores.media]\nurl = '/x'\nhide = 'delete'", "stores.media.hide"),
        ("[stores.'../x']\nurl = '/x'", "not a store's name"),
        ("[stores.'A']\nurl = '/x'", "not a store's name"),
        ("stores = 5", "stores"),
        ("profile = 'atlantis'", "atlantis"),
        ("[acting\nallowance = 5", "line 1"),
        ("a = 1\n\nb = = 2", "line 3"),
        (b"profile = '\xff'", "utf-8"),
        ("[acting]\nallowance = " + "9" * 5000, "fediwarden.toml"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_its_place(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        load(tmp_path, text)

    assert says in str(refused.value)
    assert refused.value.hint


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / config.CONFIG_NAME).mkdir()

    with pytest.raises(Misconfigured, match=r"fediwarden\.toml") as refused:
        load(tmp_path)
    assert refused.value.hint


def test_the_environment_stands_over_the_file_with_types_of_its_own(tmp_path: Path) -> None:
    text = "[acting]\nallowance = 7\ndrill_allowance = 3\n[stores.media]\nurl = '/a'\n"
    settings = load(
        tmp_path,
        text,
        {
            "FEDIWARDEN_ACTING__ALLOWANCE": "20",
            "FEDIWARDEN_MEDIA__FRAMES_PER_SECOND": "0.5",
            "FEDIWARDEN_STORES__MEDIA__PATH_STYLE": "false",
            "FEDIWARDEN_STORES__MEDIA__REGION": "eu-central-1",
            "FEDIWARDEN_STORES__OTHER__URL": "s3://bucket/prefix",
            "FEDIWARDEN_PROFILE": "eu-de",
            "FEDIWARDEN_LOG__FILE": "",
        },
    ).settings

    assert (settings.acting.allowance, settings.acting.drill_allowance) == (20, 3)
    assert settings.media.frames_per_second == 0.5
    assert settings.stores["media"].path_style is False
    assert (settings.stores["media"].url, settings.stores["media"].region) == ("/a", "eu-central-1")
    assert settings.stores["other"].url == "s3://bucket/prefix"
    assert (settings.profile, settings.log.file) == ("eu-de", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FEDIWARDEN_ACTING__ALLOWANCE", "many"),
        ("FEDIWARDEN_ACTING__ALLOWANCE", "-1"),
        ("FEDIWARDEN_ACTING__ALLOWANCE", "9" * 5000),
        ("FEDIWARDEN_ACTING__ALLOWENCE", "5"),
        ("FEDIWARDEN_ACTNG__ALLOWANCE", "5"),
        ("FEDIWARDEN_ACTING__ALLOWANCE__MORE", "5"),
        ("FEDIWARDEN_ACTING", "5"),
    ],
)
def test_what_is_wrong_or_misspelt_in_the_environment_is_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(Misconfigured):
        load(tmp_path, None, {name: value})


def test_variables_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="contradicts"):
        load(tmp_path, None, {"FEDIWARDEN_ACTING": "5", "FEDIWARDEN_ACTING__ALLOWANCE": "5"})


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    assert load(tmp_path, None, {"FEDIWARDEN_COMPLETE": "x", "_FEDIWARDEN_COMPLETE": "y", "HOME": "/"}).settings == Settings()


def test_the_home_is_the_one_named_else_the_user_s_data_folder(tmp_path: Path) -> None:
    assert config.home({"FEDIWARDEN_HOME": str(tmp_path)}) == tmp_path
    assert config.home({"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "fediwarden"
    assert config.home({}) == Path("~/.local/share/fediwarden").expanduser()
    assert config.home({"FEDIWARDEN_HOME": "relative"}).is_absolute()


def test_relative_paths_are_relative_to_the_home_and_the_drill_s_vault_is_another_folder(tmp_path: Path) -> None:
    configuration = load(tmp_path, "[vault]\nfolder = 'sealed'\n")

    assert configuration.path("x/y") == tmp_path / "x/y"
    assert configuration.path("/x") == Path("/x")
    assert configuration.drill_vault == tmp_path / "sealed-drill"
    assert configuration.drill_vault != configuration.path(configuration.settings.vault.folder)


def test_settings_cannot_be_changed_after_they_were_checked(tmp_path: Path) -> None:
    settings = load(tmp_path).settings

    with pytest.raises(ValueError, match="frozen"):
        settings.acting.allowance = 10**6  # type: ignore[misc]


def test_every_country_of_the_union_falls_back_to_the_one_profile_for_it_and_others_do_not() -> None:
    assert config.profile("eu-fr").keep == config.profile("eu-xx").keep
    assert config.profile("eu-fr").name == "eu-fr"
    with pytest.raises(Misconfigured, match="not known"):
        config.profile("us-ca")


def test_the_default_policy_that_comes_with_the_program_is_toml() -> None:
    assert tomllib.loads(config.default_policy())["version"] == 1
