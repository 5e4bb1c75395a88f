"""What the fast path keeps in memory, against the weights; and where the rest lies."""

from __future__ import annotations

import ctypes
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("openvino")

from yibu.speech.models.parked import ALIGNMENT, ParkedArrays  # noqa: E402
from yibu.speech.precision import INT8_PRODUCTS, cpu_flags  # noqa: E402

MIB = 1 << 20
SMALL_DISK = Path("/dev/shm")
LAYERS = 24
FIXED = 84
"""MiB for the graph, and for activations and scores, which do not grow with the weights."""

MOST_GROWTH = 12
"""MiB. With oneDNN's own cache as large as it is by default, 30 lengths add some 20 (fp32)
and 50 (int8)."""

RANDOM_MODEL = """
import mmap, sys
from pathlib import Path
import numpy as np
import yibu.speech.models.openvino_encoder as encoder
from yibu.speech.allocator import give_back
from yibu.speech.models.sanm_shape import EncoderShape
from yibu.speech.checkpoints.pytorch import Checkpoint

def anonymous():
    give_back()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

precision, layers, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
shapes = {"embed.weight": (16, 560), "ctc.ctc_lo.weight": (4000, 512), "ctc.ctc_lo.bias": (4000,)}
for n in range(layers):
    name = f"encoder.encoders.{n - 1}" if n else "encoder.encoders0.0"
    inputs = 512 if n else 560
    shapes |= {
        f"{name}.self_attn.linear_q_k_v.weight": (1536, inputs),
        f"{name}.self_attn.linear_q_k_v.bias": (1536,),
        f"{name}.self_attn.linear_out.weight": (512, 512),
        f"{name}.self_attn.linear_out.bias": (512,),
        f"{name}.self_attn.fsmn_block.weight": (512, 1, 11),
        f"{name}.feed_forward.w_1.weight": (2048, 512),
        f"{name}.feed_forward.w_1.bias": (2048,),
        f"{name}.feed_forward.w_2.weight": (512, 2048),
        f"{name}.feed_forward.w_2.bias": (512,),
        f"{name}.norm1.weight": (inputs,), f"{name}.norm1.bias": (inputs,),
        f"{name}.norm2.weight": (512,), f"{name}.norm2.bias": (512,),
    }
for norm in ("after_norm", "tp_norm"):
    shapes |= {f"encoder.{norm}.weight": (512,), f"encoder.{norm}.bias": (512,)}
sizes = {name: 4 * int(np.prod(shape)) for name, shape in shapes.items()}
rng = np.random.default_rng(5)
with open(path, "wb+") as file:
    for size in sizes.values():
        file.write(rng.normal(0, 0.03, size // 4).astype(np.float32).tobytes())
    file.flush()
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
Path(path).unlink()
tensors, at = {}, 0
for name, shape in shapes.items():
    tensors[name] = np.frombuffer(mapped, np.float32, sizes[name] // 4, at).reshape(shape)
    at += sizes[name]
before = anonymous()
shape = EncoderShape(560, 512, 4, layers, 0, 11, 5, 4000)
model = encoder.OpenVinoEncoder(
    Checkpoint(tensors, mapped), shape, precision=precision, threads=1, banned=()
)
assert model._parked is None or model._parked.in_file
loaded = anonymous() - before
for length, count in ((167, 4), (20, 3), (500, 1), (300, 1), (90, 2)):
    features = [rng.standard_normal((length, 560), dtype=np.float32) for _ in range(count)]
    model.encode(features, [0] * count, [14] * count)
used = anonymous() - before
for length in range(20, 200, 6):
    model.encode([np.zeros((length, 560), np.float32)], [0], [14])
grown = anonymous() - before - used
print(loaded, used, grown, sum(sizes.values()) / 4 / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts it")
@pytest.mark.parametrize(("precision", "width"), [("int8", 1), ("fp32", 4)])
def test_weights_are_held_once(tmp_path: Path, precision: str, width: int) -> None:
    """Anonymous memory: the pages of files beside it can be taken back at any time.

    A copy of int8's weights too many, or of one of the four matrices of a layer in fp32, would be
    above the bound. Without int8 products oneDNN lays int8's out twice: for inputs of up to some 75
    frames, and for longer ones.
    """
    copies = 2 if precision == "int8" and not cpu_flags() & INT8_PRODUCTS else 1
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n" + RANDOM_MODEL,
         precision, str(LAYERS), str(tmp_path / "weights")],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded, used, grown, parameters = map(float, done.stdout.split())
    weights = width * parameters
    print(f"{loaded:.0f} MiB loaded, {used:.0f} used, weights {weights:.0f}")
    assert weights * 0.95 <= loaded  # or the measuring is wrong
    assert used <= copies * weights + FIXED, f"{loaded:.0f}, then {used:.0f} MiB for {weights:.0f}"
    assert grown <= MOST_GROWTH, f"{grown:.0f} MiB for 30 lengths that are new"


def test_parked_arrays_come_back_from_the_file(tmp_path: Path) -> None:
    parked = ParkedArrays(MIB, [tmp_path / "missing", tmp_path])
    beside = ParkedArrays(MIB, [tmp_path])
    assert parked.in_file
    assert list(tmp_path.iterdir()) == []  # it has no name, so nothing is left behind
    values = np.arange(300_000, dtype=np.int8).reshape(3, -1)
    mine = [parked.array(values.shape, np.int8) for _ in range(3)]
    assert all(array.ctypes.data % ALIGNMENT == 0 for array in mine)
    for n, array in enumerate(mine):
        array[:] = values + np.int8(n)
    beside.array(values.shape, np.int8)[:] = 7
    parked.release()
    for n, array in enumerate(mine):
        assert np.array_equal(array, values + np.int8(n))


def test_without_a_place_on_disk_they_stay_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for directories in ([tmp_path / "missing"], []):
            parked = ParkedArrays(100, directories)
            array = parked.array((4, 5), np.int8)
            array[:] = 3
            parked.release()
            assert not parked.in_file
            assert (array == 3).all()
    assert "No such file" in caplog.text
    with pytest.raises(ValueError, match="smaller"):
        parked.array((1000,), np.int8)


def test_a_disk_without_room_costs_memory_and_nothing_else(tmp_path: Path) -> None:
    """The kernel refuses to let the file grow, as it does on a full disk."""
    script = """
