"""The floor under the time of a meta-gradient: its arithmetic at the machine's measured rates.

A workload's floating-point operations are those of the textbook loop's step, forwards and backwards, counted by torch's
``FlopCounterMode``; convolutions run at the measured rate of a convolution, all else at that of a matrix product. What must
be read or written at least once are the inputs, the parameters, and their gradients, at the measured rate of a copy. The
floor is the larger of the two times. It knows nothing of the element-wise operations between, so no program reaches it.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from rivals import Problem, textbook


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second."""

    conv_gflops: float
    matmul_gflops: float
    copy_gigabytes: float

    def rounded(self) -> dict[str, float]:
        return {name: round(value, 1) for name, value in asdict(self).items()}


@torch.no_grad()
def measured_rates() -> Rates:
    """Measure a convolution (64 to 64 channels, 3x3, 320 pictures of 14x14), a product of 2048, and a copy of 256 MB."""
    x = torch.randn(320, 64, 14, 14).to(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3).to(memory_format=torch.channels_last)
    square, there = torch.randn(2048, 2048), torch.randn(64 * 2**20)
    here = torch.empty_like(there)
    return Rates(
        2 * x.numel() * 64 * 9 / _best(lambda: F.conv2d(x, weight, padding=1)) / 1e9,
        2 * 2048**3 / _best(lambda: square @ square) / 1e9,
        2 * there.numel() * 4 / _best(lambda: here.copy_(there)) / 1e9,
    )


def floor_seconds(problem: Problem, rates: Rates) -> float:
    """Return the floor of a workload, and leave a gradient behind."""
    with FlopCounterMode(display=False) as counter:
        textbook(problem)()
    counts = counter.get_flop_counts()["Global"]
    convolutions = sum(count for operation, count in counts.items() if "convolution" in str(operation))
    others = sum(counts.values()) - convolutions
    parameters, inputs = list(problem.net.parameters()), [batch.x for batch in problem.tasks]
    moved = sum(
        tensor.nbytes for tensor in (*parameters, *parameters, *inputs)
    )  # a gradient is as large as its weights
    arithmetic = convolutions / rates.conv_gflops + others / rates.matmul_gflops
    return max(arithmetic, moved / rates.copy_gigabytes) / 1e9


def _best(work: Callable[[], object], repeats: int = 20) -> float:
    """Return the least seconds: what the machine can do, not what it was kept from."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
