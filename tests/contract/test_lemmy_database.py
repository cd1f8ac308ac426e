"""What a trace tells about a real PostgreSQL with the tables of Lemmy 0.19 and 1.0, and that its role can read no secret."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.support.postgres import Postgres, run_sql

from fediwarden.errors import Misconfigured, Refused, Unreached
from fediwarden.platforms.lemmy.database import SECRETS, Database
from fediwarden.platforms.lemmy.model import Trace, UseKind
from fediwarden.platforms.lemmy.queries import grants

ALIAS = "aaaaaaaa-0000-4000-8000-000000000001.jpeg"
PREVIEW = "aaaaaaaa-0000-4000-8000-000000000002.webp"
AVATAR = "aaaaaaaa-0000-4000-8000-000000000003.png"
ROLE = "fediwarden"
OLD = "ALTER TABLE local_image RENAME TO image_upload; DELETE FROM image_upload WHERE local_user_id IS NULL"


@pytest.fixture(scope="module")
def databases(postgres: Postgres) -> dict[str, str]:
    """A database of each version, by version; 0.19.3 is how 0.19.0 to 0.19.3 named things."""
    return {
        "0.19.3": postgres.database(Path("lemmy_019.sql"), Path("lemmy_019_data.sql"), OLD),
        "0.19": postgres.database(Path("lemmy_019.sql"), Path("lemmy_019_data.sql")),
        "1.0": postgres.database(Path("lemmy_1.sql"), Path("lemmy_1_data.sql")),
    }


@pytest.fixture(params=["0.19.3", "0.19", "1.0"])
def version(request: pytest.FixtureRequest) -> str:
    """Each version in turn."""
    return str(request.param)


@pytest.fixture
def granted(postgres: Postgres, databases: dict[str, str], version: str) -> Iterator[str]:
    """The address for a role with exactly the rights that are shipped."""
    postgres.role(ROLE)
    url = databases[version]
    run_sql(url, grants(version, ROLE, private_messages=True))
    yield postgres.url(url, ROLE)
    run_sql(url, f'DROP OWNED BY "{ROLE}"')


def traced(url: str, *aliases: str, urls: tuple[str, ...] = (), private_messages: bool = False) -> Trace:
    """A trace as `trace` takes it."""
    return Database(url, 10).trace(aliases, urls, private_messages=private_messages)


def names(trace: Trace) -> set[str]:
    """The owners' names."""
    return {person.name for person in trace.owners}


def places(trace: Trace) -> set[tuple[str, int, str]]:
    """The uses, in short."""
    return {(use.kind.value, use.id, use.field) for use in trace.uses}


def test_a_role_with_the_shipped_rights_traces_everything(granted: str, version: str) -> None:
    trace = traced(granted, ALIAS, private_messages=True)

    assert trace.limits == ()
    assert trace.version == ("1.0" if version == "1.0" else "0.19")
    assert [person.name for person in trace.uploaders] == ["alice"]
    assert {"post", "comment", "private message", "community", "report"} <= {use.kind.value for use in trace.uses}
    assert {upload.alias for upload in trace.other_uploads} == {AVATAR}
    alice = trace.uploaders[0]
    assert (alice.email, alice.local, alice.domain) == ("alice@example.org", True, "lemmy.example")
    assert alice.banned is (version == "1.0")
    assert {session.ip for session in trace.sessions if session.person == alice.id} >= {"203.0.113.7"}


