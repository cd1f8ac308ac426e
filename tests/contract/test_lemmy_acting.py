"""Acting in Lemmy of both versions: nothing is deleted that is not sealed, and what came of each step is read back."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from shutil import copy

import pytest
from tests.support.acting_lemmy import ActingLemmy, acting_lemmy
from tests.support.fake_lemmy import ADMIN, ADMIN_JWT, ALIAS, ALICE, BOB, HOST, PICS, SECOND
from tests.support.fake_pictrs import KEY, FakePictrs, running_pictrs

from fediwarden.errors import Misconfigured, Unreached
from fediwarden.ledger import Ledger
from fediwarden.model import DeedState, PlatformDeed, Sha256, StoreName
from fediwarden.platforms.lemmy.acting import (
    REASON,
    Done,
    ModerationChoice,
    ModerationPlan,
    ModerationStep,
    Moderator,
    accuses,
    plan,
)
from fediwarden.platforms.lemmy.api import Api, Token
from fediwarden.platforms.lemmy.evidence import Evidence, Looked, Shelf
from fediwarden.platforms.lemmy.image_urls import matcher
from fediwarden.platforms.lemmy.model import Copy, Person, Trace, Upload, Use, UseKind
from fediwarden.platforms.lemmy.places import PictureSpot, survey, without
from fediwarden.platforms.pictrs.server import Server
from fediwarden.vault import Vault, make_identities

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
PICTURE, SECOND_PICTURE, THIRD = b"a picture", b"its preview", b"somebody else's picture"
BAD = Sha256(sha256(PICTURE).hexdigest())
LIMIT = 1 << 20


@dataclass
class Yard:
    """One Lemmy, its pict-rs, and all that acting needs."""

    lemmy: ActingLemmy
    pictrs: FakePictrs
    api: Api
    server: Server
    ledger: Ledger
    vault: Vault
    keys: list[Path]
    limit: int = LIMIT
    no_pictrs: bool = False
    now: float = 0.0  # Lemmy's clock, which goes on while somebody waits

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def trace(self) -> Trace:
        """What a trace of the picture says."""
        posts = [
            Use(UseKind.POST, number, name, str(row["ap_id"]), row["creator_id"], PICS, None, row["local"], row["removed"])
            for number, row in self.lemmy.posts.items()
            for name in ("url", "thumbnail_url", "body")
            if ALIAS in row.get(name, "")
        ]
        comments = [
            Use(UseKind.COMMENT, number, "content", str(row["ap_id"]), row["creator_id"], PICS, None, True, row["removed"])
            for number, row in self.lemmy.comments.items()
            if ALIAS in row["content"]
        ]
        alice, bob = (
            Person(ALICE, "alice", f"https://{HOST}/u/alice", True, banned=self.lemmy.persons[ALICE]["banned"]),
            Person(BOB, "bob", "https://remote.example/u/bob", False),
        )
        uploads = (Upload(ALIAS, None, ALICE),)
        uses = (*posts, *comments, Use(UseKind.PROFILE, ALICE, "avatar", alice.address, ALICE))
        return Trace(self.lemmy.version[: 4 if not self.lemmy.new else 3], "API", (ALIAS,), (), uploads, uses, (alice, bob))

    @property
    def shelf(self) -> Shelf:
        return Shelf([] if self.no_pictrs else [self.server], self.limit)

    def evidence(self, *, keeps: bool = True) -> Evidence:
        run = self.ledger.begin("test", {}, NOW)
        return Evidence(
            self.api, self.shelf, self.vault if keeps else None, self.ledger, run, lambda: NOW, "eve", sealed={ALIAS: BAD}
        )

    def plan(self, choice: ModerationChoice, trace: Trace | None = None) -> ModerationPlan:
        trace = trace or self.trace()
        asked = matcher(trace.aliases, trace.urls, cut_at_ampersand=not self.lemmy.new)
        places = tuple(survey(self.api, asked, [PICS])) if choice.icons or choice.texts else ()
        admins = {ADMIN: f"https://{HOST}/u/dave", SECOND: f"https://{HOST}/u/erin"}
        known = None if self.no_pictrs else self.shelf.aliases
        return plan(trace, choice, reports=[], admins=admins, me=ADMIN, sent=[], places=places, known=known)

    def steps(self, made: ModerationPlan, looked: Looked) -> Generator[Done]:
        lose: dict[ModerationStep, list[str]] = {}
        for take in looked.takes:
            lose.setdefault(take.step, []).extend(take.loses)
        acting = Moderator(
            self.api,
            self.ledger,
            self.ledger.begin("test", {}, NOW),
            lambda: NOW,
            "eve",
            wait=self.wait,
            still=lambda names: self.shelf.still(names, 0.3),
            changed=partial(self.evidence().changed, looked),
        )
        yield from acting.apply(made, BAD, lose)

    def act(
        self, choice: ModerationChoice, *, give_up: tuple[str, ...] = (), trace: Trace | None = None
    ) -> tuple[list[Done], list[Done]]:
        """What was sealed, and what was done."""
        evidence = self.evidence()
        made = self.plan(choice, trace)
        looked = evidence.look(made)
        sealed = list(evidence.seal(looked, give_up))
        return sealed, list(self.steps(made, looked))

    def unsealed(self, data: bytes) -> bool:
        name = Sha256(sha256(data).hexdigest())
        return self.vault.check(name) and self.vault.open(name, self.keys[:1]) == data

    def changed(self) -> list[str]:
        return [call for call in self.lemmy.calls if not call.startswith("GET ")]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with nothing in it."""
    path = tmp_path_factory.mktemp("empty") / "ledger.sqlite3"
    with Ledger.open(path):
        return path


