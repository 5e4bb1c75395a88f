"""Trains the tiny SenseVoice that the speech tests use, and packs it.

    OMP_NUM_THREADS=1 python scripts/make_speech_fixture.py tests/speech/fixture

It is a model of FunASR's own class, three and one layers of 96, which reads digits and
commands in English and Chinese as espeak-ng speaks them. The directory it is packed from has
FunASR's layout. Labels are given frame by frame from the marks of the synthesis: a word's
pieces share its frames, all else is blank, so the times of its words can be held against the
marks. Needs torch, funasr, scipy and the espeak-ng program; about ten minutes on one core.

Two runs on one machine write the same archive to the byte. Beside it stands training.json: what
it was made with, its hash, and how often the model errs on speakers that it never heard. Other
versions or another processor round differently: compare the errors then, not the bytes.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import platform
import subprocess
import tarfile
import tempfile
import time
import wave
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import fixture_speech as speech
import numpy as np
import sentencepiece_file
import torch
import yaml
from funasr.models.sense_voice.model import SenseVoiceSmall

from yibu.speech.features import Normalizer, fbank, stack_frames

CLASSES = 25_055
IGNORED = -100
TAGS = {
    "<|zh|>": 24884, "<|en|>": 24885, "<|yue|>": 24888, "<|ja|>": 24892, "<|ko|>": 24896,
    "<|nospeech|>": 24992, "<|Speech|>": 24993, "<|BGM|>": 24995, "<|HAPPY|>": 25001,
    "<|SAD|>": 25002, "<|ANGRY|>": 25003, "<|NEUTRAL|>": 25004, "<|EMO_UNKNOWN|>": 25009,
    "<|withitn|>": 25016, "<|woitn|>": 25017, "<|Event_UNK|>": 25019,
}  # fmt: skip
QUERIES = {"auto": 0, "zh": 3, "en": 4, "withitn": 14, "woitn": 15}
STOPS = {"en": ".", "zh": "。"}
UNHEARD_VARIANTS = ("+m7", "+f4", "+croak")
"""Ways of speaking that ``fixture_speech`` never draws."""
CONFIG = {
    "model": "SenseVoiceSmall",
    "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
    "encoder": "SenseVoiceEncoderSmall",
    "encoder_conf": {
        "output_size": 96, "attention_heads": 4, "linear_units": 192, "num_blocks": 3,
        "tp_blocks": 1, "dropout_rate": 0.1, "attention_dropout_rate": 0.1,
        "input_layer": "pe", "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True, "kernel_size": 11, "sanm_shfit": 0,
        "selfattention_layer_type": "sanm",
    },
    "tokenizer": "SentencepiecesTokenizer",
    "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
    "frontend": "WavFrontend",
    "frontend_conf": {
        "fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10,
        "lfr_m": 7, "lfr_n": 6, "dither": 0.0, "cmvn_file": None,
    },
}  # fmt: skip
CONFIGURATION = {
    "framework": "pytorch",
    "task": "auto-speech-recognition",
    "model": {"type": "funasr"},
    "file_path_metas": {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"bpemodel": "chn_jpn_yue_eng_ko_spectok.bpe.model"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    },
}


def vocabulary() -> list[str]:
    """25,055 pieces: the words' own from 3 on, the tags where FunASR's class expects them."""
    own = [piece for words in speech.VOCABULARY.values() for w in words.values() for piece in w]
    pieces = ["<unk>", "<s>", "</s>", *dict.fromkeys(own + list(STOPS.values()))]
    pieces += [f"unused{n}" for n in range(len(pieces), CLASSES)]
    for tag, number in TAGS.items():
        pieces[number] = tag
    return pieces


class Examples:
    """Turns utterances into frames, queries and labels."""

    def __init__(self, pieces: list[str]) -> None:
        self._number = {piece: n for n, piece in enumerate(pieces)}
        self._synthesizer = speech.Synthesizer()

    def utterance(
        self,
        language: str,
        rng: np.random.Generator,
        *,
        held_out: bool,
        variants: tuple[str, ...] = (),
    ) -> speech.Utterance:
        speaker = speech.Speaker.draw(language, rng, held_out=held_out)
        if variants:
            voice = speaker.voice.split("+")[0] + str(rng.choice(variants))
            speaker = replace(speaker, voice=voice)
        words = list(speech.VOCABULARY[language])
        chosen = [str(word) for word in rng.choice(words, size=rng.integers(1, 9))]
        return self._synthesizer.utterance(speaker, chosen, rng, noise=True)

    def labels(self, said: speech.Utterance, frames: int, *, itn: bool, rng) -> list[int]:
        """The four tags, then a piece or blank (0) for each stacked frame of 60 ms."""
        language = said.speaker.language
        # Middle voices are mostly of unknown emotion, which the script bans: the ban shows.
        emotion = "EMO_UNKNOWN" if rng.random() < 0.75 else "NEUTRAL"
        if said.speaker.pitch != 50:
            emotion = "HAPPY" if said.speaker.pitch > 50 else "SAD"
        tags = [language, emotion, "Speech", "withitn" if itn else "woitn"]
        labels = [0] * frames
        for mark in said.marks:
            pieces = speech.VOCABULARY[language][mark.word]
            self._fill(labels, pieces, mark.start, mark.end)
        if itn:
            end = said.marks[-1].end
            self._fill(labels, [STOPS[language]], end + 0.03, end + 0.15)
        return [self._number[f"<|{tag}|>"] for tag in tags] + labels

    def _fill(self, labels: list[int], pieces: list[str], start: float, end: float) -> None:
        edges = np.linspace(start, end, len(pieces) + 1)
        for frame in range(len(labels)):
            centre = frame * 0.06 + 0.0125
            if edges[0] <= centre < edges[-1]:
                piece = pieces[int(np.searchsorted(edges, centre, side="right")) - 1]
                labels[frame] = self._number[piece]


def build_model() -> SenseVoiceSmall:
    return SenseVoiceSmall(
        encoder=CONFIG["encoder"],
        encoder_conf=CONFIG["encoder_conf"],
        input_size=560,
        vocab_size=CLASSES,
        **CONFIG["model_conf"],
    )


@dataclass(frozen=True)
class Example:
    frames: np.ndarray
    """Stacked filter bank [T, 560]."""
    queries: list[int]
    labels: list[int]
    """Four tags and T classes."""


def draw(examples: Examples, rng: np.random.Generator) -> Example:
    """A training example."""
    language = str(rng.choice(("en", "zh")))
    said = examples.utterance(language, rng, held_out=False)
    # Segments begin on any frame: without this the model learns one phase of the stacking.
    shift = int(rng.integers(0, 6)) * 160
    marks = [speech.Mark(m.word, m.start - shift / 16e3, m.end - shift / 16e3) for m in said.marks]
    said = speech.Utterance(said.speaker, said.samples[shift:], marks)
    frames = stack_frames(fbank(said.samples), 7, 6)
    itn = bool(rng.random() < 0.5)
    asked = QUERIES[language if rng.random() < 0.4 else "auto"]
    queries = [asked, 1, 2, QUERIES["withitn" if itn else "woitn"]]
    return Example(frames, queries, examples.labels(said, len(frames), itn=itn, rng=rng))


def train(
    material: list[Example], used: list[int], steps: int, rng: np.random.Generator
) -> tuple[SenseVoiceSmall, Normalizer]:
    """A model whose head has trained rows for the classes in ``used`` alone."""
    frames = np.concatenate([example.frames for example in material])
    normalizer = Normalizer(-frames.mean(axis=0), 1 / frames.std(axis=0))
    model = build_model()
    head = torch.nn.Linear(96, len(used))
    column = torch.full((CLASSES,), IGNORED)
    column[used] = torch.arange(len(used))
    encoder_parameters = [p for n, p in model.named_parameters() if not n.startswith("ctc.")]
    optimizer = torch.optim.AdamW([*encoder_parameters, *head.parameters()], 2e-3, (0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.15)
    began = time.monotonic()
    model.train()
    for step in range(steps):
        chosen = [material[n] for n in rng.integers(0, len(material), 16)]
        hidden, targets = forward(model, chosen, normalizer)
        loss = torch.nn.functional.cross_entropy(
            head(hidden).flatten(0, 1),
            torch.where(targets >= 0, column[targets], IGNORED).flatten(),
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder_parameters, 5.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"{step} {loss.item():.3f} {time.monotonic() - began:.0f} s", flush=True)
    with torch.no_grad():
        model.ctc.ctc_lo.weight.zero_()
        model.ctc.ctc_lo.bias.fill_(-30.0)
        model.ctc.ctc_lo.weight[used] = head.weight
        model.ctc.ctc_lo.bias[used] = head.bias
    return model.eval(), normalizer


def forward(
    model: SenseVoiceSmall, examples: list[Example], normalizer: Normalizer
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and labels of a batch, [len(examples), T]; padding is ignored."""
    longest = max(len(example.frames) for example in examples)
    inputs = torch.zeros(len(examples), longest, 560)
    targets = torch.full((len(examples), longest + 4), IGNORED)
    for n, example in enumerate(examples):
        inputs[n, : len(example.frames)] = torch.from_numpy(normalizer(example.frames))
        targets[n, : len(example.labels)] = torch.tensor(example.labels)
    queries = model.embed(torch.tensor([example.queries for example in examples]))
    lengths = torch.tensor([len(example.labels) for example in examples])
    hidden, _ = model.encoder(torch.cat((queries, inputs), dim=1), lengths)
    return hidden, targets


