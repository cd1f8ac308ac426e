"""What pict-rs promises, by version, held by the real one: the suite that the fake passes in ./test."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.pictrs_suite import EARLY, Judge, PictrsPromises, judging
from tests.support.postgres import Postgres
from tests.support.real_pictrs import KEY, RealPictrs, running
from tests.support.servers import S3Server


@dataclass
class RealRig:
    """A real pict-rs as the suite sees it."""

    pictrs: RealPictrs
    judge: Judge
    postgres: Postgres

    @property
    def url(self) -> str:
        return self.pictrs.url

    @property
    def key(self) -> str:
        return KEY

    @property
    def version(self) -> str:
        return self.pictrs.version

    @property
    def repository(self) -> str:
        return self.pictrs.repository["REPO__TYPE"]

    def settle(self) -> None:
        """Jobs are done when pict-rs comes to them."""

    def lose(self, alias: str) -> None:
        if self.pictrs.bucket:
            pytest.skip("files are lost from a folder here")
        self.pictrs.file(alias).unlink()

    def early(self, pictures: Sequence[bytes]) -> list[str]:
        now = self.pictrs.version
        if self.repository == "fjall":
            pytest.skip("0.5.16 has no fjall")
        if now != EARLY:
            self.begin_anew()
            self.pictrs.become(EARLY)
        aliases = [self.pictrs.put(data) for data in pictures]
        if now != EARLY:
            self.pictrs.become(now)
            self.warm()
        return aliases

    def begin_anew(self) -> None:
        """With an empty repository: one that a later version brought up to date is none for 0.5.16."""
        repository = dict(self.pictrs.repository)
        if self.repository == "postgres":
            name, _, where = self.postgres.database().rpartition("/")[2].partition("?")
            repository["REPO__URL"] = f"postgresql:///{name}?user={self.postgres.user}&{where}"
        else:
            repository["REPO__PATH"] += "-early"
        self.pictrs.repository = repository

    def name_the_validator(self) -> None:
        self.pictrs.stop()
        self.pictrs.start(MEDIA__EXTERNAL_VALIDATION=self.judge.url.replace("127.0.0.1", "localhost"))

    def warm(self) -> None:
        """A debug build looks up its own symbols at its first error; it stands still for seconds then, and drops connections."""
        self.pictrs.internal("identifier", alias="nobody.png")


class TestPromises(PictrsPromises):
    """Every version that was built, in every set-up."""

    @pytest.fixture
    def rig(self, version: str, setup: str, tmp_path: Path, s3: S3Server, postgres: Postgres) -> Generator[RealRig]:
        with (
            judging() as judge,
            running(version, setup, tmp_path / "pictrs", s3, postgres, MEDIA__EXTERNAL_VALIDATION=judge.url) as server,
        ):
            rig = RealRig(server, judge, postgres)
            rig.warm()
            yield rig