@pytest.fixture(params=["0.19", "1.0"])
def yard(request: pytest.FixtureRequest, tmp_path: Path, empty: Path) -> Iterator[Yard]:
    with running_pictrs() as pictrs, acting_lemmy(request.param, pictrs) as lemmy:
        pictrs.put(PICTURE, alias=ALIAS)
        identities = make_identities(tmp_path / "keys")
        vault = Vault(tmp_path / "vault", [identity.public for identity in identities])
        api = Api(lemmy.url, Token(ADMIN_JWT), 5, pause=0.001)
        server = Server(pictrs.url, key=KEY, seconds=5, limit=LIMIT)
        with Ledger.open(Path(copy(empty, tmp_path))) as ledger:
            yard = Yard(lemmy, pictrs, api, server, ledger, vault, [identity.path for identity in identities])
            lemmy.clock = lambda: yard.now
            yield yard
        api.close()
        server.close()


# -- sealed before --------------------------------------------------------------------------------------------------------


def test_a_purge_takes_a_post_s_picture_and_its_preview_under_all_their_aliases_and_both_are_sealed_before(yard: Yard) -> None:
    yard.pictrs.put(PICTURE, alias="again.jpeg")
    yard.pictrs.put(SECOND_PICTURE, alias="preview.jpeg")
    yard.lemmy.posts[401]["thumbnail_url"] = yard.lemmy.address("preview.jpeg")

    made = yard.plan(ModerationChoice("purge"))
    looked = yard.evidence().look(made)
    sealed, done = yard.act(ModerationChoice("purge"))

    assert [(take.alias, sorted(take.aliases)) for take in looked.takes] == [
        (ALIAS, [ALIAS, "again.jpeg"]),
        ("preview.jpeg", ["preview.jpeg"]),
    ]
    assert [(each.step.act, each.step.target, each.problem) for each in sealed] == [
        ("seal picture", ALIAS, ""),
        ("seal picture", "preview.jpeg", ""),
    ]
    assert [each.problem for each in done] == ["", ""]
    assert "pict-rs has it no more" in done[0].note
    assert yard.pictrs.purged()
    assert yard.unsealed(PICTURE)
    assert yard.unsealed(SECOND_PICTURE)
    assert {"row", "comments"} <= {key for row in looked.rows for key in row}
    assert any(row["row"]["body"].startswith("hi ") for row in looked.rows if "row" in row and "body" in row["row"])


