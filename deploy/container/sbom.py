"""Lists what an image is made of as CycloneDX 1.5 JSON on standard output: Python packages with their hashes, Debian packages with versions."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^ \\;]+)")


def hashes_of(folder: Path) -> dict[tuple[str, str], list[str]]:
    """The hashes that the locks allow, by normal name and version."""
    found: dict[tuple[str, str], list[str]] = {}
    for lock in sorted(folder.glob("*.lock")):
        current: list[str] = []
        for line in lock.read_text(encoding="utf-8").splitlines():
            if head := LOCKED.match(line):
                current = found.setdefault((normal(head[1]), head[2]), [])
            current += re.findall(r"--hash=sha256:([0-9a-f]{64})", line)
    return found


def normal(name: str) -> str:
    """A package's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def python_packages(hashes: Mapping[tuple[str, str], list[str]]) -> Iterator[dict[str, Any]]:
    """Every installed distribution of this environment."""
    for one in sorted(metadata.distributions(), key=lambda found: normal(found.name)):
        name = normal(one.name)
        about = one.metadata
        licence = about.get("License-Expression") or about.get("License") or ""
        component: dict[str, Any] = {
            "type": "library",
            "name": name,
            "version": one.version,
            "purl": f"pkg:pypi/{name}@{quote(one.version)}",
        }
        if licence and "\n" not in licence and len(licence) < 100:
            component["licenses"] = [{"license": {"name": licence}}]
        if allowed := hashes.get((name, one.version)):
            # one of them is the file that was installed: pip took no other
            component["properties"] = [{"name": "fediwarden:sha256-allowed", "value": value} for value in dict.fromkeys(allowed)]
        yield component


def debian_packages() -> Iterator[dict[str, Any]]:
    """Every installed Debian package, where there is a dpkg."""
    try:
        listed = subprocess.run(
            ["/usr/bin/dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\n"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except OSError:
        return
    for line in listed.splitlines():
        name, version, machine = line.split("\t")
        yield {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={machine}",
        }


def main() -> None:
    """Print the list."""
    own = metadata.version("fediwarden")
    packages = python_packages(hashes_of(Path(__file__).with_name("requirements")))
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "name": "fediwarden", "version": own, "bom-ref": f"fediwarden@{own}"},
        },
        "components": [*packages, *debian_packages()],
    }
    json.dump(content, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