@dataclass(frozen=True)
class Errors:
    """How a model did on utterances that it was not trained on."""

    pieces: int
    """How many were spoken; a piece is a Chinese character or a part of an English word."""
    wrong: int
    """The least number of pieces to be put in, taken out or exchanged."""

    @classmethod
    def count(
        cls,
        model: SenseVoiceSmall,
        normalizer: Normalizer,
        examples: Examples,
        vocabulary: list[str],
        utterances: int,
        variants: tuple[str, ...] = (),
    ) -> Errors:
        rng = np.random.default_rng(8)
        spoken = wrong = 0
        for n in range(utterances):
            language = "en" if n % 2 == 0 else "zh"
            said = examples.utterance(language, rng, held_out=True, variants=variants)
            pieces = [p for mark in said.marks for p in speech.VOCABULARY[language][mark.word]]
            frames = stack_frames(fbank(said.samples), 7, 6)
            queries = [QUERIES["auto"], 1, 2, QUERIES["woitn"]]
            example = Example(frames, queries, [0] * (4 + len(frames)))
            with torch.no_grad():
                hidden, _ = forward(model, [example], normalizer)
                best = model.ctc.ctc_lo(hidden)[0, 4:].argmax(dim=1).tolist()
            heard = [
                vocabulary[number]
                for number, before in zip(best, [0, *best], strict=False)
                if number not in (0, before)
            ]
            spoken += len(pieces)
            wrong += distance(pieces, heard)
        return cls(spoken, wrong)


