"""Sequences read by compiled steps: the numbers of the plain loop, from one program for all lengths.

The compiler itself runs in the tests of recurrent learners.
"""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from kshot.core import Batch, Episode
from kshot.learners.memory import MANNCell, NTMCell, Recurrent, Transducer
from kshot.losses import bits
from kshot.meta_gradient import MetaGradient
from kshot.nets import steps as module
from kshot.nets.cells import LSTM, Cell, FeedForward, run
from kshot.nets.steps import Steps

CELLS = {
    "LSTM": lambda: LSTM(3, 4, layers=2),
    "FeedForward": lambda: FeedForward(3, 4),
    "NTM": lambda: NTMCell(3, 4, slots=5, width=2, writes=2),
    "NTM, learned start": lambda: NTMCell(3, 4, slots=5, width=2, start="learned"),
    "MANN": lambda: MANNCell(3, 4, slots=5, width=2, heads=2),
}


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trace itself: only the compiler is left out."""
    traced: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda program, **_: traced.append(program) or program)
    return traced


def result_and_gradients(cell: Cell, inputs: Tensor, steps: Steps | None) -> list[Tensor]:
    """Read a batch of sequences; return outputs, the last state, and the gradients of a sum that weighs them unequally."""
    inputs = inputs.clone().requires_grad_()

    def read(one: Tensor) -> list[Tensor]:
        outputs, state = run(cell, one, cell.init())
        return [outputs, *torch.utils._pytree.tree_leaves(state)]

    if steps is None:
        results = vmap(read)(inputs)
    else:
        with steps.active():
            results = vmap(read)(inputs)
    torch.manual_seed(0)
    total = sum((result * torch.randn_like(result)).sum() for result in results)
    found = torch.autograd.grad(total, [inputs, *cell.parameters()], allow_unused=True)
    return [*results, *(torch.zeros(()) if one is None else one for one in found)]


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("length", [1, 6])
def test_steps_give_the_outputs_states_and_gradients_of_the_loop(name: str, length: int) -> None:
    cell, inputs = CELLS[name]().double(), torch.randn(2, length, 3, dtype=torch.float64)
    steps = Steps()
    for found, right in zip(
        result_and_gradients(cell, inputs, steps), result_and_gradients(cell, inputs, None), strict=True
    ):
        torch.testing.assert_close(found, right.to(found.dtype), rtol=1e-10, atol=1e-12)
    assert list(steps._programs.values()) != [None], "it must be the compiled path that is tested"


def test_one_program_reads_sequences_of_every_length_with_and_without_vmap(uncompiled: list[Any]) -> None:
    cell, steps = LSTM(3, 4), Steps()
    with steps.active():
        for length in (1, 2, 5):
            run(cell, torch.randn(length, 3), cell.init())
        assert len(uncompiled) == 2, "the step and its derivative"
        for length in (3, 4):
            vmap(lambda one: run(cell, one, cell.init())[0])(torch.randn(2, length, 3))
        assert len(uncompiled) == 4, "and those of two tasks at once"
        outputs, state = run(cell, torch.randn(0, 3), cell.init())
    assert outputs.shape == (0, 4)
    torch.testing.assert_close(state, cell.init())


@pytest.mark.usefixtures("uncompiled")
def test_a_second_derivative_is_refused_where_it_would_be_wrong() -> None:
    cell, inputs = LSTM(3, 4), torch.randn(5, 3, requires_grad=True)
    with Steps().active():
        outputs, _ = run(cell, inputs, cell.init())
    with pytest.raises(RuntimeError, match="first derivatives alone"):
        torch.autograd.grad(outputs.sum(), inputs, create_graph=True)


@pytest.mark.parametrize("name", ["LSTM", "MANN"])
def test_a_layout_is_one_program_whatever_the_length(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda traced, **how: compiler(traced, **how, backend="eager"))
    cell, steps = CELLS[name](), Steps()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in range(1, 11):
            result_and_gradients(cell, torch.randn(2, length, 3), steps)
            with steps.active():  # one sequence alone, whose first state may hold a tensor twice
                run(cell, torch.randn(length, 3), cell.init())[0].sum().backward()
    assert list(steps._programs.values()) != [None]


class Noisy(FeedForward):
    """A cell whose step draws random numbers."""

    def forward(self, x: Tensor, state: Any) -> Any:
        return nn.functional.dropout(super().forward(x, state)[0], 0.5), state


class Counting(FeedForward):
    """A cell with a state of which one part is passed on as it was."""

    def init(self) -> Any:
        return torch.zeros(1), torch.ones(1)

    def forward(self, x: Tensor, state: Any) -> Any:
        return super().forward(x, ())[0] * state[1], (state[0] + x.sum(-1, keepdim=True), state[1])


class Renaming(FeedForward):
    """A cell whose state comes back in another order."""

    def init(self) -> Any:
        return {"h": torch.zeros(4), "c": torch.ones(4)}

    def forward(self, x: Tensor, state: Any) -> Any:
        h = super().forward(x, ())[0] * state["c"]
        return h, {"c": state["c"] + h, "h": h}


class Growing(Renaming):
    """A cell whose state has one shape at first and another after a step."""

    def init(self) -> Any:
        return {"c": torch.ones(1), "h": torch.zeros(1)}


class Remembering(FeedForward):
    """A cell that passes one of its weights on as its state."""

    def init(self) -> Any:
        return (torch.ones(4),)

    def forward(self, x: Tensor, state: Any) -> Any:
        return super().forward(x, ())[0] * state[0], (self.layer.bias.expand_as(state[0]),)


class Listening(FeedForward):
    """A cell that counts its steps in a buffer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("heard", torch.zeros(()))

    def forward(self, x: Tensor, state: Any) -> Any:
        self.heard.add_(1)
        return super().forward(x, state)


