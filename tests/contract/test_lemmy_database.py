"""What a trace tells about a real PostgreSQL with the tables of Lemmy 0.19 and 1.0, and that its role can read no secret."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from tests.support.postgres import SQL, Postgres, run_sql

from fediwarden.errors import Misconfigured, Refused, Unreached
from fediwarden.platforms.lemmy.database import SECRETS, Database
from fediwarden.platforms.lemmy.image_urls import wanted
from fediwarden.platforms.lemmy.model import Trace, UseKind
from fediwarden.platforms.lemmy.queries import grants, searches

ALIAS = "aaaaaaaa-0000-4000-8000-000000000001.jpeg"
PREVIEW = "aaaaaaaa-0000-4000-8000-000000000002.webp"
AVATAR = "aaaaaaaa-0000-4000-8000-000000000003.png"
ROLE = "fediwarden"
OLD = """
ALTER TABLE local_image RENAME TO image_upload;
DELETE FROM image_upload WHERE local_user_id IS NULL;
DROP TABLE remote_image, image_details, local_site_url_blocklist;
ALTER TABLE post DROP alt_text, DROP url_content_type;
ALTER TABLE site DROP content_warning;
ALTER TABLE private_message DROP removed;
CREATE INDEX idx_post_trigram ON post USING gin (name gin_trgm_ops, body gin_trgm_ops);
"""
PREVIEW_OF_401 = "UPDATE post SET thumbnail_url = 'https://lemmy.example/pictrs/image/' || %(alias)s WHERE id = 401"
LACKS = "this version of Lemmy has no post.alt_text, site.content_warning, remote_image.link, image_details.link"


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

    assert trace.limits == ((LACKS,) if version == "0.19.3" else ())
    assert trace.complete
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

    assert places(full) - {("record", 0, "link")} == places(cut) == {("post", 404, "thumbnail_url"), ("post", 409, "url")}
    assert ("record", 0, "link") in places(full)
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
    assert [limit.partition(": ")[0] for limit in trace.limits] == [
        "private_message.content, private_message_report.original_pm_text, private_message_report.reason",
        "sessions",
    ]
    assert all("lemmy grants" in limit or "permission denied" in limit for limit in trace.limits)
    assert trace.complete  # who owns it does not hang on these


@pytest.mark.parametrize("version", ["0.19", "1.0"])
def test_what_gives_no_answer_in_time_is_named_and_the_rest_stands(databases: dict[str, str], version: str) -> None:
    url = databases[version]
    with psycopg.connect(url) as busy:  # as an upgrade would hold it, or a table too long to be gone through
        busy.execute("LOCK TABLE community IN ACCESS EXCLUSIVE MODE")
        trace = Database(url, 0.06).trace([ALIAS], (), private_messages=True)
    with psycopg.connect(url) as busy:
        busy.execute("LOCK TABLE comment_report, post IN ACCESS EXCLUSIVE MODE")
        without_posts = Database(url, 0.06).trace([ALIAS], (), private_messages=True)

    named = " ".join(trace.limits)
    assert "community.icon" in named
    assert "no answer within" in named
    assert ("post", 401, "url") in places(trace)
    assert [person.name for person in trace.uploaders] == ["alice"]
    assert trace.complete  # nobody owns a community's icon
    assert "post.url" in " ".join(without_posts.limits)
    assert not without_posts.complete  # others may have posted it
    assert {"site", "emoji"} <= {use.kind.value for use in without_posts.uses} or version == "1.0"


def test_a_database_that_answers_nothing_in_time_gives_no_trace(databases: dict[str, str]) -> None:
    url = databases["0.19"]
    with psycopg.connect(url) as busy:
        busy.execute(
            "LOCK TABLE local_image, local_user, person, post, comment, community, site, local_site IN ACCESS EXCLUSIVE MODE"
        )
        busy.execute(f"LOCK TABLE {', '.join({each.table for each in searches('0.19')})} IN ACCESS EXCLUSIVE MODE".encode())

        with pytest.raises(Unreached, match="no answer"):
            Database(url, 0.02).trace([ALIAS], (), private_messages=True)


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


@pytest.mark.parametrize("what", ["comment", "post"])
def test_texts_and_addresses_are_searched_by_their_index(databases: dict[str, str], version: str, what: str) -> None:
    search = wanted([ALIAS], [], cut_at_ampersand=True)
    facts = {"like": list(search.like), "exact": search.exact, "equal": ["https://lemmy.example/pictrs/image/x.png"]}
    place = next(each for each in searches(version) if each.what == what)
    by_trigram = [
        column for column in place.columns if column.trigram and not (version == "0.19.3" and column.name == "alt_text")
    ]
    with psycopg.connect(databases[version]) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(f"EXPLAIN {place.inside(by_trigram, frozenset())}".encode(), facts).fetchall()
        equal = [column for column in place.columns if column.equal]
        by_address = [
            connection.execute(f"EXPLAIN {place.equal([column], frozenset())}".encode(), facts).fetchall() for column in equal
        ]

    assert {"comment": "idx_comment_content_trigram", "post": "idx_post_trigram"}[what] in str(plan)
    assert "Seq Scan on" not in str(plan)
    assert all("idx_post_url" in str(each) for each in by_address)


def test_the_picture_is_followed_to_the_preview_that_lemmy_made_of_it_and_back(databases: dict[str, str], version: str) -> None:
    shrunk = {  # of post 401, whose address the picture is; in 0.19 the post tells it, in 1.0 the table of pictures
        "1.0": "aaaaaaaa-0000-4000-8000-000000000004.webp",
    }.get(version, "aaaaaaaa-0000-4000-8000-000000000009.webp")
    run_sql(databases[version], PREVIEW_OF_401, {"alias": shrunk})
    try:
        forth, back = traced(databases[version], ALIAS), traced(databases[version], shrunk)
    finally:
        run_sql(databases[version], "UPDATE post SET thumbnail_url = NULL WHERE id = 401")
    by_table = traced(databases[version], ALIAS)

    assert [(copy.alias, copy.post, copy.preview, copy.by_lemmy) for copy in forth.copies] == [(shrunk, 401, True, True)]
    assert [(copy.alias, copy.post, copy.preview) for copy in back.copies] == [(ALIAS, 401, False)]
    assert [copy.alias for copy in by_table.copies] == ([shrunk] if version == "1.0" else [])
    assert forth.counts["copies"] == 1


def test_the_picture_of_another_server_is_named_and_its_preview_here_is_found(databases: dict[str, str]) -> None:
    url = databases["0.19"]
    far, preview = "https://far.example/pictrs/image/x.png", "aaaaaaaa-0000-4000-8000-00000000000a.webp"
    run_sql(
        url,
        "INSERT INTO post (id, name, url, creator_id, community_id, ap_id, local, thumbnail_url) VALUES"
        " (490, 'far', %(far)s, 102, 301, 'https://remote.example/post/90', false, 'https://lemmy.example/pictrs/image/' || %(alias)s)",
        {"far": far, "alias": preview},
    )
    try:
        by_address, by_alias = traced(url, urls=(far,)), traced(url, preview)
    finally:
        run_sql(url, "DELETE FROM post WHERE id = 490")

    assert [(copy.alias, copy.preview) for copy in by_address.copies] == [(preview, True)]
    assert [(copy.alias, copy.address, copy.preview) for copy in by_alias.copies] == [("", far, False)]


def test_a_preview_that_somebody_uploaded_is_told_apart_from_one_that_lemmy_made(databases: dict[str, str]) -> None:
    url = databases["0.19"]
    run_sql(url, PREVIEW_OF_401, {"alias": AVATAR})
    try:
        trace = traced(url, ALIAS)
    finally:
        run_sql(url, "UPDATE post SET thumbnail_url = NULL WHERE id = 401")

    assert [(copy.alias, copy.by_lemmy) for copy in trace.copies] == [(AVATAR, False)]


# -- other spellings of the same alias, all of which pict-rs answers -----------------------------------------------------

SPELLINGS = {
    "upper case": "AAAAAAAA-0000-4000-8000-000000000001.jpeg",
    "no hyphens": "aaaaaaaa000040008000000000000001.jpeg",
    "upper case without hyphens": "AAAAAAAA000040008000000000000001.jpeg",
    "encoded hyphens": "aaaaaaaa%2D0000%2d4000%2D8000-000000000001.jpeg",
    "an encoded letter": "aa%61aaaaa-0000-4000-8000-000000000001.jpeg",
    "all of it encoded": "".join(f"%{ord(sign):02x}" for sign in ALIAS),
    "an encoded dot": "aaaaaaaa-0000-4000-8000-000000000001%2Ejpeg",
    "urn": "urn:uuid:aaaaaaaa-0000-4000-8000-000000000001.jpeg",
    "urn in upper case": "URN:UUID:AAAAAAAA-0000-4000-8000-000000000001.jpeg",
    "braces": "{aaaaaaaa-0000-4000-8000-000000000001}.jpeg",
    "encoded braces": "%7Baaaaaaaa-0000-4000-8000-000000000001%7D.jpeg",
}
IN_TEXT = {"a character reference": "&#97;aaaaaaa-0000-4000-8000-000000000001.jpeg", "backslashes": ALIAS.replace("-", "\\-")}
SPELLED = """
INSERT INTO post (id, name, url, body, creator_id, community_id, ap_id, local, thumbnail_url) VALUES
    (480 + %(number)s, 'spelled', %(url)s, NULL, 104, 301, 'https://lemmy.example/post/' || 480 + %(number)s, true, %(preview)s),
    (500 + %(number)s, 'spelled', NULL, '![](' || %(url)s || ')', 104, 301, 'https://lemmy.example/post/' || 500 + %(number)s, true, NULL);
