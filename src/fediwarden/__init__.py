"""Fediwarden guards the media storage of fediverse servers; importing it does nothing at all."""

__version__ = "0.1.0"