def test_an_address_of_another_server_that_ends_like_a_local_picture_is_said_to_take_it_and_that_one_is_sealed_too(
    yard: Yard,
) -> None:
    address = "https://remote.example/pictrs/image/bobs.png"
    yard.pictrs.put(THIRD, "image/png", alias="bobs.png")
    yard.lemmy.posts[403]["url"] = address
    yard.lemmy.elsewhere.add(address)

    looked = yard.evidence().look(yard.plan(ModerationChoice("purge")))
    yard.act(ModerationChoice("purge"))

    assert [(take.alias, take.address) for take in looked.takes if take.alias != ALIAS] == [("bobs.png", address)]
    assert any(address in note and "its server learns" in note for note in looked.notes)
    assert yard.lemmy.fetched == [yard.lemmy.address(ALIAS), address]
    assert yard.pictrs.row("bobs.png") is None
    assert yard.unsealed(THIRD)


def test_a_preview_that_visitors_fetch_from_another_server_is_said_not_to_be_reached(yard: Yard) -> None:
    yard.lemmy.posts[401]["thumbnail_url"] = "https://remote.example/preview.jpeg"  # the gate refused Lemmy's own copy

    notes = yard.evidence().look(yard.plan(ModerationChoice("remove"))).notes

    assert [note for note in notes if "https://remote.example/preview.jpeg" in note and "does not reach" in note] == list(notes)
    assert len(notes) == 1


def test_what_cannot_be_sealed_stops_the_purge_by_name_unless_a_person_gives_it_up(yard: Yard) -> None:
    yard.pictrs.put(b"x" * 200, alias="large.jpeg")
    yard.lemmy.posts[401]["thumbnail_url"] = yard.lemmy.address("large.jpeg")
    yard.limit = 100

    with pytest.raises(Misconfigured, match=r"nobody has sealed: large\.jpeg") as refused:
        yard.act(ModerationChoice("purge"))

    assert "--without-sealing" in refused.value.hint
    assert yard.changed() == []
    sealed, done = yard.act(ModerationChoice("purge"), give_up=("large.jpeg",))
    assert [(each.problem, "given up" in each.note) for each in sealed] == [("", False), ("", True)]
    assert {each.problem for each in done} == {""}


def test_a_picture_that_pict_rs_has_lost_stops_the_purge_by_name(yard: Yard) -> None:
    row = yard.pictrs.row(ALIAS)
    assert row is not None
    del yard.pictrs.objects[row.identifier]

    with pytest.raises(Misconfigured, match=f"nobody has sealed: {ALIAS}"):
        yard.act(ModerationChoice("purge"))

    assert yard.changed() == []


def test_without_a_pict_rs_to_fetch_from_nothing_is_purged_that_is_not_sealed_already(yard: Yard) -> None:
    yard.no_pictrs = True

    with pytest.raises(Misconfigured, match="no pict-rs is configured"):
        yard.act(ModerationChoice("purge"))
    assert yard.changed() == []

    yard.vault.seal(PICTURE, BAD, store=yard_store(), key="k", at=NOW, because={})
    _, done = yard.act(ModerationChoice("purge"))
    assert [each.problem for each in done] == ["", ""]


def yard_store() -> StoreName:
    return StoreName("media")


def test_a_profile_that_keeps_no_bytes_makes_a_person_name_each_picture_that_goes(yard: Yard) -> None:
    evidence = yard.evidence(keeps=False)
    looked = evidence.look(yard.plan(ModerationChoice("purge")))

    with pytest.raises(Misconfigured, match="keeps no bytes"):
        list(evidence.seal(looked, ()))

    assert [each.problem for each in evidence.seal(looked, (ALIAS,))] == [""]
    assert list(yard.vault.sealed()) == []


