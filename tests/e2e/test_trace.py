"""`trace` and `lemmy` as an administrator types them: a real PostgreSQL with Lemmy's tables, and a Lemmy that can be acted in."""

import json
from pathlib import Path

from tests.support.acting_lemmy import acting_lemmy
from tests.support.command import Home
from tests.support.fake_lemmy import ADMIN_JWT, ALIAS, running_lemmy
from tests.support.fake_pictrs import KEY, running_pictrs
from tests.support.postgres import Postgres, run_sql

UPLOADED = "aaaaaaaa-0000-4000-8000-000000000001.jpeg"
PRIVATE = ("alice@example.org", "203.0.113.7", "Mozilla")


def secret_file(home: Home, name: str, line: str) -> str:
    """A file of credentials that only its owner can read."""
    file = home.folder / name
    file.write_text(line + "\n")
    file.chmod(0o600)
    return name


def test_a_trace_by_a_role_with_the_printed_rights_needs_a_reason_and_tells_little_unless_asked(
    home: Home, postgres: Postgres
) -> None:
    url = postgres.database(Path("lemmy_019.sql"), Path("lemmy_019_data.sql"))
    run_sql(url, home.run("lemmy", "grants", "--role", postgres.role("tracer")).out)
    home.settings["FEDIWARDEN_LEMMY__URL"] = "https://lemmy.example"
    home.settings["FEDIWARDEN_LEMMY__CREDENTIALS"] = secret_file(
        home, "lemmy.toml", f"database = {json.dumps(postgres.url(url, 'tracer'))}"
    )

    refused = home.run("trace", UPLOADED, expect=4)
    short = home.run("trace", UPLOADED, "--because", "a report", "--json")
    full = home.run("trace", UPLOADED, "--because", "a report", "--full", "--tree")

    assert "--because" in refused.err
    assert refused.out == ""
    assert short.last["redacted"] is True
    assert short.last["counts"]["posts"] == 2
    assert [word for word in PRIVATE if word in short.out] == []
    assert [word for word in PRIVATE if word in full.out] == list(PRIVATE)
    assert "SECRET" not in short.out + full.out
    log = (home.folder / "fediwarden.log").read_text()
    assert [word for word in (*PRIVATE, "SECRET") if word in log] == []


def test_acting_in_lemmy_shows_its_plan_first_and_does_then_what_it_said(home: Home) -> None:
    with running_lemmy("1.0") as lemmy:
        home.settings["FEDIWARDEN_LEMMY__URL"] = lemmy.url
        token = secret_file(home, "lemmy.toml", f'jwt = "{ADMIN_JWT}"')
        home.settings["FEDIWARDEN_LEMMY__CREDENTIALS"] = home.settings["FEDIWARDEN_LEMMY__KEEPER_CREDENTIALS"] = token
        asked = ("lemmy", "act", ALIAS, "--because", "a report", "--posts", "remove", "--ban", "--resolve-reports")

        plan = home.run(*asked, "--json")
        steps = ["resolve report", "resolve report", "remove post", "remove post", "ban person"]
        assert [step["act"] for step in plan.last["plan"]] == steps
        assert plan.last["limits"] == home.run("trace", ALIAS, "--because", "a report", "--json").last["limits"]
        assert not any(post["removed"] for post in lemmy.posts.values())

        automatic = home.run(*asked, "--apply", expect=2)
        assert "nobody is at the terminal" in automatic.err
        assert not any(post["removed"] for post in lemmy.posts.values())

        done = home.run(*asked, "--apply", "--yes")
        assert "not asked: sessions with their addresses" in done.err
        assert done.out.count("done: ") == len(steps)
        assert {number for number, post in lemmy.posts.items() if post["removed"]} == {401, 403}
        assert lemmy.persons[101]["banned"] is True
        (sealed,) = home.vault().sealed()
        assert sealed.because["trace of"] == ALIAS

        destroyed = home.run("lemmy", "act", ALIAS, "--because", "a report", "--posts", "purge", "--apply", "--yes", expect=4)
        assert "nobody has sealed" in destroyed.err
        assert 401 in lemmy.posts


