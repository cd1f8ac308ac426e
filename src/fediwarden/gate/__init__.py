"""HTTP in front of uploads: every one is answered in time, and what passes unscanned is on record; serves no page."""