def test_what_was_sealed_before_lemmy_deleted_it_is_on_record_and_missed_where_it_is_gone(yard: Yard, tmp_path: Path) -> None:
    yard.act(ModerationChoice("purge"))

    records = [(record.what, record.sha256, record.key) for record in yard.ledger.maintenance.sealed()]

    assert records == [("picture", BAD, ALIAS)]
    assert yard.ledger.maintenance.knows(BAD)
    assert not yard.ledger.maintenance.knows(Sha256("c" * 64))


# -- icons, texts, the picture itself -----------------------------------------------------------------------------------------


def dressed(yard: Yard) -> None:
    """The picture everywhere that an administrator can change."""
    lemmy = yard.lemmy
    here = lemmy.address(ALIAS)
    for name in ("icon1", "icon2", "banner2"):
        yard.pictrs.put(PICTURE, alias=f"{name}.jpeg")
        lemmy.images.append((f"{name}.jpeg", ADMIN, None))
    lemmy.site = {"icon": lemmy.address("icon1.jpeg"), "sidebar": f"Rules: be kind. ![look]({here}) Thank you."}
    lemmy.site["legal_information"] = f"See {here} and the law."
    lemmy.looks[PICS] = {"icon": lemmy.address("icon2.jpeg"), "banner": lemmy.address("banner2.jpeg"), "local": True}
    lemmy.looks[PICS]["sidebar" if lemmy.new else "description"] = f"[![]({here})]({here})"
    lemmy.taglines = ["welcome", f"![]({here})", "be kind"]
    lemmy.emoji = {7: here, 8: lemmy.address("other.png")}


def all_names(yard: Yard) -> Trace:
    names = (ALIAS, "icon1.jpeg", "icon2.jpeg", "banner2.jpeg")
    return replace(yard.trace(), aliases=names)


def test_icons_banners_emoji_and_taglines_are_taken_away_and_texts_keep_the_rest(yard: Yard) -> None:
    dressed(yard)

    sealed, done = yard.act(ModerationChoice(icons=True, texts=True), trace=all_names(yard))

    lemmy = yard.lemmy
    assert [(each.problem, each.step.act) for each in done if each.problem] == []
    assert "icon" not in lemmy.site
    assert lemmy.site["sidebar"].split() == ["Rules:", "be", "kind.", "Thank", "you."]
    assert lemmy.site["legal_information"].split() == ["See", "and", "the", "law."]
    assert set(lemmy.looks[PICS]) == ({"banner", "local"} if lemmy.new else {"local"})
    assert lemmy.taglines == ["welcome", "be kind"]
    assert set(lemmy.emoji) == {8}
    assert yard.pictrs.row("icon1.jpeg") is None
    assert yard.pictrs.row(ALIAS) is not None  # an icon's call takes its own alias only
    assert len(sealed) == 1  # one content
    assert yard.unsealed(PICTURE)


def test_a_tagline_that_ends_with_the_picture_s_address_takes_nothing_from_pict_rs(yard: Yard) -> None:
    yard.lemmy.taglines = [f"see {yard.lemmy.address(ALIAS)}"]

    sealed, done = yard.act(ModerationChoice(texts=True))

    assert (sealed, [(each.problem, each.step.act) for each in done]) == ([], [("", "take away tagline")])
    assert yard.lemmy.taglines == []


