"""A bucket on a real S3 server, through the command line, on good days and on bad ones."""

from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support.command import Home, by_key, listed
from tests.support.crashes import bucket_site
from tests.support.fault_proxy import FaultProxy, bad_days
from tests.support.media_makers import animation, colours, still
from tests.support.servers import S3Server, running_s3
from tests.support.waiting import until

PICTURE = still("png", 96, 64, seed=1)
ANIMATION = animation("gif", 3)


def pictures(count: int) -> dict[str, bytes]:
    """Small, all different, harmless to every rule."""
    return {f"{number:03}.png": still("png", 40 + number, 30, seed=number) for number in range(count)}


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.bucket()


@pytest.fixture
def proxy(s3_server: S3Server) -> Generator[FaultProxy]:
    with bad_days(s3_server.port) as made:
        yield made


def configure(home: Home, server: S3Server, bucket: str, folder: Path, port: int | None = None, **more: object) -> None:
    """`[stores.media]`: the bucket, reached through `port` if one is given."""
    reader, keeper = server.credentials(folder)
    endpoint = f"http://127.0.0.1:{port}" if port else server.endpoint
    values: dict[str, object] = {"timeout_seconds": 2, "tries": 2, "credentials": reader, "keeper_credentials": keeper}
    home.add_store("media", url=f"s3://{bucket}", endpoint=endpoint, **(values | more))


