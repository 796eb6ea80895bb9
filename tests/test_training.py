import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

from kshot.checkpoint import load_checkpoint
from kshot.core import Batch, Episode, Learner
from kshot.evaluation import evaluate
from kshot.learners.gradient import MAML
from kshot.learners.gradient.inner_loop import Mode
from kshot.learners.metric import Prototypical
from kshot.losses import mean_squared_error
from kshot.nets.mlp import MLP
from kshot.run_folder import RunFolder, read_lines
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.source import TaskSource
from kshot.training import Report, Trained, train


def data() -> LabelledData:
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    return LabelledData.from_arrays(x + torch.arange(80)[:, None] % 8, torch.arange(80) % 8)


def learner() -> Prototypical:
    torch.manual_seed(3)
    # Dropout, so that an exact resume needs the random numbers too.
    return Prototypical(nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 4)))


def run(out: Path | None, steps: int, resume: bool = False) -> tuple[Prototypical, Trained]:
    model = learner()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    result = train(
        model,
        Episodes(data(), 4, 2, 3),
        steps=steps,
        tasks_per_step=2,
        optimizer=optimizer,
        scheduler=StepLR(optimizer, 7, 0.5),
        validation=Episodes(data(), 4, 2, 3, seed=9, length=8),
        every=5,
        out=out,
        resume=resume,
    )
    return model, result


def test_training_learns() -> None:
    model = MAML(MLP(1, 40, 40, 1), 0.01, loss=mean_squared_error)
    losses: list[float] = []
    train(model, Sinusoids(10), steps=600, tasks_per_step=10, watch=lambda report: losses.append(report.loss))
    assert len(losses) == 600
    # Tasks differ much, and 50 steps see 500 of them: the standard error of each mean is about 3 %.
    assert np.mean(losses[-50:]) < 0.75 * np.mean(losses[:50])


def test_a_resumed_run_equals_one_that_was_never_interrupted(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", 20)
    run(tmp_path / "cut", 13)
    resumed, result = run(tmp_path / "cut", 20, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    last = [(tmp_path / name / "last.safetensors") for name in ("whole", "cut")]
    assert result.steps == 20
    assert last[0].stat().st_size == last[1].stat().st_size
    steps = [line["step"] for line in read_lines(tmp_path / "cut/metrics.jsonl")]
    assert steps == [5, 10, 13, 15, 20]


def test_training_sweeps_away_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / "last.safetensors.1.part").write_bytes(b"half of it")
    RunFolder(tmp_path)
    assert list(tmp_path.glob("*.part"))
    run(tmp_path, 5)
    assert not list(tmp_path.glob("*.part"))


def test_a_run_with_a_scheduler_is_not_resumed_without_it(tmp_path: Path) -> None:
    run(tmp_path, 5)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"had a scheduler at step 5.*Pass scheduler="):
        train(learner(), Episodes(data(), 4, 2, 3), steps=10, out=tmp_path, resume=True)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_the_random_state_of_the_caller_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(learner(), Episodes(data(), 4, 2, 3), steps=3, tasks_per_step=1, optimizer=None)
    # learner() seeds by itself, so seed again before and after
    torch.manual_seed(5)
    model = Prototypical(nn.Sequential(nn.Dropout(0.5), nn.Flatten()))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
    with pytest.raises(RuntimeError, match="does not require grad"):
        train(model, Episodes(data(), 4, 2, 3), steps=1, tasks_per_step=1, optimizer=optimizer)
    assert torch.equal(torch.rand(1), expected)


def test_the_best_weights_are_returned_and_saved(tmp_path: Path) -> None:
    reports: list[Report] = []
    model = learner()
    result = train(
        model,
        Episodes(data(), 4, 2, 3),
        steps=30,
        tasks_per_step=2,
        optimizer=torch.optim.Adam(model.parameters(), 0.3),  # so large that scores go up and down
        validation=Episodes(data(), 4, 2, 3, seed=9, length=8),
        every=3,
        out=tmp_path,
        watch=reports.append,
    )
    scores = [report.validation.mean for report in reports if report.validation]
    assert len(scores) == 10
    assert result.best == max(scores)
    assert scores[-1] != max(scores), "the test needs a run whose last weights are not its best"
    from kshot.checkpoint import load_learner
    from kshot.evaluation import evaluate

    loaded = learner()
    load_learner(tmp_path / "best.safetensors", loaded)
    tasks = Episodes(data(), 4, 2, 3, seed=9, length=8)
    assert evaluate(loaded, tasks).mean == evaluate(model, tasks).mean == result.best


def test_patience_ends_a_run_that_no_longer_improves() -> None:
    model = learner()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    tasks = Episodes(data(), 4, 2, 3, length=4)
    result = train(model, tasks, steps=100, optimizer=optimizer, validation=tasks, every=2, patience=3)
    assert (result.reason, result.steps) == ("patience", 8)