def test_a_role_with_the_shipped_rights_reads_no_secret(granted: str, databases: dict[str, str], version: str) -> None:
    with psycopg.connect(granted, autocommit=True) as connection:
        for table, column in SECRETS:
            query = psycopg.sql.SQL("SELECT {} FROM {}").format(psycopg.sql.Identifier(column), psycopg.sql.Identifier(table))
            with pytest.raises(
                (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)
            ):
                connection.execute(query)
        for change in (
            "SELECT * FROM login_token",
            "DELETE FROM login_token",
            "UPDATE post SET removed = true",
            "INSERT INTO tagline (content) VALUES ('')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(change.encode())

    assert Database(granted, 10).secrets_readable() == ()
    assert "login_token.token" in Database(databases[version], 10).secrets_readable()


def test_no_secret_is_in_a_trace_even_of_a_role_that_could_read_all(databases: dict[str, str], version: str) -> None:
    trace = traced(databases[version], ALIAS, private_messages=True)

    assert "SECRET" not in str(trace.as_json())
    assert "SECRET" not in repr(trace)


def test_everything_that_shows_a_picture_is_found_in_0_19(databases: dict[str, str]) -> None:
    trace = traced(databases["0.19"], ALIAS, private_messages=True)

    assert places(trace) == {
        ("post", 401, "url"),
        ("post", 403, "body"),
        ("comment", 501, "content"),
        ("private message", 601, "content"),
        ("profile", 102, "bio"),
        ("community", 301, "icon"),
        ("site", 1, "icon"),
        ("emoji", 701, "image_url"),
        ("tagline", 801, "content"),
        ("report", 901, "original_post_url"),
        ("report", 902, "original_comment_text"),
        ("report", 903, "original_pm_text"),
    }
    assert names(trace) == {"alice", "bob", "carol", "dave"}
    assert {use.id for use in trace.uses if use.removed} == {403}
    assert {(person.name, person.banned) for person in trace.persons} == {
        ("alice", False),
        ("bob", False),  # his ban has expired
        ("carol", True),
        ("dave", False),
    }
    assert [community.address for community in trace.communities] == ["https://lemmy.example/c/pics"]
    assert trace.counts["posts"] == 2
    assert trace.counts["other uses"] == 7


def test_everything_that_shows_a_picture_is_found_in_1_0(databases: dict[str, str]) -> None:
    trace = traced(databases["1.0"], ALIAS, private_messages=True)

    assert places(trace) == {
        ("post", 401, "url"),
        ("post", 406, "body"),  # this server's own address, proxied
        ("comment", 501, "content"),
        ("private message", 601, "content"),
        ("profile", 103, "bio"),
        ("community", 301, "icon"),
        ("multi-community", 311, "sidebar"),
        ("report", 904, "original_community_icon"),
    }
    assert {(person.name, person.banned) for person in trace.persons} == {("alice", True), ("carol", False), ("dave", False)}
    assert {upload.alias for upload in trace.other_uploads} == {AVATAR}  # a preview of her post is no upload of hers


def test_private_messages_are_searched_only_where_the_profile_says_so(databases: dict[str, str], version: str) -> None:
    trace = traced(databases[version], ALIAS)

    assert UseKind.PRIVATE_MESSAGE not in {use.kind for use in trace.uses}
    assert ("report", 903, "original_pm_text") not in places(trace)
    assert "dave" not in names(trace)
    assert [limit for limit in trace.limits if "private messages were not searched" in limit]


def test_nobody_uploaded_a_preview(databases: dict[str, str]) -> None:
    old, new = traced(databases["0.19"], PREVIEW), traced(databases["1.0"], PREVIEW)

    assert old.uploaders == new.uploaders == ()
    assert [(upload.person, upload.thumbnail_of) for upload in new.uploads] == [(102, 402)]
    assert names(old) == names(new) == {"bob"}
    assert places(old) == places(new) == {("post", 402, "thumbnail_url")}
    assert new.other_uploads == ()


def test_signs_in_an_alias_are_no_wildcards(databases: dict[str, str]) -> None:
    trace = traced(databases["0.19"], "a_b%c.png")

    assert places(trace) == {("post", 406, "body")}
    assert names(trace) == {"carol"}


def test_a_remote_picture_is_found_encoded_raw_and_cut_at_the_ampersand(databases: dict[str, str]) -> None:
    full = traced(databases["0.19"], urls=("https://img.example/x y.png?a=1&b=2",))
    cut = traced(databases["0.19"], urls=("https://img.example/x y.png?a=1",))
    new = traced(databases["1.0"], urls=("https://img.example/x.png",))

    assert places(full) == places(cut) == {("post", 404, "thumbnail_url"), ("post", 409, "url")}
    assert places(new) == {("post", 404, "thumbnail_url")}


def test_an_unknown_alias_is_nobodys(databases: dict[str, str], version: str) -> None:
    trace = traced(databases[version], "nothing.png")

    assert (trace.uploads, trace.uses, trace.owners, trace.sessions) == ((), (), (), ())


def test_what_the_role_may_not_read_is_told_and_the_rest_is_found(postgres: Postgres, databases: dict[str, str]) -> None:
    url = databases["0.19"]
    postgres.role("half")
    run_sql(url, grants("0.19", "half", private_messages=False))
    run_sql(
        url, "REVOKE ALL ON login_token FROM half; REVOKE SELECT (user_id, published, ip, user_agent) ON login_token FROM half"
    )

    trace = traced(postgres.url(url, "half"), ALIAS, private_messages=True)

    assert ("post", 401, "url") in places(trace)
    assert trace.sessions == ()
    assert {limit.partition(" could")[0] for limit in trace.limits} == {
        "sessions",
        "private message",
        "report of a private message",
    }


def test_a_role_without_rights_is_refused_with_a_hint(postgres: Postgres, databases: dict[str, str], version: str) -> None:
    url = postgres.url(databases[version], postgres.role("nothing"))

    with pytest.raises(Refused) as refused:
        traced(url, ALIAS)

    assert "lemmy grants" in refused.value.hint


def test_another_database_is_refused(postgres: Postgres) -> None:
    with pytest.raises(Refused, match="no database of Lemmy"):
        traced(postgres.database("CREATE TABLE person (id int)"), ALIAS)


def test_a_wrong_address_never_shows_its_password() -> None:
    for url, kind in (
        ("postgresql://u:hunter2hunter2@127.0.0.1:1/x", Unreached),
        ("postgresql://u:hunter2%zz@127.0.0.1/x", Misconfigured),
    ):
        with pytest.raises(kind) as error:
            traced(url, ALIAS)

        assert "hunter2" not in f"{error.value} {error.value.hint} {Database(url, 1)!r}"


def test_every_alias_is_listed_page_by_page(databases: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fediwarden.platforms.lemmy.database.PAGE", 2)

    assert len(list(Database(databases["0.19"], 10).aliases())) == 5
    assert len(list(Database(databases["0.19.3"], 10).aliases())) == 4
    assert len(list(Database(databases["1.0"], 10).aliases())) == 4


def test_comments_are_searched_by_their_index(databases: dict[str, str], version: str) -> None:
    from fediwarden.platforms.lemmy.queries import statements
    from fediwarden.platforms.lemmy.wanted import wanted

    search = wanted([ALIAS], [], cut_at_ampersand=True)
    with psycopg.connect(databases[version]) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(
            f"EXPLAIN {statements('trace', version)['uses comment']}".encode(), {"like": list(search.like), "exact": search.exact}
        ).fetchall()

    assert "idx_comment_content_trigram" in str(plan)
