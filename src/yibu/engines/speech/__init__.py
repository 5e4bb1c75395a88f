"""The speech engine: SenseVoice and Whisper in yibu's own server."""

from yibu.engines.speech.engine import Speech

ENGINE = Speech

__all__ = ["ENGINE", "Speech"]