@pytest.mark.parametrize("yard", ["0.19"], indirect=True)  # what 1.0 does with such an icon was not seen
@pytest.mark.parametrize(
    "end", ["0190cb31-ABCD-4000-8000-00000000000f.jpeg", "0190cb31-abcd-4000-8000-00000000000f.jpeg?format=webp"]
)
def test_an_icon_whose_alias_is_spelled_otherwise_takes_nothing_from_pict_rs_and_is_no_failure(yard: Yard, end: str) -> None:
    uuid = "0190cb31-abcd-4000-8000-00000000000f.jpeg"
    yard.pictrs.put(PICTURE, alias=uuid)
    yard.lemmy.images.append((uuid, ALICE, None))
    yard.lemmy.site = {"icon": yard.lemmy.address(end)}
    trace = replace(yard.trace(), aliases=(uuid,), uploads=(Upload(uuid, None, ALICE),))

    made = yard.plan(ModerationChoice(icons=True), trace)
    sealed, done = yard.act(ModerationChoice(icons=True), trace=trace)

    assert [step.words.partition(":")[0] for step in made.steps] == ["its picture stays in pict-rs"]
    assert (sealed, [each.problem for each in done]) == ([], [""])
    assert "icon" not in yard.lemmy.site
    assert yard.pictrs.data(uuid) == PICTURE


def test_lemmy_s_row_about_an_upload_is_left_unless_an_icon_takes_it(yard: Yard) -> None:
    yard.lemmy.images = [(ALIAS, ALICE, None)]
    yard.lemmy.site = {"icon": yard.lemmy.address(ALIAS)}

    kept = [line for line in yard.plan(ModerationChoice("remove")).left if "row about the upload" in line]
    taken = [line for line in yard.plan(ModerationChoice(icons=True)).left if "row about the upload" in line]

    assert kept == ["Lemmy 0.19 keeps its row about the upload, which names the uploader: only in its database"][yard.lemmy.new :]
    assert taken == []


def test_a_community_s_banner_is_left_to_a_person_where_the_call_for_it_would_take_the_icon(yard: Yard) -> None:
    dressed(yard)

    made = yard.plan(ModerationChoice(icons=True), all_names(yard))

    by_hand = [line for line in made.left if "banner" in line and "takes away the icon" in line]
    assert len(by_hand) == yard.lemmy.new
    assert ("take away community banner" in [step.act for step in made.steps]) is not yard.lemmy.new


def test_an_icon_whose_picture_is_hidden_already_is_left_to_a_person_by_1_0_only(yard: Yard) -> None:
    dressed(yard)
    yard.pictrs.forget(ALIAS)
    yard.pictrs.tick()

    made = yard.plan(ModerationChoice(icons=True), all_names(yard))
    sealed, done = yard.act(ModerationChoice(icons=True), trace=all_names(yard))

    assert sum("pict-rs has it no more" in line for line in made.left) == yard.lemmy.new * 2
    assert sealed == []
    assert [each.problem for each in done] == [""] * (1 if yard.lemmy.new else 4)
    assert ("icon" in yard.lemmy.site) is yard.lemmy.new


def test_what_is_not_asked_for_is_said_to_be_possible(yard: Yard) -> None:
    dressed(yard)

    made = yard.plan(ModerationChoice(texts=True), all_names(yard))

    assert sum("--icons takes it away" in line for line in made.left) == 4
    assert any("avatar" in line and "only its owner" in line for line in made.left)


def test_a_community_of_another_server_is_left_because_it_would_come_back(yard: Yard) -> None:
    dressed(yard)
    yard.lemmy.looks[PICS]["local"] = False

    made = yard.plan(ModerationChoice(icons=True, texts=True), all_names(yard))

    assert not any(step.kind == "community" for step in made.steps)
    assert any("of another server" in line for line in made.left)


