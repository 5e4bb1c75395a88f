"""The speech engine: SenseVoice and Whisper in yibu's own server."""

from yibu.engines.speech.engine import Speech

__all__ = ["Speech"]
