"""GPUs and NPUs by name, for machines that are only described: ``rtx4090``, ``4xh20``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from yibu.planner.types import Gpu, Machine

_MIB, _GIB = 1 << 20, 1 << 30
_COUNTED = re.compile(r"^(?:(\d{1,4})x)?([a-z0-9-]+)$")


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    mib: int
    """Memory as the driver reports it: what the card has, less what it keeps for error correction."""
    capability: tuple[int, int] | None = None
    """CUDA's; None for what is no NVIDIA card."""


def _cards(capability: tuple[int, int] | None, text: str) -> dict[str, Card]:
    """``key MiB Name``, one a line."""
    rows = (line.split(None, 2) for line in text.strip().splitlines())
    return {key: Card(name, int(mib), capability) for key, mib, name in rows}


CARDS: Mapping[str, Card] = {
    **_cards((7, 0), "v100-16g 16384 Tesla V100 16GB\nv100-32g 32768 Tesla V100 32GB"),
    **_cards(
        (7, 5), "t4 15360 Tesla T4\nrtx2080ti 11264 RTX 2080 Ti\nrtx8000 46080 Quadro RTX 8000"
    ),
    **_cards(
        (8, 0),
        """
        a100-40g 40960 A100 40GB
        a100-80g 81920 A100 80GB
        a800-80g 81920 A800 80GB
        a30 24576 A30
        """,
    ),
    **_cards(
        (8, 6),
        """
        rtx3050 8192 RTX 3050
        rtx3060 12288 RTX 3060
        rtx3060ti 8192 RTX 3060 Ti
        rtx3070 8192 RTX 3070
        rtx3080 10240 RTX 3080
        rtx3080ti 12288 RTX 3080 Ti
        rtx3090 24576 RTX 3090
        rtx3090ti 24564 RTX 3090 Ti
        a10 23028 A10
        a16 15356 A16
        a40 46068 A40
        rtxa4000 16376 RTX A4000
        rtxa5000 24564 RTX A5000
        rtxa6000 49140 RTX A6000
        """,
    ),
    **_cards(
        (8, 9),
        """
        rtx4060 8188 RTX 4060
        rtx4060ti 8188 RTX 4060 Ti
        rtx4060ti-16g 16380 RTX 4060 Ti 16GB
        rtx4070 12282 RTX 4070
        rtx4070super 12282 RTX 4070 SUPER
        rtx4070ti 12282 RTX 4070 Ti
        rtx4070tisuper 16376 RTX 4070 Ti SUPER
        rtx4080 16376 RTX 4080
        rtx4080super 16376 RTX 4080 SUPER
        rtx4090 24564 RTX 4090
        rtx4090d 24564 RTX 4090 D
        rtx4090-48g 49140 RTX 4090 48GB
        l2 24570 L2
        l4 23034 L4
        l20 46068 L20
        l40 46068 L40
        l40s 46068 L40S
        rtx6000ada 49140 RTX 6000 Ada
        """,
    ),
    **_cards(
        (9, 0),
        """
        h20 97871 H20
        h20-141g 143771 H20 141GB
        h100 81559 H100 80GB
        h100-94g 95830 H100 NVL
        h800 81559 H800 80GB
        h200 143771 H200
        gh200 97871 GH200
        """,
    ),
    **_cards((10, 0), "b200 183359 B200\ngb200 189471 GB200"),
    **_cards((10, 3), "b300 275040 B300"),
    **_cards(
        (12, 0),
        """
        rtx5050 8151 RTX 5050
        rtx5060 8151 RTX 5060
        rtx5060ti 8151 RTX 5060 Ti
        rtx5060ti-16g 16311 RTX 5060 Ti 16GB
        rtx5070 12227 RTX 5070
        rtx5070ti 16303 RTX 5070 Ti
        rtx5080 16303 RTX 5080
        rtx5090 32607 RTX 5090
        rtx5090d 32607 RTX 5090 D
        rtxpro6000 97887 RTX PRO 6000 Blackwell
        """,
    ),
    **_cards((12, 1), "gb10 122880 GB10 (DGX Spark)"),
    **_cards(
        None,
        """
        ascend-910a 32768 Ascend 910A
        ascend-910b 65536 Ascend 910B
        ascend-910b1 65536 Ascend 910B1
        ascend-910b2 65536 Ascend 910B2
        ascend-910b3 65536 Ascend 910B3
        ascend-910b4 32768 Ascend 910B4
        ascend-910c 65536 Ascend 910C (one of two dies)
        ascend-310p 24576 Ascend 310P
        mi250 65536 Instinct MI250 (one of two dies)
        mi300x 196592 Instinct MI300X
        mi308x 196592 Instinct MI308X
        mi325x 262128 Instinct MI325X
        mi355x 294896 Instinct MI355X
        rx7900xtx 24560 Radeon RX 7900 XTX
        mlu370-x8 49152 MLU370-X8
        mtt-s4000 49152 MTT S4000
        dcu-k100 65520 DCU K100 AI
        p800 98304 Kunlun P800
        """,
    ),
}
"""Every card here that is no NVIDIA card is planned for by its memory alone."""


def machine_of(spec: str) -> Machine | None:
    """A machine with ``[Nx]CARD``; None where the name is no card's.

    Its processor and memory are those that such cards are usually sold with: eight cores a card,
    sixteen at least, and twice the cards' memory.
    """
    match = _COUNTED.match(spec.lower().replace("_", "-"))
    card = CARDS.get(match[2]) if match else None
    if match is None or card is None:
        return None
    count = int(match[1] or 1)
    if not 0 < count <= _MOST:
        return None
    gpus = tuple(
        Gpu(index, card.name, card.mib * _MIB, card.mib * _MIB, compute_capability=card.capability)
        for index in range(count)
    )
    cores = max(16, 8 * count)
    memory = max(32 * _GIB, 2 * count * card.mib * _MIB)
    return Machine(spec, cores, 2 * cores, memory, memory * 9 // 10, gpus)


_MOST = 1024
