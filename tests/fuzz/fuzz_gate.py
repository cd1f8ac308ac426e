"""Throws broken and hostile requests at a running gate for as long as told: `python -m tests.fuzz.fuzz_gate --seconds 600`.

Raw bytes over TCP, so that nothing is tidied up on the way: heads with wrong lengths, chunks that lie, bodies that stop or
trickle, forms whole and damaged, pictures under wrong types. Every answer must be one of ours, in time; the gate must still answer at the
end, know of every pass, and have written no file outside the folder of its home. The same number brings the same request again
(`--number N`).
"""

# ruff: noqa: T201 - its output is for whoever runs it

import argparse
import itertools
import random
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from bench.gate import a_home
from tests.support import media_makers as make
from tests.support.gate_process import GateProcess, running_gate
from tests.unit.media.test_any_bytes import mutate

DEADLINE = 2.0  # seconds of the gate that is fuzzed
SLACK = 8.0  # on top of it: a silent connection, draining, and this machine's other work
ALLOWED = {200, 400, 404, 406}  # 400: it was no HTTP
TYPES = [
    "image/png",
    "image/jpeg",
    "image/webp",
    "video/mp4",
    "",
    "multipart/form-data; boundary=x",
    "text/html",
    "image/" + "x" * 300,
    "é",
]
METHODS = ["POST"] * 12 + ["GET", "PUT", "HEAD", "OPTIONS", "TRACE", "BREW", "post"]


def request(number: int, secret: str, seeds: dict[str, bytes]) -> tuple[list[bytes], float]:
    """The pieces of one request, and the pause between them."""
    chance = random.Random(number)
    body = b"" if chance.random() < 0.1 else mutate(chance.choice(list(seeds.values())), number)[:300_000]
    known = (
        secret if chance.random() < 0.8 else chance.choice(["wrong", "IPADDR", "", "%00", "..%2f" * 20, "x" * 9000, secret[:-1]])
    )
    path = chance.choice(["/validate/", "/api/v1/scan/", "/healthz", "/", "//validate/", "/validate/../validate/", "*"])
    lines = [
        f"{chance.choice(METHODS)} {path}{known}{chance.choice(['', '', '', '?', '?a=%ff', '#x', '/'])} HTTP/1.{chance.choice('1110')}"
    ]
    lines += ["Host: gate"] if chance.random() < 0.95 else []
    if chance.random() < 0.4:
        body, types = a_form(chance, body)
        lines += [f"Content-Type: {one}" for one in types]
    else:
        lines += [f"Content-Type: {chance.choice(TYPES)}"] if chance.random() < 0.9 else []
    if chance.random() < 0.03:
        lines.append(
            f"Content-{chance.choice(['Encoding: gzip', 'Encoding: identity', 'Range: bytes 0-1/2', 'Transfer-Encoding: base64'])}"
        )
    if chance.random() < 0.1:
        lines.append(
            f"{chance.choice(['X-Forwarded-For', 'Upgrade', 'Expect', 'Cookie', 'Range'])}: {chance.choice(['127.0.0.1', 'websocket', '100-continue', 'h2c'])}"
        )
    match chance.randrange(8):
        case 0:
            lines.append(f"Content-Length: {chance.choice([len(body) + 5, max(0, len(body) - 5), -1, 2**63, 'x'])}")
            sent = body
        case 1:
            lines += [f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"]
            sent = body
        case 2 | 3:
            lines.append("Transfer-Encoding: chunked")
            sent = b"%x\r\n%b\r\n" % (len(body) + chance.choice([0, 0, 1, -1]), body) + chance.choice(
                [b"0\r\n\r\n", b"", b"zz\r\n"]
            )
        case _:
            lines.append(f"Content-Length: {len(body)}")
            sent = body
    data = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + sent
    if chance.random() < 0.1:  # any byte of it
        spot = chance.randrange(min(len(data), 400))
        data = data[:spot] + bytes([chance.randrange(256)]) + data[spot + 1 :]
    if chance.random() < 0.1:  # hang up in the middle
        data = data[: chance.randrange(len(data))]
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice([0, 0, 1, 5])))
    pieces = [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)])]
    return pieces, chance.choice([0.0, 0.0, 0.01, 0.5])


