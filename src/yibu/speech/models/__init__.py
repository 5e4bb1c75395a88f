"""The recognizers: SenseVoice on its fast path and on FunASR's, and whisper."""
