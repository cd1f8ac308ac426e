"""Opens foreign bytes, in a cage; importing this loads no decoder and starts nothing (see `cage` for the outside of it)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fediwarden.media.cage import Cage, Peek
    from fediwarden.media.limits import Limits
    from fediwarden.media.wire import CODE_PREFIX, Report

__all__ = ["CODE_PREFIX", "Cage", "Limits", "Peek", "Report"]

_HOMES = {"Cage": "cage", "Peek": "cage", "Limits": "limits", "Report": "wire", "CODE_PREFIX": "wire"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"fediwarden.media.{_HOMES[name]}"), name)
