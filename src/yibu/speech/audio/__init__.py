"""Decoding uploads to 16 kHz mono: containers, tracks, time, and what a request says of them."""