def test_a_run_that_patience_ended_can_be_given_more_time(tmp_path: Path) -> None:
    tasks = Episodes(data(), 4, 2, 3, length=4)

    def more(resume: bool) -> Trained:
        model = learner()
        still = torch.optim.SGD(model.parameters(), 0.0)
        how: dict[str, Any] = {"every": 2, "patience": 3, "out": tmp_path, "resume": resume}
        return train(model, tasks, steps=100, optimizer=still, validation=tasks, **how)

    assert [more(resume).steps for resume in (False, True)] == [8, 14]


def test_a_validation_that_is_not_a_number_is_never_the_best() -> None:
    model = MAML(MLP(1, 4, 1), 0.01, loss=mean_squared_error)
    reports: list[Report] = []
    validation = Poisoned(0, 3, fault=torch.nan)
    how: dict[str, Any] = {"every": 1, "patience": 2, "watch": reports.append}
    result = train(model, Sinusoids(5, 5), steps=9, tasks_per_step=2, validation=validation, **how)
    assert [report.improved for report in reports] == [False, False]
    assert (result.best, result.reason) == (None, "patience")


def test_minutes_end_a_run_with_a_validation() -> None:
    reports: list[Report] = []
    tasks = Episodes(data(), 4, 2, 3, length=4)
    result = train(learner(), tasks, minutes=0.01, validation=tasks, every=10**9, watch=reports.append)
    assert result.reason == "minutes"
    assert result.best is not None
    assert reports[-1].progress == 1


def test_a_clock_that_runs_out_after_a_step_still_leaves_a_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every look at the clock is a second later, so that the minutes run out at each possible place of the loop.
    for minutes in np.arange(3, 30) / 60:
        ticks = iter(range(1000))
        monkeypatch.setattr("kshot.position.time.monotonic", lambda ticks=ticks: next(ticks))
        tasks = Episodes(data(), 4, 2, 3, length=4)
        reports: list[Report] = []
        result = train(learner(), tasks, minutes=minutes, validation=tasks, every=10**9, watch=reports.append)
        assert result.reason == "minutes"
        assert reports[-1].validation is not None, f"{minutes * 60:.0f} seconds"
        assert result.best == reports[-1].validation.mean


class Poisoned(TaskSource):
    """Sinusoids of whose third task the targets are infinite, or whatever else."""

    stamp: Mapping[str, str] = {}

    def __init__(self, seed: int, length: int, fault: float = torch.inf) -> None:
        super().__init__(seed, length)
        self.fault = fault

    def sample(self, items: NDArray[np.int64]) -> Episode:
        support, (x, y) = Sinusoids(5, 5).sample(items)
        return Episode(support, Batch(x, torch.where(torch.from_numpy(items == 2)[:, None, None], self.fault, y)))


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_weights() -> None:
    model = MAML(MLP(1, 4, 1), 0.01, loss=mean_squared_error)
    with pytest.raises(
        FloatingPointError, match="became inf at step 3: in task 1 of 1 in the meta-batch, first in the loss"
    ):
        train(model, Poisoned(0, 10), steps=5, tasks_per_step=1)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_run_that_diverges_at_once_names_the_task_and_keeps_the_weights_of_the_step_before(tmp_path: Path) -> None:
    model = MAML(MLP(1, 4, 1), 0.01, loss=mean_squared_error)
    with pytest.raises(
        FloatingPointError,
        match=r"step 1: in task 3 of 4 .* spoiled already\. Lower",
    ):
        train(model, Poisoned(0, 10), steps=5, tasks_per_step=4, out=tmp_path)
    assert load_checkpoint(tmp_path / "last.safetensors")["position"]["step"] == 0


def test_a_step_size_that_explodes_leaves_the_checkpoints_of_before(tmp_path: Path) -> None:
    model, tasks = MAML(MLP(1, 4, 1), 0.01, loss=mean_squared_error), Sinusoids(5, 5, length=8)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    exploding = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 5 else 1e9)
    schedule: dict[str, Any] = {"optimizer": optimizer, "scheduler": exploding, "every": 4, "steps": 40}
    with pytest.raises(FloatingPointError, match=r"of earlier steps are .*best\.saf.* and .*last\.saf"):
        train(model, tasks, validation=tasks, out=tmp_path, **schedule)
    assert not math.isfinite(evaluate(model, tasks).mean), "the step before had spoiled the weights already"
    last = load_checkpoint(tmp_path / "last.safetensors")
    assert last["position"]["step"] == 4
    model.load_state_dict(last["learner"])
    assert evaluate(model, tasks).mean < 100


