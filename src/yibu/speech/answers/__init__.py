"""Answers: formats, subtitles, languages, and sending them."""