def test_a_cell_that_draws_random_numbers_runs_in_the_loop_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cell, inputs = Noisy(3, 4), torch.randn(5, 3)
    caplog.set_level(logging.WARNING, "kshot")
    with Steps().active():
        for _ in range(2):
            torch.manual_seed(0)
            found, _ = run(cell, inputs, cell.init())
    torch.manual_seed(0)
    torch.testing.assert_close(found, run(cell, inputs, cell.init())[0])
    assert [record.message for record in caplog.records] == [
        "Noisy: a step cannot be compiled, so it runs uncompiled (same numbers): it draws random numbers"
    ]


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("cell", "compiles"),
    [(Counting(3, 4), True), (Remembering(3, 4), True), (Renaming(3, 4), False), (Growing(3, 4), False)],
)
def test_states_that_are_passed_on_or_change_their_form(cell: Cell, compiles: bool) -> None:
    steps, inputs = Steps(), torch.randn(2, 4, 3)
    for found, right in zip(
        result_and_gradients(cell, inputs, steps), result_and_gradients(cell, inputs, None), strict=True
    ):
        torch.testing.assert_close(found, right)
    assert (list(steps._programs.values()) != [None]) == compiles


@pytest.mark.usefixtures("uncompiled")
def test_a_cell_that_writes_into_a_buffer_runs_in_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    cell = Listening(3, 4)
    with Steps().active():
        run(cell, torch.randn(5, 3), ())
    assert cell.heard == 5
    assert "it writes into its state or buffers" in caplog.text


@pytest.mark.usefixtures("uncompiled")
def test_other_modes_are_other_programs() -> None:
    cell, steps, inputs = FeedForward(3, 4), Steps(), torch.randn(2, 3)
    with steps.active():
        for training in (True, False):
            cell.layer.train(training)
            run(cell, inputs, ())
        with torch.autocast("cpu", torch.bfloat16):
            assert run(cell, inputs, ())[0].dtype == torch.bfloat16
        assert run(cell, inputs, ())[0].dtype == torch.float32
    assert len(steps._programs) == 3


@pytest.mark.usefixtures("uncompiled")
def test_tasks_with_weights_of_their_own_run_in_the_loop() -> None:
    cell, inputs = FeedForward(3, 4), torch.randn(2, 5, 3)
    weights = {name: torch.randn(2, *one.shape) for name, one in cell.named_parameters()}

    def read(weights: dict[str, Tensor], one: Tensor) -> Tensor:
        with module.replaced(cell, weights):
            return run(cell, one, ())[0]

    right = vmap(read)(weights, inputs)
    with Steps().active():
        torch.testing.assert_close(vmap(read)(weights, inputs), right)


def test_a_compiled_meta_gradient_of_one_cell_is_compiled_by_the_step(uncompiled: list[Any]) -> None:
    learner = Recurrent(LSTM(3 + 2, 4), nn.Identity(), labels=2)
    y = torch.eye(2).repeat(3, 2, 1)
    tasks = Episode(Batch(torch.randn(3, 4, 3), y), Batch(torch.randn(3, 4, 3), y))
    gradients = []
    for compiled in (True, False):
        learner.zero_grad()
        loss = MetaGradient(learner, compiled=compiled)(tasks)
        gradients.append([loss, *(p.grad for p in learner.parameters())])
    torch.testing.assert_close(*gradients)
    assert len(uncompiled) == 2
    assert Transducer(LSTM(3, 4), 1, bits).one_cell
