"""A stand-in for torchvision, which open_clip and timm import and the comparison never uses: its wheels want another PyTorch."""

import importlib.machinery
import sys
from types import ModuleType
from typing import Any

_MODULES = (
    "torchvision",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "torchvision.datasets",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.io",
)


class _Any(type):
    """A class that has every attribute that is asked for, by its name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Module(ModuleType):
    """Has every name that is asked for, as a class without content."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Any(name, (), {})
        setattr(self, name, made)
        return made


def put() -> None:
    """Put it in place where the real one is missing or does not import."""
    try:
        import torchvision  # noqa: F401
    except Exception:  # noqa: BLE001 - it fails with RuntimeError, OSError or ImportError, by its build
        for name in _MODULES:
            module = _Module(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
            module.__path__ = []
            module.__version__ = "0"  # type: ignore[attr-defined]  # a stand-in may have any
            sys.modules[name] = module
            above, _, last = name.rpartition(".")
            if above:
                setattr(sys.modules[above], last, module)
