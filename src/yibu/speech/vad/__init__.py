"""Voice activity detection and the segment rules over it."""
