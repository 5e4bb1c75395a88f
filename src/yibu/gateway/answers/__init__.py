"""Engines' answers, normalized to what the APIs promise. Pure: bytes and objects in and out."""