def a_form(chance: random.Random, data: bytes) -> tuple[bytes, list[str]]:
    """A form that holds the bytes, and its Content-Type lines; half of all are damaged in one or several ways."""
    boundary = "".join(chance.choices("0123456789abcdef-", k=chance.choice([1, 67, 70, 71])))
    head = [
        chance.choice(
            ["Content-Disposition: form-data; name*=utf-8''01%2Fa2.jpeg", 'Content-Disposition: form-data; name="file"']
        )
    ]
    types = ["image/jpeg", f"multipart/form-data; boundary={boundary}"]
    before = after = between = ""
    while chance.random() < 0.5:
        match chance.randrange(9):
            case 0:
                before = chance.choice(["\r\n", "preamble\r\n", f"--{boundary}--\r\n"])
            case 1:
                after = chance.choice(["x", "\r\n\r\n", f"--{boundary}\r\n\r\nx\r\n--{boundary}--"])
            case 2:
                between = chance.choice(
                    [f"\r\n--{boundary}\r\n{chr(13).join(head)}\r\n\r\n", f"\n--{boundary}\n", f"--{boundary}"]
                )
            case 3:
                head += chance.choice(
                    [["Content-Transfer-Encoding: base64"], ["Content-Type: multipart/mixed; boundary=y"], head, [" folded"]]
                )
            case 4:
                head = chance.choice(
                    [[], ["Content-Disposition: form-data"], ["X" * 9000 + ": y"], ['Content-Disposition: form-data; name="x']]
                )
            case 5:
                types = chance.choice([types[::-1], types[1:], types[:1], [", ".join(types)], [*types, "image/png"], types * 2])
            case 6:
                types = [f"multipart/form-data; boundary*=utf-8''{boundary}", *types][: chance.choice([1, 3])]
            case 7:
                types[-1] = f'multipart/form-data; boundary="{boundary}{chance.choice(["", " ", chr(34)])}"'
            case _:
                data = data[: chance.randrange(len(data) + 1)]
    spot = chance.randrange(len(data) + 1)
    lines = "".join(f"{line}\r\n" for line in head)
    body = f"{before}--{boundary}\r\n{lines}\r\n".encode() + data[:spot] + between.encode() + data[spot:]
    return body + f"\r\n--{boundary}--{chance.choice(['', chr(13) + chr(10)])}{after}".encode(), types


def sent(gate: GateProcess, pieces: list[bytes], pause: float) -> tuple[int, float]:
    """The status of the answer, 0 where the connection was closed without one, and the seconds it took."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", gate.port), timeout=DEADLINE + SLACK + pause * len(pieces)) as connection:
        with suppress(OSError):  # it may have answered and closed already
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionResetError):
            while more := connection.recv(65536):
                answer += more
    found = re.match(rb"HTTP/1\.[01] (\d+)", answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").lstrip())
    return int(found[1]) if found else 0, time.monotonic() - begun - pause * len(pieces)


def main() -> int:
    """0 when every request got an answer of ours, or none where it was none, in time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--number", type=int, default=0, help="of the first request")
    options = parser.parse_args()
    counts: Counter[int] = Counter()
    failed: list[str] = []
    lock = threading.Lock()
    numbers = itertools.count(options.number)
    seeds = make.gallery()
    before = set(Path(tempfile.gettempdir()).iterdir())
    with a_home() as home, running_gate(home, deadline_seconds=DEADLINE) as gate:
        secret = urlsplit(gate.url).path.rpartition("/")[2]
        end = time.monotonic() + options.seconds

        def work() -> None:
            while time.monotonic() < end:
                number = next(numbers)
                try:
                    status, took = sent(gate, *request(number, secret, seeds))
                except OSError as error:
                    failed.append(f"--number {number}: {type(error).__name__}")
                    continue
                with lock:
                    counts[status] += 1
                    if status not in ALLOWED | {0} or took > DEADLINE + SLACK:
                        failed.append(f"--number {number}: {status} after {took:.1f} s")

        with ThreadPoolExecutor(options.threads) as pool:
            for done in [pool.submit(work) for _ in range(options.threads)]:
                done.result()
        if not gate.answers():
            failed.append("the gate does not answer any more")
        log = (home.folder / "fediwarden.log").read_text().splitlines()
        failed += [line[:500] for line in log if not line.startswith("{") or '"level": "error"' in line][:10]
        left = {path for path in set(Path(tempfile.gettempdir()).iterdir()) - before if path not in home.folder.parents}
    print(f"{sum(counts.values())} requests:", ", ".join(f"{n} x {status or 'closed'}" for status, n in counts.most_common()))
    print("new in the folder for temporary files:", ", ".join(sorted(map(str, left))) or "nothing")
    for what in failed[:50]:
        print(what)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
