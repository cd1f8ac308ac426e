"""Watching for good: new objects by the cheapest signal of each store, sweeps that prove nothing was missed, and saying so when blind.

It looks, and records what was seen; it acts only where the operator allowed that. Importing it starts and opens nothing.
"""