def test_what_lemmy_deletes_is_in_the_vault_before_it_is_asked_to(home: Home) -> None:
    with running_pictrs() as pictrs, acting_lemmy("1.0", pictrs) as lemmy:
        pictrs.put(b"a picture", alias=ALIAS)
        pictrs.put(b"a picture", alias="icon.jpeg")
        pictrs.put(b"somebody else's", alias="other.jpeg")
        lemmy.posts[403]["url"] = lemmy.address("other.jpeg")
        lemmy.site = {"icon": lemmy.address("icon.jpeg"), "sidebar": f"see ![]({lemmy.address(ALIAS)})"}
        home.settings["FEDIWARDEN_LEMMY__URL"] = lemmy.url
        token = secret_file(home, "lemmy.toml", f'jwt = "{ADMIN_JWT}"')
        home.settings["FEDIWARDEN_LEMMY__CREDENTIALS"] = home.settings["FEDIWARDEN_LEMMY__KEEPER_CREDENTIALS"] = token
        home.add_store(
            "media", url=f"pictrs://127.0.0.1:{pictrs.port}", credentials=secret_file(home, "p.toml", f'api_key = "{KEY}"')
        )
        asked = ("lemmy", "act", ALIAS, "--because", "a report", "--icons", "--texts", "--posts", "purge", "--image")

        plan = home.run(*asked, "--reason", "csam")
        assert "What pict-rs loses by it" in plan.out
        assert "it may accuse somebody who is innocent" in plan.err
        done = home.run(*asked, "--apply", "--yes", "--json")

        steps = [
            "seal picture",
            "seal picture",
            "take away site icon",
            "cut out of site sidebar",
            "delete picture",
            "purge post",
            "purge post",
        ]
        assert [(line["act"], line["outcome"]) for line in done.lines[1:]] == [(step, "done") for step in steps]
        assert home.unsealed(b"a picture")
        assert pictrs.purged()
        assert lemmy.posts == {}
        texts = [home.vault().open(sealed.sha256, home.identities[:1]) for sealed in home.vault().sealed()]
        assert home.unsealed(b"somebody else's")
        assert {sealed.key for sealed in home.vault().sealed() if sealed.store == "trace"} == {ALIAS, "other.jpeg"}
        assert any(b"hi ![](" in text and b'"uploads"' in text for text in texts)
        verified = home.run("verify", "--json")
        assert verified.last["disagree"] == 0
        assert "no record" not in verified.out


def test_a_picture_that_pict_rs_has_lost_is_not_said_to_be_in_reach(home: Home) -> None:
    with running_pictrs() as pictrs, acting_lemmy("0.19", pictrs) as lemmy:
        pictrs.put(b"a picture", alias=ALIAS)
        home.settings["FEDIWARDEN_LEMMY__URL"] = lemmy.url
        token = secret_file(home, "lemmy.toml", f'jwt = "{ADMIN_JWT}"')
        home.settings["FEDIWARDEN_LEMMY__CREDENTIALS"] = home.settings["FEDIWARDEN_LEMMY__KEEPER_CREDENTIALS"] = token
        home.add_store(
            "media", url=f"pictrs://127.0.0.1:{pictrs.port}", credentials=secret_file(home, "p.toml", f'api_key = "{KEY}"')
        )
        home.run("scan", expect=3)
        asked = ("lemmy", "act", ALIAS, "--because", "a report", "--posts", "remove", "--json")

        there = home.run(*asked)
        pictrs.forget(ALIAS)
        gone = home.run(*asked)

    assert [line.partition(":")[0] for line in there.last["in_reach"]] == ["media"]
    assert gone.last["in_reach"] == []
