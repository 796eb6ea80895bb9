import logging
import shutil
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kshot.batching import unstack
from kshot.core import Batch, Episode, Learner, one_hot
from kshot.learners.gradient import MAML, Reptile
from kshot.learners.metric import Prototypical
from kshot.meta_gradient import MetaGradient


def tasks(t: int = 5, ways: int = 3) -> Episode:
    y = one_hot(torch.arange(ways).repeat(2).expand(t, -1), ways).double()
    return Episode(*(Batch(torch.randn(t, ways * 2, 6).double(), y) for _ in range(2)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)).double()


LEARNERS = {
    "prototypical": lambda: Prototypical(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).double()),
    "mixed": lambda: MAML(mlp(), 0.3, 2),
    "reverse": lambda: MAML(mlp(), 0.3, 5, "reverse"),
    "checkpoints": lambda: MAML(mlp(), 0.3, 4, checkpoint_every=2),
    "first order": lambda: MAML(mlp(), 0.3, 2, "first_order"),
    "implicit": lambda: MAML(mlp(), 0.1, 3, "implicit"),
    "with an encoder": lambda: MAML(nn.Linear(4, 3).double(), 0.3, 2, encoder=nn.Linear(6, 4).double()),
    "learned sizes": lambda: MAML(mlp(), 0.3, 2, learn_lr="per_parameter"),
}


def gradients(learner: Learner, run: Any) -> tuple[Tensor, dict[str, Tensor]]:
    learner.zero_grad()
    loss = run()
    return loss.detach(), {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def plain(learner: Learner, stacked: Episode) -> tuple[Tensor, dict[str, Tensor]]:
    def run() -> Tensor:
        loss = learner.meta_loss(stacked)
        loss.backward()
        return loss

    return gradients(learner, run)


@pytest.mark.parametrize("chunk_size", [None, 1, 2, "auto"])
@pytest.mark.parametrize("name", LEARNERS)
def test_chunks_give_the_gradient_of_the_meta_loss(name: str, chunk_size: Any) -> None:
    learner, stacked = LEARNERS[name](), tasks()
    step = MetaGradient(learner, chunk_size)
    torch.testing.assert_close(
        gradients(learner, lambda: step(stacked)), plain(learner, stacked), rtol=1e-10, atol=1e-12
    )


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")


@needs_compiler
def test_a_compiled_step_gives_the_gradient_of_the_meta_loss(caplog: pytest.LogCaptureFixture) -> None:
    learner, stacked = MAML(nn.Linear(6, 3).double(), 0.3), tasks()  # small: a larger one compiles for minutes
    step = MetaGradient(learner, compiled=True)
    with caplog.at_level(logging.WARNING, "kshot"):
        found = gradients(learner, lambda: step(stacked))
    assert not [r for r in caplog.records if r.name == "kshot"], "it must be the compiled path that is tested"
    torch.testing.assert_close(found, plain(learner, stacked), rtol=1e-10, atol=1e-12)
    with torch.no_grad():  # the program reads the parameters of today
        for parameter in learner.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(
        gradients(learner, lambda: step(stacked)), plain(learner, stacked), rtol=1e-10, atol=1e-12
    )


@needs_compiler
def test_compiled_chunks_side_by_side_give_the_gradient_of_the_meta_loss(two_threads: None) -> None:
    learner, stacked = MAML(nn.Linear(6, 3).double(), 0.3), tasks()
    step = MetaGradient(learner, 2, compiled=True, side_by_side=True)
    found = gradients(learner, lambda: step(stacked))
    assert [program is not None for program in step._programs.values()] == [True, True]  # of two tasks, and of the last
    assert torch.get_num_threads() == 2
    torch.testing.assert_close(found, plain(learner, stacked), rtol=1e-10, atol=1e-12)


def test_chunks_side_by_side_have_the_random_numbers_of_chunks_in_turn(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()

    def compile_nothing(traced: Any, **_: Any) -> Any:
        def run(*inputs: Tensor) -> Any:
            seen.add(threading.get_ident())
            return traced(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", compile_nothing)
    learner, stacked = Reptile(MAML(mlp(), 0.3, 2, "first_order"), steps=4, batch_size=3), tasks()
    results = []
    for compiled in (True, False):
        step = MetaGradient(learner, 2, compiled, side_by_side=compiled)
        step(stacked)  # which traces
        torch.manual_seed(0)
        results.append(gradients(learner, lambda step=step: step(stacked)))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)
    assert seen - {threading.get_ident()}, "it must be other threads that are tested"


def test_gradients_add_up() -> None:
    learner, stacked = LEARNERS["mixed"](), tasks()
    step, (_, once) = MetaGradient(learner), plain(learner, stacked)
    step(stacked)
    for name, parameter in learner.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name])