import resource, sys
import numpy as np
from pathlib import Path
from yibu.speech.models.parked import ALIGNMENT, ParkedArrays
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
parked = ParkedArrays(1 << 21, [Path(sys.argv[1])])
array = parked.array((1 << 21,), np.int8)
array[:] = 5
parked.release()
assert not parked.in_file and (array == 5).all()
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n" + script, tmp_path],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stderr


@pytest.mark.skipif(not SMALL_DISK.is_dir(), reason="a small file system to fill")
def test_a_disk_that_is_nearly_full_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    parked = ParkedArrays(shutil.disk_usage(SMALL_DISK).free // 3, [SMALL_DISK])
    assert not parked.in_file
    assert "MiB free" in caplog.text


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's allocator is told, no other"
)
def test_freed_arrays_leave_the_process() -> None:
    """Once glibc has seen a large array freed, it takes the next ones from its heap, where a
    small block above keeps their memory."""
    script = """
import ctypes
from pathlib import Path
from yibu.speech.allocator import keep_little
keep_little()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.memset.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free(libc.malloc(ctypes.c_size_t(30 << 20)))
large = libc.malloc(ctypes.c_size_t(20 << 20))
libc.memset(large, 1, 20 << 20)
pins = [libc.malloc(ctypes.c_size_t(100_000)) for _ in range(20)]

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

before = anonymous()
libc.free(large)
print(before - anonymous())
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n" + script],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 19