def test_lemmy_1_0_deletes_the_picture_and_forgets_its_uploader_after_both_are_sealed(yard: Yard) -> None:
    yard.pictrs.put(PICTURE, alias="again.jpeg")

    sealed, done = yard.act(ModerationChoice(image=True))
    again = yard.plan(ModerationChoice(image=True))

    if not yard.lemmy.new:
        assert (sealed, done) == ([], [])
        assert any("0.19 has no call" in line for line in again.left)
        assert yard.pictrs.data(ALIAS) == PICTURE
        return
    assert [(each.step.act, each.problem) for each in done] == [("delete picture", "")]
    assert yard.pictrs.purged()
    assert yard.lemmy.images == []
    assert yard.unsealed(PICTURE)
    assert any("no more" in line for line in again.already)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a ![x](HERE) b", "a  b"),
        ("a [![x](HERE)](https://other.example/y) b", "a  b"),
        ("![x](https://other.example/y.png) HERE", "![x](https://other.example/y.png)"),
        ('![x](HERE "a title")', ""),
        ("<HERE>", ""),
        ("nothing", "nothing"),
    ],
)
def test_a_picture_is_cut_out_of_a_text_and_nothing_else(text: str, kept: str) -> None:
    asked = matcher([ALIAS], [], cut_at_ampersand=False)

    assert without(text.replace("HERE", f"https://{HOST}/pictrs/image/{ALIAS}"), asked) == kept


# -- accounts -----------------------------------------------------------------------------------------------------------------


def test_a_ban_with_data_seals_every_upload_of_the_account_before(yard: Yard) -> None:
    yard.pictrs.put(SECOND_PICTURE, alias="second.jpeg")
    yard.pictrs.put(THIRD, alias="bobs.jpeg")
    yard.lemmy.images += [("second.jpeg", ALICE, None), ("bobs.jpeg", ADMIN, None), ("gone.jpeg", ALICE, None)]

    sealed, done = yard.act(ModerationChoice(ban=True, data=True))

    assert sorted(each.step.target for each in sealed) == [ALIAS, "second.jpeg"]
    assert [(each.step.act, each.problem) for each in done] == [("ban person with data", "")]
    assert yard.unsealed(SECOND_PICTURE)
    assert yard.pictrs.row("second.jpeg") is None
    assert yard.pictrs.data("bobs.jpeg") == THIRD
    assert "avatar" not in yard.lemmy.persons[ALICE]


def test_a_ban_with_data_is_refused_where_lemmy_does_not_list_every_upload(yard: Yard) -> None:
    yard.lemmy.listless = True

    with pytest.raises(Misconfigured, match="does not list every upload"):
        yard.act(ModerationChoice(ban=True, data=True))

    assert yard.changed() == []


def test_uploads_that_stay_public_after_a_ban_with_data_are_named(yard: Yard) -> None:
    yard.lemmy.stale.add(ALIAS)  # restored meanwhile: Lemmy 0.19 sends a delete token that pict-rs does not know any more

    _, done = yard.act(ModerationChoice(ban=True, data=True))

    assert (ALIAS in done[0].problem) is not yard.lemmy.new
    assert yard.ledger.platforms.deeds(BAD)[-1].state is (DeedState.DONE if yard.lemmy.new else DeedState.FAILED)


def test_the_plan_says_what_a_ban_stops(yard: Yard) -> None:
    notes = " ".join(yard.plan(ModerationChoice(ban=True)).notes)

    assert ("stops no upload" in notes) is yard.lemmy.new
    assert ("ends every session" in notes) is not yard.lemmy.new


# -- what travels, what is read back --------------------------------------------------------------------------------------------


def test_the_plan_says_what_others_get_to_see(yard: Yard) -> None:
    notes = " ".join(yard.plan(ModerationChoice("remove", resolve_reports=True)).notes)

    assert "go to other servers" in notes
    assert "public moderation log" in notes
    assert ("notification and mail" in notes) is yard.lemmy.new
    assert "innocent" not in notes
    assert "innocent" in " ".join(yard.plan(ModerationChoice("remove", reason="CSAM")).notes)


def test_a_copy_that_shows_the_same_is_named_in_the_plan(yard: Yard) -> None:
    copy_of = Copy(yard.lemmy.address("preview.jpeg"), "preview.jpeg", 401, preview=True)

    notes = yard.plan(ModerationChoice("remove"), replace(yard.trace(), copies=(copy_of,))).notes

    assert any("preview.jpeg, the preview of post 401" in note for note in notes)