@pytest.mark.parametrize("name", LEARNERS)
def test_a_traced_step_gives_the_gradient_of_the_meta_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace itself, for every learner: only the compiler is left out."""
    monkeypatch.setattr(torch, "compile", lambda traced, **_: traced)
    learner, stacked = LEARNERS[name](), tasks()
    step = MetaGradient(learner, 3, compiled=True)
    found = gradients(learner, lambda: step(stacked))
    traced = [program is not None for program in step._programs.values()]
    assert traced == ([False, False] if name == "implicit" else [True, True])  # torch cannot trace that one
    torch.testing.assert_close(found, plain(learner, stacked), rtol=1e-10, atol=1e-12)


def test_another_mode_of_a_part_makes_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda traced, **_: traced)
    learner, stacked = LEARNERS["mixed"](), tasks(2)
    step = MetaGradient(learner, compiled=True)
    step(stacked)
    learner.model[0].eval()
    step(stacked)
    assert len(step._programs) == 2


def test_a_changed_setting_makes_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda traced, **_: traced)
    learner, stacked = LEARNERS["mixed"](), tasks(2)
    step = MetaGradient(learner, compiled=True)
    step(stacked)
    learner.steps = 1
    torch.testing.assert_close(
        gradients(learner, lambda: step(stacked)), plain(learner, stacked), rtol=1e-10, atol=1e-12
    )


def test_what_cannot_be_compiled_runs_as_before_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    class Doubting(Learner):
        """A learner that looks at a number to decide what to do."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

        def adapt(self, support: Batch) -> Tensor:
            return support.y.mT @ support.x * (1 if support.x.sum().item() > 0 else 2)

        def predict(self, state: Tensor, x: Tensor) -> Tensor:
            return self.scale * x @ state.mT

    learner, stacked = Doubting(), tasks(2)
    step = MetaGradient(learner, compiled=True)
    with caplog.at_level(logging.WARNING, "kshot"):
        found = gradients(learner, lambda: step(stacked))
        step(stacked)
    assert [record.message for record in caplog.records if "cannot be compiled" in record.message] != []
    assert len([record for record in caplog.records if "cannot be compiled" in record.message]) == 1
    torch.testing.assert_close(found, plain(learner, stacked))


def test_a_compiler_that_fails_without_a_word_is_logged_by_its_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **more: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(torch, "compile", fail)
    learner, stacked = LEARNERS["mixed"](), tasks(2)
    with caplog.at_level(logging.WARNING, "kshot"):
        MetaGradient(learner, compiled=True)(stacked)
    assert "AssertionError" in caplog.text