"""
SPELLED_COMMENT = {
    "0.19": "INSERT INTO comment (id, creator_id, post_id, content, ap_id, local, path) VALUES"
    " (580 + %(number)s, 104, 402, 'see ' || %(url)s, 'https://lemmy.example/comment/' || 580 + %(number)s, true, '0')",
    "1.0": "INSERT INTO comment (id, creator_id, post_id, community_id, content, ap_id, local, path) VALUES"
    " (580 + %(number)s, 104, 402, 301, 'see ' || %(url)s, 'https://lemmy.example/comment/' || 580 + %(number)s, true, '0')",
}


@pytest.mark.parametrize("release", ["0.19", "1.0"])
def test_a_picture_is_found_and_followed_however_its_address_is_spelled(databases: dict[str, str], release: str) -> None:
    url, preview = databases[release], "BBBBBBBB0000400080000000000000%02d.webp"
    for number, spelling in enumerate(SPELLINGS.values()):
        facts: dict[str, object] = {
            "number": number,
            "url": f"https://lemmy.example/pictrs/image/{spelling}",
            "preview": f"https://lemmy.example/pictrs/image/{preview % number}",
        }
        run_sql(url, SPELLED, facts)
        run_sql(url, SPELLED_COMMENT[release], facts)
    try:
        forth = traced(url, ALIAS)
        back = traced(url, "bbbbbbbb-0000-4000-8000-000000000003.webp")
    finally:
        run_sql(url, "DELETE FROM comment WHERE id >= 580; DELETE FROM post WHERE id >= 480")

    missed = {
        name: lost
        for number, name in enumerate(SPELLINGS)
        if (
            lost := {("post", 480 + number, "url"), ("post", 500 + number, "body"), ("comment", 580 + number, "content")}
            - places(forth)
        )
    }
    assert missed == {}
    assert "dave" in names(forth)
    assert {f"bbbbbbbb-0000-4000-8000-0000000000{number:02d}.webp" for number in range(len(SPELLINGS))} <= {
        copy.alias for copy in forth.copies
    }
    assert [(copy.alias, copy.post) for copy in back.copies] == [(ALIAS, 483)]


def test_a_picture_is_found_in_texts_that_spell_it_in_markdowns_own_way(databases: dict[str, str]) -> None:
    url, missed = databases["0.19"], []
    for name, spelling in IN_TEXT.items():
        run_sql(url, SPELLED_COMMENT["0.19"], {"number": 0, "url": f"https://lemmy.example/pictrs/image/{spelling}"})
        try:
            missed += [] if ("comment", 580, "content") in places(traced(url, ALIAS)) else [name]
        finally:
            run_sql(url, "DELETE FROM comment WHERE id = 580")

    assert missed == []


def test_an_old_alias_that_is_no_uuid_is_found_with_encoded_signs_too(databases: dict[str, str]) -> None:
    url = databases["0.19"]
    run_sql(url, SPELLED_COMMENT["0.19"], {"number": 0, "url": "https://lemmy.example/pictrs/image/%61XbYc%2epng"})
    try:
        found = places(traced(url, "aXbYc.png", urls=("https://img.example/x.png",)))
    finally:
        run_sql(url, "DELETE FROM comment WHERE id = 580")

    assert ("comment", 580, "content") in found


def test_another_spelling_of_another_alias_is_not_meant(databases: dict[str, str]) -> None:
    url = databases["0.19"]
    others = ("AAAAAAAA-0000-4000-8000-000000000001.png", "zAAAAAAAA-0000-4000-8000-000000000001.jpeg", f"{ALIAS}x")
    for other in others:
        run_sql(url, SPELLED_COMMENT["0.19"], {"number": 0, "url": f"https://lemmy.example/pictrs/image/{other}"})
        try:
            found = places(traced(url, ALIAS))
        finally:
            run_sql(url, "DELETE FROM comment WHERE id = 580")

        assert ("comment", 580, "content") not in found, other


def test_the_copies_of_a_server_whose_name_has_a_port_are_found(databases: dict[str, str], version: str) -> None:
    url, shrunk = databases[version], "aaaaaaaa-0000-4000-8000-00000000000c.webp"
    rename = "UPDATE person SET actor_id = replace(actor_id, %(old)s, %(new)s)"
    rename = rename.replace("actor_id", "ap_id") if version == "1.0" else rename
    run_sql(url, rename, {"old": "//lemmy.example/", "new": "//lemmy.example:8536/"})
    run_sql(
        url,
        "UPDATE post SET url = 'https://lemmy.example:8536/pictrs/image/' || %(alias)s,"
        " thumbnail_url = 'https://lemmy.example:8536/pictrs/image/' || %(shrunk)s WHERE id = 401",
        {"alias": ALIAS, "shrunk": shrunk},
    )
    try:
        forth, back = traced(url, ALIAS), traced(url, shrunk)
    finally:
        run_sql(url, rename, {"old": ":8536/", "new": "/"})
        run_sql(url, "UPDATE post SET url = replace(url, ':8536/', '/'), thumbnail_url = NULL WHERE id = 401")

    assert shrunk in [copy.alias for copy in forth.copies]
    assert [copy.alias for copy in back.copies] == [ALIAS]


# -- against a search through everything ------------------------------------------------------------------------------

COLUMNS = json.loads((SQL / "lemmy_columns.json").read_text())  # every column of text in Lemmy's own schema.rs
KEPT_APART = {  # columns of text that a trace leaves alone, and why
    "secrets, tokens and keys": "private_key public_key password_encrypted totp_2fa_secret token jwt_secret verification_token"
    " pictrs_delete_token client_secret client_id oauth_user_id",
    "names and addresses of accounts, servers and things, which Lemmy makes or checks itself": "ap_id actor_id inbox_url"
    " shared_inbox_url followers_url moderators_url featured_url following_url actor_apub_id domain software version"
    " matrix_user_id email community.name person.name multi_community.name community_tag.name language.name code"
    " pictrs_alias content_type url_content_type keyword issuer authorization_endpoint token_endpoint userinfo_endpoint id_claim"
    " scopes oauth_provider.display_name path follow_activity_id previously_run_sql.content",
    "choices": "theme default_theme default_sort_type default_post_sort_type default_comment_sort_type default_listing_type"
    " default_post_listing_type post_listing_mode default_post_listing_mode interface_language captcha_difficulty"
    " registration_mode slur_filter_regex post_upvotes post_downvotes comment_upvotes comment_downvotes image_mode"
    " image_proxy_bypass_domains show_downvotes notifications kind color local_site_url_blocklist.url captcha_answer.answer",
    "the sessions, which are told by person": "ip user_agent",
    "shorter than any address, or computed": "site.name blurhash",
    "what was sent to others, for three months": "sent_activity.data sent_activity.send_inboxes actor_type",
}
ARRAYS = {"sent_activity.send_inboxes"}
APART = {name: why for why, names in KEPT_APART.items() for name in names.split()}


def text_columns(connection: psycopg.Connection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Table and column of everything that holds text."""
    return set(
        connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            " AND data_type IN ('text', 'character varying', 'json', 'jsonb')"
        ).fetchall()
    )