@pytest.mark.parametrize(
    ("reason", "accused"),
    [(REASON, ""), ("rule 3", ""), ("child abuse", "child"), ("Paedophile", "Paedo"), ("illegal", "illegal")],
)
def test_a_reason_that_accuses_is_noticed(reason: str, accused: str) -> None:
    assert accuses(reason) == accused


def test_a_purged_post_of_another_server_is_said_to_come_back(yard: Yard) -> None:
    yard.lemmy.posts[403]["local"] = False

    steps = yard.plan(ModerationChoice("purge")).steps

    assert [step.number for step in steps if "brings it back" in step.words] == [403]


def test_a_comment_that_its_author_deleted_meanwhile_counts_as_done_and_blames_no_token(yard: Yard) -> None:
    made = yard.plan(ModerationChoice(comments="remove"))
    yard.lemmy.comments[501]["deleted"] = True

    (done,) = yard.steps(made, Looked((), (), ()))

    assert (done.problem, "so already" in done.note) == ("", True)


def test_a_yes_that_is_not_so_afterwards_is_a_failure(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yard.lemmy, "_remove", lambda *_: {})

    _, done = yard.act(ModerationChoice("remove"))

    assert [each.problem for each in done] == ["Lemmy said yes, and it is not so"] * 2


def test_what_lemmy_answers_from_its_cache_for_a_moment_is_asked_again_and_no_failure(yard: Yard) -> None:
    dressed(yard)

    done = list(yard.steps(yard.plan(ModerationChoice(icons=True, texts=True), all_names(yard)), Looked((), (), ())))

    of_site = [each for each in done if each.step.kind in ("site", "tagline", "emoji")]
    assert [each.problem for each in of_site] == [""] * 5
    assert yard.now >= yard.lemmy.keeps  # it was waited for