def test_scan_needs_no_more_than_a_read_only_key_and_apply_asks_for_its_own(
    home: Home, s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    for key, data in {"a.gif": ANIMATION, "deep/b.gif": ANIMATION, "c.png": PICTURE}.items():
        s3_server.put(bucket, key, data, content_type="image/x-odd", x_amz_meta_alias="cat", cache_control="max-age=7")
    configure(home, s3_server, bucket, tmp_path, keeper_credentials=tmp_path / "elsewhere.toml")

    first = home.run("scan", "--json", expect=1).last
    assert (first["listed"], first["seen"], first["flagged"]) == (3, 3, 2)
    again = home.run("scan", "--json", expect=1).last
    assert (again["skipped"], again["bytes"]) == (3, 0)
    refused = home.run("apply", "--yes", expect=4)
    assert "elsewhere.toml" in refused.err
    assert s3_server.get(bucket, "a.gif") == ANIMATION

    (tmp_path / "keeper.toml").rename(tmp_path / "elsewhere.toml")
    home.run("apply", "--yes")
    site = bucket_site("media", s3_server, bucket)
    assert site.present() == {"c.png": PICTURE}
    assert home.unsealed(ANIMATION)
    home.run("restore", "a.gif", "deep/b.gif")
    assert site.present() == {"a.gif": ANIMATION, "deep/b.gif": ANIMATION, "c.png": PICTURE}
    assert site.quarantined() == []
    client = s3_server.client()
    head = client.send("HEAD", bucket, "deep/b.gif").headers
    client.close()
    assert (head["content-type"], head["x-amz-meta-alias"], head["cache-control"]) == ("image/x-odd", "cat", "max-age=7")
    assert home.run("scan", "--json").last["flagged"] == 0


def test_every_version_of_a_versioned_object_is_hidden_and_the_current_one_comes_back(
    home: Home, s3_server: S3Server, tmp_path: Path
) -> None:
    bucket = s3_server.bucket(versioned=True)
    older = [still("png", 50, 40, seed=seed) for seed in (7, 8)]
    for data in (*older, ANIMATION):
        s3_server.put(bucket, "a.gif", data, content_type="image/gif")
    configure(home, s3_server, bucket, tmp_path)
    home.run("scan", expect=1)

    home.run("apply", "--yes")
    client = s3_server.client()
    root = client.send("GET", bucket, query={"versions": "", "prefix": "a.gif"}).xml()
    assert root is not None
    assert list(root.iterfind("{*}Version")) == []
    home.run("restore", "a.gif")
    assert s3_server.get(bucket, "a.gif") == ANIMATION
    assert client.send("HEAD", bucket, "a.gif").headers["content-type"] == "image/gif"
    client.close()


def test_an_object_replaced_between_scan_and_apply_is_never_lost(
    home: Home, s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    s3_server.put(bucket, "a.gif", ANIMATION)
    configure(home, s3_server, bucket, tmp_path)
    home.run("scan", expect=1)
    s3_server.put(bucket, "a.gif", PICTURE)

    applied = home.run("apply", "--yes", "--json", expect=3)
    assert applied.lines[0]["outcome"] == "changed"
    assert s3_server.get(bucket, "a.gif") == PICTURE
    totals = home.run("scan", "--json").last
    assert (totals["seen"], totals["owed"]) == (1, 0)


def test_restore_never_writes_over_what_came_meanwhile(home: Home, s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    s3_server.put(bucket, "a.gif", ANIMATION)
    configure(home, s3_server, bucket, tmp_path)
    home.run("scan", expect=1)
    home.run("apply", "--yes")
    s3_server.put(bucket, "a.gif", PICTURE)

    refused = home.run("restore", "a.gif", expect=3)
    assert "still hidden" in refused.out
    assert "hint: " in refused.err
    assert s3_server.get(bucket, "a.gif") == PICTURE
    s3_server.delete(bucket, "a.gif")
    home.run("restore", "a.gif")
    assert s3_server.get(bucket, "a.gif") == ANIMATION


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ({"url": "s3://no-such-bucket-at-all"}, 5, "does not exist"),
        ({"endpoint": "http://127.0.0.1:9"}, 5, "hint: "),
        ({"credentials": "wrong.toml"}, 5, "keys in the credentials file"),
    ],
)
def test_a_bucket_that_cannot_be_reached_ends_with_five_and_words_that_help(
    home: Home, s3_server: S3Server, bucket: str, tmp_path: Path, more: dict[str, str], code: int, says: str
) -> None:
    wrong = home.folder / "wrong.toml"
    wrong.write_text('access_key_id = "NOBODY"\nsecret_access_key = "nothing"\n')
    wrong.chmod(0o600)
    reader, _ = s3_server.credentials(tmp_path)
    values = {"url": f"s3://{bucket}", "endpoint": s3_server.endpoint, "credentials": str(reader), "tries": 2} | more
    home.add_store("media", **values)

    refused = home.run("scan", expect=code)
    assert says in refused.err
    assert "Traceback" not in refused.err


def test_a_busy_slow_and_lying_server_costs_time_and_nothing_else(
    home: Home, s3_server: S3Server, proxy: FaultProxy, bucket: str, tmp_path: Path
) -> None:
    for key, data in pictures(24).items():
        s3_server.put(bucket, key, data)
    s3_server.put(bucket, "z.gif", ANIMATION)
    configure(home, s3_server, bucket, tmp_path, proxy.port, tries=6, timeout_seconds=5)
    faults = ["503", "cut", "reset", "slow:0.3", "500"]
    asked: Counter[str] = Counter()

    def twice_bad(number: int, line: str) -> str:
        """Every request meets two of the faults, each other ones, before it is answered."""
        asked[line] += 1
        return faults[(asked[line] + len(line)) % len(faults)] if asked[line] % 3 else ""

    proxy.plan = twice_bad

    first = home.run("scan", "--json", expect=1).last
    assert (first["listed"], first["seen"], first["unreached"], first["broken"]) == (25, 25, 0, 0)
    applied = home.run("apply", "--yes", "--json", expect=None).last
    if applied["owed"]:
        proxy.heal()
        home.run("apply", "--yes")
    site = bucket_site("media", s3_server, bucket)
    assert "z.gif" not in site.present()
    assert site.quarantined().count(ANIMATION) == 1
    assert home.unsealed(ANIMATION)


def test_what_never_arrives_whole_is_unreached_and_looked_at_when_it_does(
    home: Home, s3_server: S3Server, proxy: FaultProxy, bucket: str, tmp_path: Path
) -> None:
    objects = pictures(8)
    for key, data in objects.items():
        s3_server.put(bucket, key, data)
    configure(home, s3_server, bucket, tmp_path, proxy.port)
    proxy.plan = lambda number, line: "cut" if "/003.png" in line else "503" if "/005.png" in line else ""

    totals = home.run("scan", "--json", expect=3).last
    assert (totals["listed"], totals["seen"], totals["unreached"], totals["broken"]) == (8, 6, 2, 0)
    assert totals["listed"] == listed(totals)
    standings = by_key(home.run("list", "--json", "--not-scanned").lines)
    assert {key: line["standing"] for key, line in standings.items()} == {"003.png": "unreached", "005.png": "unreached"}
    proxy.heal()
    after = home.run("scan", "--json").last
    assert (after["skipped"], after["seen"], after["not_scanned"]) == (6, 2, 0)


def test_a_server_stopped_in_the_middle_of_a_scan_settles_nothing_wrongly(home: Home, tmp_path: Path) -> None:
    objects = pictures(60)
    with running_s3(tmp_path / "first") as server, bad_days(server.port) as proxy:
        bucket = server.bucket()
        for key, data in objects.items():
            server.put(bucket, key, data)
        configure(home, server, bucket, tmp_path, proxy.port, timeout_seconds=2, tries=1)
        proxy.plan = lambda number, line: "slow:0.1" if ".png" in line else ""
        scan = home.start("scan", "--json")
        until(lambda: sum(".png" in line for line in proxy.seen) > 12)
        server.process.kill()
        server.process.wait()
        out, err = scan.communicate(timeout=120)
    assert scan.returncode == 5, (out, err)
    assert b"Traceback" not in err
    known = by_key(home.run("list", "--json").lines)
    assert {line["standing"] for line in known.values()} <= {"seen", "unreached", None}
    assert sum(line["standing"] == "seen" for line in known.values()) >= 5
    assert not any(line["gone"] for line in known.values())

    with running_s3(tmp_path / "first", port=server.port) as server, bad_days(server.port) as second:
        second_port = (home.folder / "fediwarden.toml").read_text().replace(str(proxy.port), str(second.port))
        (home.folder / "fediwarden.toml").write_text(second_port)
        totals = home.run("scan", "--json").last
    assert totals["listed"] == 60
    assert totals["skipped"] + totals["seen"] == 60


@pytest.mark.parametrize("word", ["apply", "restore"])
def test_a_server_that_stops_in_the_middle_of_an_act_leaves_it_to_the_next(
    home: Home, s3_server: S3Server, proxy: FaultProxy, bucket: str, tmp_path: Path, word: str
) -> None:
    objects = {f"{number}.gif": animation("gif", colours(2, 40 + number, 30)) for number in range(3)}
    for key, data in objects.items():
        s3_server.put(bucket, key, data)
    configure(home, s3_server, bucket, tmp_path, proxy.port, tries=1)
    home.run("scan", expect=1)
    site = bucket_site("media", s3_server, bucket)
    command = ["apply", "--yes"]
    if word == "restore":
        home.run(*command)
        command = ["restore", *objects]
    begun = len(proxy.seen)
    proxy.plan = lambda number, line: "reset" if number > begun + 11 else ""

    failed = home.run(*command, expect=5)
    assert "FAILED" in failed.out
    everywhere = {*site.present().values(), *site.quarantined()}
    assert everywhere >= set(objects.values())
    proxy.heal()
    home.run(*command)
    if word == "restore":
        left = [str(line["key"]) for line in home.run("list", "--json", "--hidden").lines]
        assert left == []
        assert site.present() == objects
    else:
        assert site.present() == {}
        assert sorted(site.quarantined()).count(objects["1.gif"]) == 1
    with home.ledger() as ledger:
        assert ledger.verify() == []
