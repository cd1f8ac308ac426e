"""Each library belongs to a few rooms, and only they may import it, in whatever file; only who acts may hold a keeper."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
LIBRARIES = {  # whose it is; a library that is not here belongs to nobody
    "PIL": {"media", "analysers"},
    "alembic": {"ledger"},
    "asyncssh": {"stores"},
    "av": {"media"},
    "ctypes": {"inference.folder", "media", "stores.files"},
    "fastapi": {"gate"},
    "httpx2": {"inference", "platforms", "stores", "watch"},
    "numpy": {"analysers", "inference", "media"},
    "onnx": {"inference"},
    "onnxruntime": {"inference"},
    "open_clip": {"inference.build"},
    "prometheus_client": {"watch"},
    "psycopg": {"platforms"},
    "pydantic": {"config"},
    "pyrage": {"vault"},
    "rich": {"cli"},
    "safetensors": {"inference.build"},
    "sqlalchemy": {"ledger"},
    "sqlite3": {"ledger", "legacy"},
    "starlette": {"gate"},
    "structlog": {"acting", "app", "gate", "inference", "pipeline", "watch"},
    "subprocess": {"cli.bench", "inference.registry", "media.cage"},
    "timm": {"inference.build"},
    "tokenizers": {"inference.build"},
    "torch": {"inference.build"},
    "typer": {"cli"},
    "uvicorn": {"gate"},
    "watchfiles": {"watch"},
    "zxingcpp": {"media", "analysers"},
}
KEEPERS = {"acting", "app", "drill", "maintenance", "stores"}  # who may hold what changes a store


def is_of(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"fediwarden.{room}.")


def strangers(graph: grimp.ImportGraph) -> list[str]:
    """What imports a library that is not its own, as "module: library"."""
    guarded = {module for module in graph.modules if not module.startswith("fediwarden")}
    guarded -= sys.stdlib_module_names - LIBRARIES.keys()
    return sorted(
        f"{module}: {library}"
        for library in guarded
        for module in graph.find_modules_that_directly_import(library)
        if not any(is_of(module, room) for room in LIBRARIES.get(library, ()))
    )


def holders() -> Iterator[str]:
    """Every module that names `Keeper`."""
    for path in SOURCE.rglob("*.py"):
        if any(
            isinstance(node, ast.Name) and node.id == "Keeper" for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        ):
            yield ".".join(path.relative_to(SOURCE).with_suffix("").parts)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("fediwarden", include_external_packages=True, cache_dir=None)


def test_a_library_is_imported_by_its_own_rooms_only(graph: grimp.ImportGraph) -> None:
    assert strangers(graph) == []


def test_every_library_that_has_a_room_is_imported_there(graph: grimp.ImportGraph) -> None:
    unused = {
        f"{library} in {room}"
        for library, rooms in LIBRARIES.items()
        for room in rooms
        if not any(is_of(module, room) for module in graph.find_modules_that_directly_import(library))
    }

    assert unused == set()


def test_a_forbidden_import_is_met_in_every_room(tmp_path: Path) -> None:
    """In a copy: each room gets a file that imports every library."""
    copy = tmp_path / "fediwarden"
    shutil.copytree(SOURCE / "fediwarden", copy, ignore=shutil.ignore_patterns("__pycache__", "data"))
    rooms = sorted(path.parent for path in copy.glob("*/__init__.py"))
    for room in (copy, *rooms):
        (room / "intruder.py").write_text("".join(f"import {library}\n" for library in LIBRARIES))
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "from tests.unit.test_contracts import *; print(*strangers(grimp.build_graph('fediwarden', "
            "include_external_packages=True, cache_dir=None)), sep='\\n')",
        ],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()

    for room in rooms:
        own = {library for library, owners in LIBRARIES.items() if room.name in owners}  # an owner may be one file: not this one
        assert {
            line.partition(": ")[2] for line in found if line.startswith(f"fediwarden.{room.name}.intruder:")
        } == LIBRARIES.keys() - own
    assert {line.partition(": ")[2] for line in found if line.startswith("fediwarden.intruder:")} == LIBRARIES.keys()


def test_only_who_acts_holds_a_keeper() -> None:
    assert [module for module in holders() if not any(is_of(module, room) for room in KEEPERS)] == []


def test_a_class_name_stands_for_one_thing() -> None:
    named: dict[str, list[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                named.setdefault(node.name, []).append(str(path.relative_to(SOURCE)))

    assert {name: files for name, files in named.items() if len(files) > 1} == {}
