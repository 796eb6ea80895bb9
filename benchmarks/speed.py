"""Speed: the exact meta-gradient of MAML, by kshot and by others, in turns in one process.

In each repeat every variant has a turn, so that the machine's noise meets all of them; medians are compared. A turn is one
step, or as many as take 50 ms, of which the mean counts: training takes steps in a row, with warm caches. A step adds the
gradient of the mean query loss to ``.grad``; no weight moves. ``workloads.py`` says what is computed, ``rivals.py`` by whom
else, ``floor.py`` what the floor is. Freed memory is kept for all (``kshot.allocator``). For each variant a row has

* ``value``: median milliseconds, and ``ratio``, the textbook loop's median by it;
* ``error``: of the float32 gradient, relative, against the textbook loop in float64, the median over some meta-batches
  (rounding alone can carry one example over the kink of a ReLU or to another maximum, a large error in any one of them);
* ``error_float64``: the same of the float64 gradient of two tasks, where no rounding hides a wrong formula; compiled
  programs, which are traced from the eager ones, have none;
* ``exact``: the first is at most ten times that of the textbook loop, and the second at most 1e-6;
* ``ratio_to_exact_rival``: the fastest exact rival's median by this one;
* ``ratio_to_floor``: how many times the floor it takes;
* ``peak_bytes``: of tensors in one step, beyond what was there before; compiled programs do not tell theirs;
* ``first_seconds``: of a compiled program's first step, which compiles it, with nothing cached before this process;
* ``failure``: why there is no time.

"textbook, torch's norm" is the textbook loop with torch's fused batch normalisation, which is exact there: the plain
operations that vmap needs shall not slow the loop down to make others look fast.

    pip install -c constraints.txt -e '.[bench]'
    python benchmarks/speed.py --only 'sinusoid, 1 step'
    python benchmarks/speed.py
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from floor import Rates, floor_seconds, measured_rates
from kshot.allocator import keep_freed_memory
from kshot.core import Batch, Episode
from kshot.learners.gradient import MAML
from kshot.memory import peak_bytes
from kshot.meta_gradient import MetaGradient
from kshot.nets.norm import BatchStatisticsNorm
from rivals import RIVALS, Problem, Step, textbook
from rows import write_rows
from workloads import WORKLOADS, Norm, Workload

TURN_SECONDS = 0.05
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


@dataclass
class Variant:
    """One way to the meta-gradient, and what was measured of it."""

    name: str
    group: Literal["rival", "kshot"]
    net: nn.Module
    make: Callable[[], Step]
    make_float64: Callable[[Episode], tuple[nn.Module, Step]] | None = None
    compiled: bool = False
    bfloat16: bool = False
    times: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    error_float64: float | None = None
    peak: int | None = None
    first_seconds: float | None = None
    failure: str | None = None
    step: Step = lambda: None

    @property
    def median(self) -> float | None:
        return statistics.median(self.times) if self.times and not self.failure else None

    @property
    def error(self) -> float | None:
        return statistics.median(self.errors) if self.errors else None

    def run(self) -> float:
        """Take one step from cleared gradients and return its seconds."""
        self.net.zero_grad()
        start = time.perf_counter()
        self.step()
        return time.perf_counter() - start

    def turn(self) -> float:
        """Take steps in a row for a while and return the mean of their seconds."""
        seconds = [self.run()]
        while sum(seconds) < TURN_SECONDS:
            seconds.append(self.run())
        return statistics.fmean(seconds)

    def attempt(self, work: Callable[[], None]) -> None:
        """Do some work, or note why it failed and do no more: the others go on."""
        if self.failure:
            return
        try:
            work()
        except Exception as cause:  # whatever a library raises is its result here
            self.failure = f"{type(cause).__name__}: {(str(cause).strip().splitlines() or [''])[0][:200]}"


def variants(workload: Workload, tasks: Episode, seed: int) -> Iterator[Variant]:
    """Make every variant of a workload, each with a net of its own and the same weights."""
    for name, make in RIVALS.items():
        problem = problem_of(workload, workload.net(seed), tasks)
        double = partial(rival_in_float64, workload, seed, make)
        yield Variant(name, "rival", problem.net, partial(make, problem), double)
    if workload.torch_norm is not None:
        problem = problem_of(workload, workload.net(seed, workload.torch_norm), tasks)
        double = partial(rival_in_float64, workload, seed, textbook, norm=workload.torch_norm)
        yield Variant("textbook, torch's norm", "rival", problem.net, partial(textbook, problem), double)
    for mode in ("first_order",) if workload.first_order else ("mixed", "reverse"):
        learner = learner_of(workload, seed, mode)
        double = partial(kshot_in_float64, workload, seed, mode)
        yield Variant(f"kshot, {mode}", "kshot", learner, partial(eager, learner, tasks), double)
        for chunk in workload.chunks:
            yield compiled_variant(workload, tasks, seed, mode, chunk)
    if workload.convolutional:
        yield from bfloat16_variants(workload, tasks, seed)


def compiled_variant(workload: Workload, tasks: Episode, seed: int, mode: Any, chunk: int) -> Variant:
    learner = learner_of(workload, seed, mode)
    apart = workload.side_by_side
    name = f"kshot, {mode}, compiled, chunks of {chunk}{', side by side' if apart else ''}"
    return Variant(name, "kshot", learner, partial(compiled, learner, tasks, chunk, apart), compiled=True)


def bfloat16_variants(workload: Workload, tasks: Episode, seed: int) -> Iterator[Variant]:
    """Make kshot's default mode under autocast, eager and compiled."""
    mode: Any = "first_order" if workload.first_order else "mixed"
    learner = learner_of(workload, seed, mode)
    plain = Variant(f"kshot, {mode}", "kshot", learner, partial(eager, learner, tasks))
    for variant in (plain, *(compiled_variant(workload, tasks, seed, mode, chunk) for chunk in workload.chunks)):
        variant.name, variant.bfloat16 = f"{variant.name}, bfloat16", True
        variant.make = partial(in_bfloat16, variant.make)
        yield variant


