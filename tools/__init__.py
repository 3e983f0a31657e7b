"""Views of a live system and drivers: the `tickpath` command."""
