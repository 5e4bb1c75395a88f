"""``python -m yibu.launchers.speak TEXT FILE``: write TEXT, spoken, to a WAV file.

The demo speaks with it, so that its speech model has something to hear. Runs in an environment of
its own.
"""

from __future__ import annotations

import sys
import wave

_RATE = 24_000
"""Hz, as the synthesiser gives it."""


def main() -> None:
    import numpy as np
    from hibari import Hibari

    text, path = sys.argv[1:]
    samples = np.asarray(Hibari()(text), np.float32)
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    main()