def rival_in_float64(
    workload: Workload, seed: int, make: Callable[[Problem], Step], few: Episode, norm: Norm = BatchStatisticsNorm
) -> tuple[nn.Module, Step]:
    net = workload.net(seed, norm).double()
    return net, make(problem_of(workload, net, few))


def kshot_in_float64(workload: Workload, seed: int, mode: Any, few: Episode) -> tuple[nn.Module, Step]:
    learner = learner_of(workload, seed, mode).double()
    return learner, eager(learner, few)


def problem_of(workload: Workload, net: nn.Module, tasks: Episode) -> Problem:
    return Problem(net, tasks, workload.lr, workload.steps, workload.ways is not None, workload.first_order)


def learner_of(workload: Workload, seed: int, mode: Any) -> MAML:
    return MAML(workload.net(seed), workload.lr, workload.steps, mode, loss=workload.loss)


def eager(learner: MAML, tasks: Episode) -> Step:
    def step() -> None:
        learner.meta_loss(tasks).backward()  # type: ignore[no-untyped-call]

    return step


def compiled(learner: MAML, tasks: Episode, chunk: int, side_by_side: bool) -> Step:
    gradient = MetaGradient(learner, chunk, compiled=True, side_by_side=side_by_side)

    def step() -> None:
        gradient(tasks)
        # It would go on uncompiled, with a line in the log: a fine thing elsewhere, a wrong row here.
        if None in gradient._programs.values():
            raise RuntimeError("the step could not be compiled; the log says why")

    return step


def in_bfloat16(make: Callable[[], Step]) -> Step:
    """Return a step under autocast.

    Raises:
        RuntimeError: the processor has no instructions for it, so that a time would say nothing.
    """
    if not BFLOAT16_FLAGS & processor_flags():
        raise RuntimeError(f"skipped: the processor has none of {', '.join(sorted(BFLOAT16_FLAGS))}")
    inner = make()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            inner()

    return step


def processor_flags() -> set[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())


