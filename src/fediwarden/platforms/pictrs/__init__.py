"""pict-rs 0.4 and 0.5: its HTTP API, the hashes it names contents by, and its PostgreSQL repository, read only."""