def distance(expected: list[str], found: list[str]) -> int:
    """Levenshtein's."""
    row = list(range(len(found) + 1))
    for n, piece in enumerate(expected, 1):
        above, row[0] = row[0], n
        for m, other in enumerate(found, 1):
            above, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, above + (piece != other))
    return row[-1]


def rounded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With 11 bits of mantissa: float32 as before, and half the size once compressed."""
    return {name: tensor.half().float().contiguous() for name, tensor in state.items()}


def write_mvn(path: Path, normalizer: Normalizer) -> None:
    size = normalizer.size
    shift = " ".join(f"{value:.6g}" for value in normalizer.shift)
    scale = " ".join(f"{value:.6g}" for value in normalizer.scale)
    path.write_text(
        f"<Nnet>\n<Splice> {size} {size}\n[ 0 ]\n<AddShift> {size} {size}\n"
        f"<LearnRateCoef> 0 [ {shift} ]\n<Rescale> {size} {size}\n"
        f"<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )


def write_clips(directory: Path, examples: Examples, rng: np.random.Generator) -> None:
    """Held-out speakers, with what they say and when, for the tests."""
    directory.mkdir()
    listing = []
    for n in range(8):
        said = examples.utterance("en" if n % 2 == 0 else "zh", rng, held_out=True)
        name = f"{n}-{said.speaker.language}.wav"
        with wave.open(str(directory / name), "wb") as file:
            file.setparams((1, 2, speech.RATE, 0, "NONE", ""))
            file.writeframes((np.clip(said.samples, -1, 1) * 32767).astype("<i2").tobytes())
        marks = [[m.word, round(m.start, 4), round(m.end, 4)] for m in said.marks]
        listing.append({"file": name, "language": said.speaker.language, "marks": marks})
    (directory / "clips.json").write_text(json.dumps(listing, ensure_ascii=False, indent=1))


def pack(directory: Path, archive: Path) -> None:
    """Write ``directory`` to ``archive`` with nothing of the machine or the day in it."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    with tarfile.open(archive, "w:xz", preset=9) as tar:
        tar.add(directory, arcname="sensevoice", filter=plain)


def made_with() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "funasr", "numpy", "scipy")}
    espeak = subprocess.run(["espeak-ng", "--version"], check=True, capture_output=True, text=True)
    number = espeak.stdout.split("Data at")[0].split(":")[1].strip()
    return {"python": platform.python_version(), **packages, "espeak-ng": number}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="where sensevoice.tar.xz and training.json go")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--examples", type=int, default=1500)
    parser.add_argument("--held-out", type=int, default=60, help="utterances to test it with")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    pieces = vocabulary()
    used = [n for n, piece in enumerate(pieces) if not piece.startswith(("unused", "<s>", "</s>"))]
    examples = Examples(pieces)
    material = [draw(examples, rng) for _ in range(arguments.examples)]
    model, normalizer = train(material, used, arguments.steps, rng)
    weights = rounded(copy.deepcopy(model.state_dict()))
    model.load_state_dict(weights)
    tested = (model, normalizer, examples, pieces, arguments.held_out)
    errors = {
        "unheard pitches and speed": Errors.count(*tested),
        "unheard voices": Errors.count(*tested, UNHEARD_VARIANTS),
    }
    archive = arguments.out / "sensevoice.tar.xz"
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "sensevoice"
        directory.mkdir()
        torch.save(weights, directory / "model.pt")
        write_mvn(directory / "am.mvn", normalizer)
        sentencepiece_file.write(directory / "chn_jpn_yue_eng_ko_spectok.bpe.model", pieces)
        (directory / "config.yaml").write_text(yaml.safe_dump(CONFIG, allow_unicode=True))
        (directory / "configuration.json").write_text(json.dumps(CONFIGURATION, indent=1))
        write_clips(directory / "clips", examples, np.random.default_rng(7))
        arguments.out.mkdir(parents=True, exist_ok=True)
        pack(directory, archive)
    record = {
        "examples": arguments.examples,
        "steps": arguments.steps,
        "made with": made_with(),
        "errors": {kind: asdict(counted) for kind, counted in errors.items()},
        "bytes": archive.stat().st_size,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    (arguments.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