def true_gradient(workload: Workload, tasks: Episode, seed: int) -> Tensor:
    """Return the gradient of the textbook loop in float64, task by task to hold one graph at a time."""
    net = workload.net(seed).double()
    for i in range(len(tasks.query.y)):
        textbook(problem_of(workload, net, in_float64(tasks, i, i + 1)))()
    return flat_gradient(net) / len(tasks.query.y)


def in_float64(tasks: Episode, start: int, stop: int) -> Episode:
    return Episode(*(Batch(batch.x[start:stop].double(), batch.y[start:stop].double()) for batch in tasks))


def relative_error(gradient: Tensor, true: Tensor) -> float:
    return float((gradient - true).norm() / true.norm())


def flat_gradient(net: nn.Module) -> Tensor:
    gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters())
    return torch.cat([gradient.double().flatten() for gradient in gradients])


def fill(tasks: Episode, draw: Episode) -> None:
    """Write other tasks where every variant looks for them; the labels are the same."""
    for there, here in zip((*tasks.support, *tasks.query), (*draw.support, *draw.query), strict=True):
        there.copy_(here)


def prepare(variant: Variant, tasks: Episode, draws: list[Episode], true: list[Tensor]) -> None:
    """Build a variant, compare its gradients with the true ones, which warms it up, and measure its memory."""
    variant.step = variant.make()
    for draw, expected in zip(draws, true, strict=True):
        fill(tasks, draw)
        seconds = variant.run()
        if variant.compiled and variant.first_seconds is None:
            variant.first_seconds = seconds
        variant.errors.append(relative_error(flat_gradient(variant.net), expected))
    if not variant.compiled:
        variant.net.zero_grad()
        variant.peak = peak_bytes(variant.step)


def check_formula(variant: Variant, few: Episode, true: Tensor) -> None:
    """Compare the gradient of a few tasks in float64."""
    if variant.make_float64 is not None:
        net, step = variant.make_float64(few)
        step()
        variant.error_float64 = relative_error(flat_gradient(net), true)


def take_turns(measured: list[Variant], repeats: int) -> None:
    """Time each variant in turn, again and again."""
    gc.collect()
    gc.freeze()  # what is there stays, so that collecting between steps looks at their garbage alone
    for _ in range(repeats):
        for variant in measured:
            gc.collect()  # one variant's garbage shall not be another's time
            variant.attempt(lambda variant=variant: variant.times.append(variant.turn()))  # type: ignore[misc]
    gc.unfreeze()


def measure(name: str, options: argparse.Namespace, rates: Rates) -> list[dict[str, Any]]:
    """Measure the variants of a workload and return their rows."""
    workload, start = WORKLOADS[name], time.perf_counter()
    draws = [workload.draw(options.seed + number) for number in range(options.draws)]
    true = [true_gradient(workload, draw, options.seed) for draw in draws]
    tasks, few = workload.draw(options.seed), in_float64(draws[0], 0, 2)
    few_true = true_gradient(workload, few, options.seed)
    floor = floor_seconds(problem_of(workload, workload.net(options.seed), tasks), rates)
    measured = [one for one in variants(workload, tasks, options.seed) if chosen(one.name, options)]
    for variant in measured:
        variant.attempt(partial(prepare, variant, tasks, draws, true))
        variant.attempt(partial(check_formula, variant, few, few_true))
    take_turns(measured, options.repeats)
    rows = [row_of(variant, measured, floor) for variant in measured]
    shared = common(name, workload, options) | {"rates": rates.rounded(), "floor_ms": 1000 * floor}
    return [{**shared, **row, "seconds": round(time.perf_counter() - start)} for row in rows]


def chosen(name: str, options: argparse.Namespace) -> bool:
    """Tell whether a variant is asked for; the textbook loop always is, since ratios are to it."""
    asked = not options.variants or any(part in name for part in options.variants)
    return name == "textbook" or (asked and not any(part in name for part in options.skip))


def common(name: str, workload: Workload, options: argparse.Namespace) -> dict[str, Any]:
    turns = f"float32, threads: {torch.get_num_threads()}, medians of {options.repeats} in turns, freed memory kept"
    return {
        "learner": "MAML",
        "workload": name,
        "run": options.run,
        "data": "sinusoid" if workload.ways is None else "noise",
        "protocol": f"{workload.protocol}; {turns}",
        "ways": workload.ways,
        "shots": workload.shots,
        "metric": "meta-gradient, ms",
        "ci95": None,
        "episodes": workload.tasks * options.repeats,
        "published": None,
        "seed": options.seed,
        "goal": workload.goal,
    }


