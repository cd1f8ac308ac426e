"""What the servers of the fediverse really send and answer, each in a room of its own; decides and records nothing."""
