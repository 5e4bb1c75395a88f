"""Bringing one engine up, and taking it down again with all that it left."""
