"""The demonstration that `./run` shows: the whole road on a real S3 server, with benign media only; everything stays in one folder.

It runs the installed `fediwarden` command as an administrator would and looks at the bucket from outside, past the program,
to see that what it says is true.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.support.servers import S3Server, running_s3

from demo.pictures import Upload, drills, hostile, ordinary

BUCKET = "media"
MARK = "made-by-the-demonstration"  # a folder without this file is not ours to delete
FLAGGED, NOT_SCANNED = 1, 3  # exit codes that report something and are no failure


class Unexpected(Exception):
    """The demonstration saw something other than it should."""


class Demonstration:
    """The story, told step by step; every step checks what it claims."""

    def __init__(self, folder: Path, models: Path, server: S3Server) -> None:
        self.home = folder / "home"
        self.folder = folder
        self.models = models
        self.server = server
        self.stored: dict[str, bytes] = {}

    def tell(self) -> None:
        """All of it."""
        self.prepare()
        self.scan()
        suspects = self.look()
        self.apply(suspects)
        self.restore(suspects[0])
        self.scan_again()
        self.close()

    def prepare(self) -> None:
        """A configured installation and a filled bucket."""
        heading("A store to look at")
        talk("(making it takes some seconds)")
        self.fediwarden("init", "--profile", "other", quiet=True)
        shutil.copytree(self.models, self.home / "models")
        reader, keeper = self.server.credentials(self.home)
        with (self.home / "fediwarden.toml").open("a", encoding="utf-8") as file:
            file.write(
                f'\n[stores.{BUCKET}]\nurl = "s3://{BUCKET}"\nendpoint = "{self.server.endpoint}"\n'
                f'credentials = "{reader.name}"\nkeeper_credentials = "{keeper.name}"\n'
            )
        self.fediwarden("vault", "init", quiet=True)
        (self.home / "vault-keys").rename(self.folder / "private-keys")
        uploads = [*ordinary(), *hostile(), *drills(list(self.drill_pictures(4)))]
        client = self.server.client()
        client.send("PUT", BUCKET)
        client.close()
        for upload in uploads:
            self.put(upload)
        talk(
            f"A real S3 server (SeaweedFS, on this machine only) now holds {len(uploads)} objects: made-up pictures in every format, animations,",
            "videos, broken and hostile files, odd names, and 4 drill pictures in disguise. A drill picture is harmless; this",
            "installation alone recognises it and treats it as it would treat the real thing. Nothing abusive is used anywhere.",
        )

    def drill_pictures(self, count: int) -> Iterator[bytes]:
        """Fresh drill pictures of this installation."""
        for number in range(count):
            file = self.folder / f"drill-{number}.png"
            self.fediwarden("drill", "picture", str(file), quiet=True)
            yield file.read_bytes()
            file.unlink()

    def put(self, upload: Upload) -> None:
        """Upload as the fediverse server would."""
        self.server.put(BUCKET, upload.key, upload.data, content_type=upload.content_type)
        self.stored[upload.key] = upload.data

    def scan(self) -> None:
        """The first look at everything, with a key that may only read."""
        heading("Look at everything (a dry run, with a key that may only read)")
        self.fediwarden("scan", allowed=(FLAGGED,))
        counted = self.ask("status")
        check(
            counted["objects"] == len(self.stored), f"{counted['objects']} objects are known, {len(self.stored)} were put there"
        )
        check(all(self.at(key) == data for key, data in self.stored.items()), "the scan changed something in the bucket")

    def look(self) -> list[str]:
        """What an administrator would look at next; the keys of what is suspected."""
        heading("What was not scanned, and why")
        self.fediwarden("list", "--not-scanned")
        heading("What is suspected, and what a person should review")
        self.fediwarden("list", "--step", "quarantine")
        self.fediwarden("list", "--step", "review")
        suspects = [str(entry["key"]) for entry in self.ask_lines("list", "--step", "quarantine")]
        expected = [key for key in self.stored if key.startswith("drill/")]
        check(sorted(suspects) == sorted(expected), f"suspected are {suspects}, and should be {expected}")
        heading("Why one of them")
        self.fediwarden("explain", suspects[-1])
        heading("Names that attack a terminal are shown harmlessly")
        self.fediwarden("list", "--key", next(key for key in self.stored if not key.isprintable() and "[" in key))
        return suspects

    def apply(self, suspects: Sequence[str]) -> None:
        """Hide what is suspected, then look from outside."""
        heading("Hide what is suspected: sealed first, then out of the bucket")
        self.fediwarden("apply", "--yes")
        for key in suspects:
            check(self.at(key) is None, f"{key} is still in the bucket")
        others = {key: data for key, data in self.stored.items() if key not in suspects}
        check(all(self.at(key) == data for key, data in others.items()), "an object that was not suspected was touched")
        check(len(list((self.home / "vault-drill").rglob("*.age"))) >= len(suspects), "not everything hidden was sealed first")
        talk(
            f"Seen from outside: the {len(suspects)} suspected objects are gone from where they were, the other {len(others)} are untouched. An",
            "encrypted copy of each hidden one lies in the vault, which the scanning machine can write and not read: its two private",
            f"keys belong to two people elsewhere (here they were moved to {shown(self.folder / 'private-keys')}).",
        )

    def restore(self, key: str) -> None:
        """Put one object back and compare it with what was uploaded."""
        heading("Put one back")
        self.fediwarden("restore", key, "--because", "it was only a drill")
        back = self.at(key)
        check(back == self.stored[key], f"{key} came back changed")
        talk(
            f"Seen from outside: it is back, byte for byte (SHA-256 {sha256(back or b'').hexdigest()[:16]}... before and after)."
        )

    def scan_again(self) -> None:
        """A second scan costs a listing only, and a person's word stands."""
        heading("Scan again: only what is new is looked at")
        self.fediwarden("scan", allowed=(FLAGGED, NOT_SCANNED))
        heading("How things stand")
        self.fediwarden("status")

    def close(self) -> None:
        """The closing words."""
        counted = self.ask("status")
        check(counted["owed"] == 0 and counted["owed_drill"] == 0, "something is still owed")
        heading("What happened")
        talk(
            f"{len(self.stored)} objects were listed, and each was opened in a locked-down process. {counted['not_scanned']} of them could not be looked at, or not",
            "wholly: they are named above with the reason. That is neither clean nor guilty, and every surface shows it first.",
            "4 objects were suspected and hidden, none was destroyed, and one was put back as it had been. Everything is on record.",
        )
        heading("What to do next")
        home = shown(self.home)
        talk(
            "A dry run on your own store (changes nothing there):",
            "    ./run /srv/pictrs/files        or s3://bucket/prefix, or sftp://user@host/folder",
            "Then set up acting: fediwarden init, fediwarden vault init, fediwarden doctor (README.md, first hour).",
            f"Look around in what this left behind: FEDIWARDEN_HOME={home} .venv/bin/fediwarden list",
            f"The S3 server is stopped. Everything lies in {shown(self.folder)} and may be deleted.",
        )

    # --- tools ---------------------------------------------------------------------------------------------------

    def at(self, key: str) -> bytes | None:
        """What lies under a key in the bucket, asked with the server's own administrator key, past fediwarden."""
        return self.server.get(BUCKET, key)

    def fediwarden(self, *arguments: str, quiet: bool = False, allowed: Sequence[int] = ()) -> str:
        """Run one command and show it with its results, or only its failure when `quiet`.

        Raises: Unexpected for an exit code that is neither 0 nor `allowed`.
        """
        if not quiet:
            talk(f"$ fediwarden {' '.join(typed(argument) for argument in arguments)}")
        process = subprocess.Popen(
            [Path(sys.executable).with_name("fediwarden"), *arguments],
            env={name: value for name, value in os.environ.items() if not name.startswith("FEDIWARDEN_")}
            | {"FEDIWARDEN_HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if quiet else subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with process:
            if quiet:
                output, problem = process.communicate()
            else:
                assert process.stdout is not None
                output = problem = ""
                for line in process.stdout:
                    talk(f"  {line.rstrip()}")
                    output += line
        if process.returncode != 0 and process.returncode not in allowed:
            raise Unexpected(f"fediwarden {' '.join(arguments)} ended with exit code {process.returncode}: {problem or output}")
        return output

    def ask(self, *arguments: str) -> dict[str, object]:
        """The one JSON object a command answers with."""
        (answer,) = self.ask_lines(*arguments)
        return answer

    def ask_lines(self, *arguments: str) -> list[dict[str, object]]:
        """The JSON lines a command answers with."""
        return [json.loads(line) for line in self.fediwarden(*arguments, "--json", quiet=True).splitlines()]


def heading(text: str) -> None:
    """A line that says what comes now."""
    talk("", text, "-" * len(text))


def talk(*lines: str) -> None:
    """Print lines at once, so that they stand in order with what commands print."""
    print("\n".join(lines), flush=True)


def typed(argument: str) -> str:
    """An argument as it would be typed into a shell; what a terminal would obey is escaped."""
    return shlex.quote(argument) if argument.isprintable() else f"$'{argument.encode('unicode_escape').decode()}'"


def shown(path: Path) -> str:
    """A path as seen from here."""
    return os.path.relpath(path)


def check(holds: bool, otherwise: str) -> None:
    """Raises: Unexpected, when a claim does not hold."""
    if not holds:
        raise Unexpected(otherwise)


def fresh(folder: Path) -> Path:
    """An empty folder; an earlier demonstration in it is deleted, anything else is not."""
    if folder.exists() and not (folder / MARK).exists() and any(folder.iterdir()):
        raise Unexpected(f"{folder} holds something that no demonstration made; move it away or name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    (folder / MARK).touch()
    return folder.absolute()


def main() -> int:
    """Show it; 0 if everything was as it should be."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("folder", type=Path, help="where everything is kept; an earlier demonstration there is deleted")
    parser.add_argument("--models", type=Path, required=True, help="the folder of installed models")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        folder = fresh(chosen.folder)
        with running_s3(folder / "server") as server:
            Demonstration(folder, chosen.models, server).tell()
    except Unexpected as error:
        print(f"the demonstration failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End as after Ctrl-C, with the server stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
