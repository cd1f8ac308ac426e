"""pict-rs and the folder behind it through the command line: each content looked at once, acted on through pict-rs, put back."""

from pathlib import Path

from tests.support.command import Home, by_key, files_below
from tests.support.fake_pictrs import KEY, FakePictrs, FilesBelow, mirrored, running_pictrs
from tests.support.media_makers import animation, still
from tests.support.postgres import Postgres

PICTURE = still("png", 96, 64, seed=1)
ANIMATION = animation("gif", 3)
ORPHAN = animation("gif", 4)


def configure(home: Home, fake: FakePictrs, root: Path, folder: Path, database: str) -> None:
    """`[stores.pictrs]`, read by its database only, and `[stores.media]`, the folder of its files."""
    reading, keeping = folder / "read.toml", folder / "keep.toml"
    reading.write_text(f'database = "{database}"\n')
    keeping.write_text(f'api_key = "{KEY}"\n')
    for file in (reading, keeping):
        file.chmod(0o600)
    home.add_store("pictrs", url=f"pictrs://127.0.0.1:{fake.port}", credentials=reading, keeper_credentials=keeping)
    home.add_store("media", url=root, pictrs="pictrs")


def test_thumbnails_are_not_looked_at_one_by_one_and_a_false_alarm_comes_back(
    home: Home, postgres: Postgres, tmp_path: Path
) -> None:
    root = tmp_path / "files"
    root.mkdir()
    database = postgres.database(Path("pictrs.sql"))
    with running_pictrs(FakePictrs(objects=FilesBelow(root))) as fake:
        mirrored(fake, database)
        fake.put(PICTURE, "image/png", alias="one.png")
        fake.put(PICTURE, "image/png", alias="two.png")
        for size in (96, 256, 512):
            fake.variant("one.png", f"thumbnail/{size}/webp")
        fake.put(ANIMATION, "image/gif", alias="a.gif")
        orphan = fake.in_flight(ORPHAN)
        configure(home, fake, root, tmp_path, database)
        home.settings["FEDIWARDEN_STORES__PICTRS__OVERLAP_SECONDS"] = "0"

        first = home.run("scan", "--json", expect=1).last

        assert first["accounted"] == {"originals": 2, "variants": 3}
        assert (first["listed"], first["seen"], first["flagged"]) == (3, 3, 2)
        gif = fake.row("a.gif")
        assert gif is not None
        assert set(by_key(home.run("list", "--json", "--step", "quarantine").lines)) == {gif.hash.hex(), orphan}
        assert not any(seen.path.startswith("/internal/") for seen in fake.seen)

        home.run("apply", "--yes")

        fake.tick()
        assert fake.row("a.gif") is None
        assert set(files_below(root)) == set(fake.objects) - {gif.identifier, orphan}
        assert len(fake.objects) == 4
        assert home.unsealed(ANIMATION)
        home.run("restore", gif.hash.hex(), "--identity", home.identities[0], "--because", "a mistake")
        assert fake.data("a.gif") == ANIMATION
        again = home.run("scan").out
        assert "2 objects are originals of pict-rs, looked at there, and 3 are renderings" in again