def test_a_run_that_diverges_keeps_the_running_averages_of_the_step_before() -> None:
    def model() -> MAML:
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4))
        return MAML(nn.Linear(4, 1), 0.01, encoder=body, loss=mean_squared_error)

    diverged, stopped = model(), model()
    with pytest.raises(FloatingPointError, match="at step 3"):
        train(diverged, Poisoned(0, 10), steps=5, tasks_per_step=1)
    train(stopped, Poisoned(0, 10), steps=2, tasks_per_step=1)
    for name, value in stopped.state_dict().items():
        assert torch.equal(diverged.state_dict()[name], value), name


@pytest.mark.parametrize("mode", ["mixed", "reverse", "first_order"])
def test_an_inner_step_that_is_too_large_is_traced_to_a_layer(mode: Mode) -> None:
    model = MAML(MLP(1, 4, 4, 1), 1e15, 5, mode, loss=mean_squared_error)
    with pytest.raises(
        FloatingPointError, match=r"step 1: in task 1 of 4 in the meta-batch, first in layer model\.layers\.\d \("
    ):
        train(model, Sinusoids(5, 5), steps=5, tasks_per_step=4)


class RootOfZero(Learner):
    """A learner whose loss is finite and whose gradient is not."""

    def __init__(self) -> None:
        super().__init__(mean_squared_error)
        self.weight = nn.Parameter(torch.zeros(1))

    def adapt(self, support: Batch) -> Tensor:
        return support.y.mean(0)

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return x * self.weight.abs().sqrt() + state


def test_a_gradient_that_is_not_finite_stops_before_it_spoils_the_weights() -> None:
    learner = RootOfZero()
    with pytest.raises(
        FloatingPointError, match=r"a gradient that is not finite: in task 1 of 16.*the gradient of weight"
    ):
        train(learner, Sinusoids(5, 5), steps=1)
    assert learner.weight.item() == 0


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path, 5)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(ValueError, match="already holds a run"):
        run(tmp_path, 5)
    assert (tmp_path / "last.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="no run to resume"):
        run(tmp_path / "empty", 5, resume=True)


def test_a_budget_is_needed() -> None:
    with pytest.raises(ValueError, match="needs a budget"):
        train(learner(), Episodes(data(), 4, 2, 3))


def test_a_scheduler_that_waits_for_a_score_is_refused() -> None:
    net = learner()
    optimizer = torch.optim.Adam(net.parameters())
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(TypeError, match="without the score that ReduceLROnPlateau needs"):
        train(net, Episodes(data(), 4, 2, 3), steps=1, optimizer=optimizer, scheduler=scheduler)


def test_ctrl_c_ends_the_step_and_saves(tmp_path: Path) -> None:
    def interrupt(report: Report) -> None:
        if report.step == 4:
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    model = learner()
    result = train(model, Episodes(data(), 4, 2, 3), steps=50, tasks_per_step=2, out=tmp_path, watch=interrupt)
    assert (result.reason, result.steps) == ("interrupted", 4)
    assert signal.getsignal(signal.SIGINT) is handler
    assert RunFolder(tmp_path, resume=True).load_last()["position"]["step"] == 4


def test_ctrl_c_within_a_step_changes_nothing_of_the_run_that_goes_on(tmp_path: Path) -> None:
    class Interrupted(Episodes):
        def sample(self, items: NDArray[np.int64]) -> Episode:
            if items[0] == 2 * 12:
                signal.raise_signal(signal.SIGINT)
            return super().sample(items)

    def still(tasks: Episodes, resume: bool, out: Path) -> Trained:
        model = learner()
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        how: dict[str, Any] = {"tasks_per_step": 2, "every": 10, "patience": 2, "out": out, "resume": resume}
        validation = Episodes(data(), 4, 2, 3, seed=9, length=4)
        return train(model, tasks, steps=99, optimizer=optimizer, validation=validation, **how)

    tasks = data(), 4, 2, 3
    assert still(Interrupted(*tasks), False, tmp_path / "cut").reason == "interrupted"
    assert (
        still(Episodes(*tasks), True, tmp_path / "cut").steps
        == still(Episodes(*tasks), False, tmp_path / "whole").steps
    )
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("cut", "whole")]
    assert [[json.loads(line)["step"] for line in of_one] for of_one in lines] == [[10, 20, 30], [10, 20, 30]]


def test_training_works_outside_the_main_thread() -> None:
    results: list[Trained] = []
    work = threading.Thread(target=lambda: results.append(run(None, 3)[1]))
    work.start()
    work.join()
    assert results[0].steps == 3


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_training
from kshot import checkpoint
whole = checkpoint.write_atomically
def die(path, data):
    if path.name == "last.safetensors" and path.exists():
        path.with_name(path.name + ".part").write_bytes(data[: len(data) // 2])
        os._exit(9)
    whole(path, data)
checkpoint.write_atomically = die
test_training.run(Path({out!r}), 20)
"""


def test_a_process_killed_while_saving_loses_nothing_but_time(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", 20)
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path / "cut"))
    died = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert died.returncode == 9
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 2
    resumed, _ = run(tmp_path / "cut", 20, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 10, 15, 20]