def row_of(variant: Variant, measured: list[Variant], floor: float) -> dict[str, Any]:
    """Set what was measured of a variant beside the textbook loop and the rivals."""
    loop = next(one for one in measured if one.name == "textbook")
    rivals = [one for one in measured if one.group == "rival" and is_exact(one, loop) and one.median]
    fastest = min(rivals, key=lambda one: one.median or 0.0, default=None)
    median = variant.median
    return {
        "variant": variant.name,
        "group": variant.group,
        "bfloat16": variant.bfloat16,
        "value": median and 1000 * median,
        "quartiles": [1000 * t for t in statistics.quantiles(variant.times)] if median and variant.times[1:] else None,
        "ratio": ratio(loop.median, median),
        "ratio_to_exact_rival": ratio(fastest.median, median) if fastest else None,
        "exact_rival": fastest.name if fastest else None,
        "ratio_to_floor": None if variant.bfloat16 else ratio(median, floor),
        "peak_bytes": variant.peak,
        "error": variant.error,
        "errors": variant.errors,
        "error_float64": variant.error_float64,
        "exact": is_exact(variant, loop),
        "first_seconds": variant.first_seconds,
        "failure": variant.failure,
    }


def is_exact(variant: Variant, loop: Variant) -> bool:
    if variant.error is None or loop.error is None:
        return False
    return variant.error <= 10 * loop.error and (variant.error_float64 or 0.0) <= 1e-6


def ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def show(row: dict[str, Any]) -> None:
    """Print a row in a line."""
    if row["failure"]:
        print(f"  {row['variant']:45} {row['failure']}", flush=True)
        return
    peak = f"{row['peak_bytes'] / 2**20:8.1f} MiB" if row["peak_bytes"] else " " * 12
    first = f", first step {row['first_seconds']:.0f} s" if row["first_seconds"] else ""
    exact = "" if row["exact"] else " NOT EXACT"
    floor = f", {row['ratio_to_floor']:6.1f}x the floor" if row["ratio_to_floor"] else ""
    double = "" if row["error_float64"] is None else f" ({row['error_float64']:.0e} in float64)"
    print(
        f"  {row['variant']:45} {row['value']:9.2f} ms {row['ratio']:6.2f}x {peak} error {row['error']:.1e}"
        f"{double}{exact}{floor}{first}",
        flush=True,
    )


def fresh_compiler_cache() -> AbstractContextManager[Any]:
    """Let the compiler start from nothing, so that its seconds are those of a first run."""
    folder = tempfile.TemporaryDirectory()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder.name
    return folder


def main() -> None:
    """Measure the workloads and write their rows, after each of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, metavar="NAME", help=f"of {'; '.join(WORKLOADS)}")
    parser.add_argument("--variants", nargs="+", metavar="TEXT", help="only those whose names contain one of these")
    parser.add_argument("--skip", nargs="+", metavar="TEXT", default=(), help="those whose names contain one of these")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--draws", type=int, default=5, help="meta-batches to compare gradients on, which warms up")
    parser.add_argument("--threads", type=int, help="torch's own choice by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print-only", action="store_true", help="write no rows")
    parser.add_argument("--warm-compiler", action="store_true", help="use what earlier processes compiled")
    options = parser.parse_args()
    options.run = round(time.time())
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    rates = measured_rates()
    print(f"{rates.rounded()}", flush=True)
    with nullcontext() if options.warm_compiler else fresh_compiler_cache():
        for name in options.only or WORKLOADS:
            print(f"{name}: {WORKLOADS[name].protocol}", flush=True)
            rows = measure(name, options, rates)
            for row in rows:
                show(row)
            if not options.print_only:
                write_rows("speed", rows)
            torch._dynamo.reset()  # programs of one workload are of no use to the next


if __name__ == "__main__":
    main()