class Noisy(nn.Module):
    """Noise whose size depends on no tensor, as a random order of examples does."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(6, dtype=torch.float64)


def test_random_numbers_are_drawn_before_a_traced_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda traced, **_: traced)
    inner = MAML(mlp(), 0.3, 2, "first_order")
    for learner in (Reptile(inner, steps=4, batch_size=3), MAML(nn.Sequential(Noisy(), mlp()), 0.3, 2, "reverse")):
        step, stacked = MetaGradient(learner, 3, compiled=True), tasks()
        for seed in (0, 1):
            torch.manual_seed(seed)
            found = gradients(learner, lambda step=step, stacked=stacked: step(stacked))
            torch.manual_seed(seed)
            whole = MetaGradient(learner, 3)
            expected = gradients(learner, lambda whole=whole, stacked=stacked: whole(stacked))
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        assert None not in step._programs.values()


def test_random_numbers_drawn_twice_are_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixed mode draws those of the inner loop again on its way back: a trace would draw others."""
    monkeypatch.setattr(torch, "compile", lambda traced, **_: traced)
    learner, stacked = MAML(nn.Sequential(Noisy(), mlp()), 0.3, 2, "mixed"), tasks(2)
    step = MetaGradient(learner, compiled=True)
    torch.manual_seed(0)
    found = gradients(learner, lambda: step(stacked))
    torch.manual_seed(0)
    torch.testing.assert_close(found, plain(learner, stacked), rtol=1e-10, atol=1e-12)
    assert list(step._programs.values()) == [None]


@pytest.mark.parametrize("differentiate", ["mixed", "reverse"])
def test_random_steps_that_depend_on_tensors_are_not_compiled(differentiate: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    learner, stacked = MAML(model, 0.3, 2, differentiate).train(), tasks(2)
    step = MetaGradient(learner, compiled=True)
    torch.manual_seed(0)
    loss = step(stacked)
    torch.manual_seed(0)
    assert torch.equal(loss, plain(learner, stacked)[0])


def test_measuring_chunk_sizes_leaves_no_trace() -> None:
    learner, stacked = LEARNERS["mixed"](), tasks()
    learner.model[0].weight.grad = torch.ones(8, 6).double()
    state = torch.get_rng_state()
    step = MetaGradient(learner, "auto")
    step(stacked)
    assert torch.equal(torch.get_rng_state(), state)
    _, once = plain(learner, stacked)
    learner.zero_grad()
    learner.model[0].weight.grad = torch.ones(8, 6).double()
    step(stacked)
    torch.testing.assert_close(learner.model[0].weight.grad, once["model.0.weight"] + 1)


class Greedy(Learner):
    """A learner with memory for so many tasks."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def map_encoded(self, function: Any, tasks: Episode, chunk_size: int | None = None) -> Tensor:
        if len(tasks.query.y) > self.room:
            raise torch.OutOfMemoryError("too many tasks")
        return super().map_encoded(function, tasks, chunk_size)

    def adapt(self, support: Batch) -> Tensor:
        return support.y.mT @ support.x

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return self.scale * x @ state.mT


def test_chunks_that_do_not_fit_into_memory_are_passed_over() -> None:
    learner, stacked = Greedy(2), tasks()
    found = gradients(learner, lambda: MetaGradient(learner, "auto")(stacked))
    learner.room = 5
    torch.testing.assert_close(found, plain(learner, stacked), rtol=1e-10, atol=1e-12)


def test_without_memory_for_one_task_the_error_is_raised_and_gradients_stay() -> None:
    learner = Greedy(0)
    learner.scale.grad = torch.tensor(2.0, dtype=torch.float64)
    with pytest.raises(torch.OutOfMemoryError, match="too many tasks"):
        MetaGradient(learner, "auto")(tasks())
    assert learner.scale.grad == 2


def test_tasks_of_any_sizes_come_as_a_list() -> None:
    learner, stacked = LEARNERS["mixed"](), tasks()
    step = MetaGradient(learner, compiled=True)
    torch.testing.assert_close(gradients(learner, lambda: step(unstack(stacked))), plain(learner, stacked))


@pytest.mark.parametrize("told", [{"chunk_size": 2}, {"compiled": True}], ids=str)
def test_what_is_not_in_compiled_chunks_does_not_run_side_by_side(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="side_by_side needs compiled chunks"):
        MetaGradient(LEARNERS["mixed"](), **told, side_by_side=True)


@pytest.mark.parametrize("size", [0, -1])
def test_a_chunk_of_no_task_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"chunk_size must be at least 1, 'auto' or None; found {size}"):
        MetaGradient(Prototypical(nn.Identity()), size)
