"""Voice activity detection: where speech begins and ends in a file."""
