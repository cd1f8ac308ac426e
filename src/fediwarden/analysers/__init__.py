"""Sources of evidence behind one interface: frames in, findings out. No threshold, no verdict and no store is in here."""

from fediwarden.analysers.condensing import condense

__all__ = ["condense"]