def test_a_site_that_stays_as_it_was_is_a_failure_after_a_few_seconds(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    dressed(yard)
    monkeypatch.setattr(yard.lemmy, "_edit", lambda *_, **__: None)
    monkeypatch.setattr(yard.lemmy, "_clear", lambda *_: None)

    done = list(yard.steps(yard.plan(ModerationChoice(icons=True), all_names(yard)), Looked((), (), ())))

    assert [each.problem for each in done if each.step.kind == "site"] == ["Lemmy said yes, and it is not so"]
    assert 5 <= yard.now < 20


def test_a_post_whose_alias_an_icon_of_the_same_plan_takes_says_so_and_is_no_failure_while_others_stay(yard: Yard) -> None:
    yard.pictrs.put(PICTURE, alias="again.jpeg")
    yard.lemmy.site = {"icon": yard.lemmy.address(ALIAS)}

    looked = yard.evidence().look(yard.plan(ModerationChoice("purge", icons=True)))
    _, done = yard.act(ModerationChoice("purge", icons=True))

    icon, post = looked.takes
    assert (icon.before, post.before) == (None, icon.step)
    assert (icon.loses, post.loses, post.rest) == ((ALIAS,), (ALIAS,), ("again.jpeg",))
    assert [each.problem for each in done] == [""] * 3
    assert yard.pictrs.data("again.jpeg") == PICTURE
    assert not yard.shelf.lost([ALIAS, "again.jpeg"])


def test_lemmy_1_0_is_asked_for_the_picture_by_an_alias_that_no_icon_takes_before(yard: Yard) -> None:
    yard.pictrs.put(PICTURE, alias="again.jpeg")
    yard.lemmy.site = {"icon": yard.lemmy.address(ALIAS)}

    _, done = yard.act(ModerationChoice(icons=True, image=True))

    assert {each.problem for each in done} == {""}
    assert yard.shelf.lost([ALIAS, "again.jpeg"]) is yard.lemmy.new


def test_what_a_ban_with_data_empties_is_not_said_to_be_left(yard: Yard) -> None:
    assert [line for line in yard.plan(ModerationChoice(ban=True, persons=("alice",))).left if line.startswith("profile")]

    assert not [
        line for line in yard.plan(ModerationChoice(ban=True, data=True, persons=("alice",))).left if line.startswith("profile")
    ]


def test_a_picture_that_outlives_its_post_is_named(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yard.lemmy, "_purge", lambda alias: None)  # Lemmy reaches its own public address from nowhere

    _, done = yard.act(ModerationChoice("purge"))

    assert ALIAS in done[0].problem
    assert 401 not in yard.lemmy.posts


def test_a_call_that_was_killed_between_two_steps_can_be_given_again(yard: Yard) -> None:
    choice = ModerationChoice("purge", "remove", icons=True, texts=True)
    dressed(yard)
    trace = all_names(yard)
    evidence = yard.evidence()
    made = yard.plan(choice, trace)
    looked = evidence.look(made)
    list(evidence.seal(looked, ()))
    total = len(made.steps)
    going = yard.steps(made, looked)
    next(going)
    next(going)
    going.close()  # killed here

    _, done = yard.act(choice, trace=replace(yard.trace(), aliases=trace.aliases))

    assert {each.problem for each in done} == {""}
    assert len(done) == total - 2
    assert yard.unsealed(PICTURE)
    assert set(yard.lemmy.posts) == set()
    assert yard.plan(choice, replace(yard.trace(), aliases=trace.aliases)).steps == ()


def test_an_address_that_is_edited_after_the_sealing_takes_no_other_picture_along(yard: Yard) -> None:
    yard.pictrs.put(THIRD, alias="bobs.png")
    evidence = yard.evidence()
    made = yard.plan(ModerationChoice("purge"))
    looked = evidence.look(made)
    list(evidence.seal(looked, ()))
    yard.lemmy.posts[403]["url"] = yard.lemmy.address("bobs.png")

    done = list(yard.steps(made, looked))

    assert ["nobody has sealed" in each.problem for each in done] == [False, True]
    assert yard.pictrs.data("bobs.png") == THIRD
    assert set(yard.lemmy.posts) == {403}


def test_an_icon_and_a_text_that_were_changed_after_the_plan_are_left_alone(yard: Yard) -> None:
    dressed(yard)
    made = yard.plan(ModerationChoice(icons=True, texts=True), all_names(yard))
    yard.pictrs.put(THIRD, alias="new.png")
    yard.lemmy.site |= {"icon": yard.lemmy.address("new.png"), "sidebar": "written anew"}
    yard.wait(yard.lemmy.keeps)

    done = [each for each in yard.steps(made, Looked((), (), ())) if each.step.field in ("icon", "sidebar")]

    assert {each.problem for each in done if each.step.kind == "site"} == {
        "it was changed since the plan was made: give the call again"
    }
    assert yard.lemmy.site["sidebar"] == "written anew"
    assert yard.pictrs.data("new.png") == THIRD


def test_no_answer_in_the_middle_leaves_what_was_done_on_record(yard: Yard) -> None:
    evidence = yard.evidence()
    made = yard.plan(ModerationChoice("purge"))
    looked = evidence.look(made)
    list(evidence.seal(looked, ()))
    going = yard.steps(made, looked)
    next(going)
    yard.lemmy.down = True

    with pytest.raises(Unreached):
        next(going)

    deeds: list[PlatformDeed] = [deed for deed in yard.ledger.platforms.deeds(BAD) if deed.act != "seal picture"]
    assert [deed.state for deed in deeds] == [DeedState.BEGUN, DeedState.DONE, DeedState.BEGUN, DeedState.FAILED]


def test_places_that_show_another_picture_are_left_alone(yard: Yard) -> None:
    yard.lemmy.site = {"icon": yard.lemmy.address("other.png"), "sidebar": "hello"}

    found: list[PictureSpot] = list(survey(yard.api, matcher([ALIAS], [], cut_at_ampersand=False), [PICS, 999]))

    assert found == []
