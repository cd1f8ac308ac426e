"""Lemmy 0.19 and 1.0: who is behind an image, by SQL or API, and what can be done about it."""
