"""How stores are named, which files hold their keys, and how long they are tried; no server needed."""

from pathlib import Path
from threading import Event

import pytest

from fediwarden.errors import Misconfigured, Refused, Unreached
from fediwarden.model import StoreName
from fediwarden.stores.credentials import s3_keys, ssh_login
from fediwarden.stores.open import open_keeper, open_reader
from fediwarden.stores.retry import Patience
from fediwarden.stores.url import StoreSettings, Target, TargetKind, endpoint_of, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/srv/media", Target(TargetKind.FOLDER, path="/srv/media")),
        ("media", Target(TargetKind.FOLDER, path="media")),
        ("file:///srv/a%20b", Target(TargetKind.FOLDER, path="/srv/a b")),
        ("s3://bucket", Target(TargetKind.S3, bucket="bucket")),
        ("s3://bucket/a/b%20", Target(TargetKind.S3, bucket="bucket", prefix="a/b%20/")),
        ("sftp://ann@host/srv", Target(TargetKind.SFTP, path="/srv", host="host", user="ann")),
        ("sftp://[::1]:2222/srv%3F", Target(TargetKind.SFTP, path="/srv?", host="::1", port=2222)),
        ("sftp://host/~/media", Target(TargetKind.SFTP, path="media", host="host")),
    ],
)
def test_a_store_is_named_by_a_path_or_a_url(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\0",
        "ssh://h/p",
        "http://minio:9000/b",
        "ftp://x/y",
        "ann@host:/srv",
        "s3://",
        "s3:///x",
        "s3://a",
        "file://host/x",
        "sftp:///srv",
        "sftp://a:secret@host/srv",
        "sftp://host:99999/x",
        "sftp://host/a?b",
        "sftp://host/a#b",
        "file:",
    ],
)
def test_a_wrong_name_is_refused_with_a_hint_and_without_its_secrets(text: str) -> None:
    if text == "file:":
        assert parse_target(text).kind is TargetKind.FOLDER
        return
    with pytest.raises(Misconfigured) as caught:
        parse_target(text)

    assert caught.value.hint
    assert "secret" not in str(caught.value)


def test_an_unencrypted_endpoint_must_be_asked_for_unless_it_is_this_machine() -> None:
    def settings(endpoint: str, *, allow: bool = False) -> StoreSettings:
        return StoreSettings(StoreName("x"), "s3://bucket", endpoint=endpoint, allow_http=allow)

    for endpoint in ("http://minio:9000", "minio:9000", "https://h/path", "ftp://h", "https://", "http://192.168.1.1"):
        with pytest.raises(Misconfigured):
            endpoint_of(settings(endpoint))
    assert endpoint_of(settings("http://minio:9000", allow=True)).port == 9000
    assert endpoint_of(settings("http://127.0.0.1:1")).tls is False
    assert endpoint_of(settings("")).host == "s3.us-east-1.amazonaws.com"


def test_a_credentials_file_that_everyone_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text('access_key_id = "a"\nsecret_access_key = "s3cr3t"\n')
    path.chmod(0o604)
    with pytest.raises(Misconfigured, match="every user"):
        s3_keys(path, {})
    path.chmod(0o640)
    assert s3_keys(path, {}).secret_access_key == "s3cr3t"
    assert "s3cr3t" not in repr(s3_keys(path, {}))


@pytest.mark.parametrize(
    "text",
    [
        "not toml s3cr3t",
        'access_key_id = "a"',
        'access_key_id = "a"\nsecret_access_key = 5',
        'access_key_id="a"\nsecret_access_key="s3cr3t"\nx="y"',
    ],
)
def test_a_wrong_credentials_file_is_named_without_its_secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(Misconfigured) as caught:
        s3_keys(path, {})

    assert "keys.toml" in str(caught.value)
    assert "s3cr3t" not in f"{caught.value} {caught.value.hint}"


def test_without_a_file_the_environment_is_asked() -> None:
    assert s3_keys(None, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}).access_key_id == "a"
    with pytest.raises(Misconfigured):
        s3_keys(None, {})
    assert ssh_login(None).key is None


def test_opening_a_store_opens_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text('access_key_id = "a"\nsecret_access_key = "b"\n')
    keys.chmod(0o600)
    for url in (f"{tmp_path}/not-there", "s3://not-there", "sftp://not-there.invalid/x"):
        settings = StoreSettings(StoreName("x"), url, credentials=keys if url.startswith("s3") else None)
        open_reader(settings, environment={}).close()


def test_a_bucket_without_keeper_credentials_cannot_be_acted_on(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text('access_key_id = "a"\nsecret_access_key = "b"\n')
    keys.chmod(0o600)

    with pytest.raises(Misconfigured, match="keeper"):
        open_keeper(StoreSettings(StoreName("x"), "s3://bucket", credentials=keys), environment={})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def failing(times: int, error: Exception) -> tuple[list[int], object]:
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return calls, call


def test_patience_waits_longer_each_time_and_ends() -> None:
    clock = Clock()
    patience = Patience(tries=5, base=1, cap=4, seconds=100, clock=clock, jitter=lambda: 1.0, sleep=clock.sleep)
    calls, call = failing(99, Unreached("busy"))

    with pytest.raises(Unreached, match="busy"):
        patience.run(call)  # type: ignore[arg-type]

    assert len(calls) == 5
    assert clock.pauses == [2, 4, 4, 4]


def test_patience_has_a_limit_in_time() -> None:
    clock = Clock()
    patience = Patience(tries=99, base=1, cap=10, seconds=12, clock=clock, jitter=lambda: 1.0, sleep=clock.sleep)
    calls, call = failing(99, Unreached("busy"))

    with pytest.raises(Unreached):
        patience.run(call)  # type: ignore[arg-type]

    assert clock.now <= 12
    assert len(calls) == 3


def test_patience_does_not_try_again_what_was_refused() -> None:
    calls, call = failing(99, Refused("no"))

    with pytest.raises(Refused):
        Patience(sleep=lambda seconds: None).run(call)  # type: ignore[arg-type]

    assert len(calls) == 1


def test_patience_ends_at_once_when_the_program_is_stopped() -> None:
    stop = Event()
    stop.set()
    calls, call = failing(99, Unreached("busy"))

    with pytest.raises(Unreached):
        Patience(stop=stop, base=1000, cap=1000, seconds=10000).run(call)  # type: ignore[arg-type]

    assert len(calls) == 1