def a_row(connection: psycopg.Connection[tuple[object, ...]], table: str) -> None:
    """One row at least; a number that must be there is that of somebody."""
    name = sql.Identifier(table)
    if connection.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(name)).fetchone():
        return
    needed = connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s AND is_nullable = 'NO'"
        " AND column_default IS NULL AND column_name <> 'id'",
        (table,),
    ).fetchall()
    people = {"local_user_id": "203", "person_id": "101", "target_id": "103"}
    values = {str(column): people.get(str(column), "1") for column, _ in needed}
    names = sql.SQL(", ").join(map(sql.Identifier, values))
    put = sql.SQL(", ").join(sql.Literal(value) for value in values.values())
    filled = sql.SQL("({}) VALUES ({})").format(names, put) if values else sql.SQL("DEFAULT VALUES")
    connection.execute(sql.SQL("INSERT INTO {} {}").format(name, filled))


@pytest.mark.parametrize("version", ["0.19.20", "1.0.0-beta.1"])
def test_a_picture_is_found_wherever_text_can_stand_but_in_what_is_named(postgres: Postgres, version: str) -> None:
    new = version.startswith("1.0")
    url = postgres.database(*(Path(f"lemmy_{'1' if new else '019'}{part}.sql") for part in ("", "_data")))
    lost: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        everywhere = text_columns(connection)
        connection.execute("SET session_replication_role = replica")  # no foreign keys
        for table in sorted({table for table, _ in everywhere}):
            columns = [
                column for at, column in sorted(everywhere) if at == table and not {column, f"{at}.{column}"} & APART.keys()
            ]
            if not columns:
                continue
            alias = f"{table[-12:]}.png"
            a_row(connection, table)
            address = sql.Literal(f"https://lemmy.example/{'api/v4' if new else 'pictrs'}/image/{alias}")
            put = sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(column), address) for column in columns)
            where = sql.SQL("ctid = (SELECT min(ctid) FROM {})").format(sql.Identifier(table))
            connection.execute(sql.SQL("UPDATE {} SET {} WHERE {}").format(sql.Identifier(table), put, where))
            found = {use.field for use in traced(url, alias, private_messages=True).uses}
            lost += [f"{table}.{column}" for column in columns if column not in found]

    stand_in = {f"{table}.{column}" for table, column in everywhere}
    assert stand_in >= {f"{table}.{column}" for table, columns in COLUMNS[version].items() for column in columns} - ARRAYS
    assert lost == []
