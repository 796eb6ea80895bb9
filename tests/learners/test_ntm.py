import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.batching import leaves
from kshot.core import Batch
from kshot.learners.memory import NTMCell, Transducer
from kshot.learners.memory.ntm import Controller, NTMState, similarity
from kshot.losses import bit_errors, bits
from kshot.nets.cells import LSTM, Cell, FeedForward
from kshot.tasks.copying import Copy
from kshot.training import train


def ntm(controller: Controller = "lstm", heads: int = 1, slots: int = 7) -> NTMCell:
    return NTMCell(3, hidden=6, slots=slots, width=4, reads=heads, writes=heads, controller=controller).double()


def inputs(count: int) -> Tensor:
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def after(cell: NTMCell, x: Tensor) -> NTMState:
    state = cell.init()
    for one in x:
        _, state = cell(one, state)
    return state


def cosine(u: list[float], v: list[float]) -> float:
    lengths = [math.sqrt(sum(a * a for a in w) + 1e-6) for w in (u, v)]
    return sum(a * b for a, b in zip(u, v, strict=True)) / (lengths[0] * lengths[1])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def addressed(told: list[float], memory: list[list[float]], before: list[float]) -> list[float]:
    """Equations 5 to 9 of the paper, one slot at a time."""
    slots, width = len(memory), len(memory[0])
    key = [math.tanh(k) for k in told[:width]]
    strength, gate, *shift, sharpness = told[width:]
    strength, gate, sharpness = softplus(strength), sigmoid(gate), 1 + softplus(sharpness)
    shift = [math.exp(s) / sum(map(math.exp, shift)) for s in shift]  # by -1, 0 and 1
    content = [math.exp(strength * cosine(key, slot)) for slot in memory]
    content = [c / sum(content) for c in content]
    gated = [gate * c + (1 - gate) * w for c, w in zip(content, before, strict=True)]
    moved = []
    for i in range(slots):
        moved.append(0.0)
        for j in range(slots):
            if (i - j) % slots in (0, 1, slots - 1):
                moved[i] += gated[j] * shift[{slots - 1: 0, 0: 1, 1: 2}[(i - j) % slots]]
    sharp = [w**sharpness for w in moved]
    return [w / sum(sharp) for w in sharp]


@pytest.mark.parametrize("heads", [1, 2])
def test_one_step_by_a_plain_loop_over_slots(heads: int) -> None:
    cell = ntm(heads=heads)
    with torch.no_grad():
        cell.addressing.weight *= 5  # gates, shifts and strengths far from their means
    before, x = after(cell, inputs(4)), inputs(5)[4]
    output, state = cell(x, before)
    hidden, _ = cell.controller(torch.cat([x, before.read]), before.controller)
    told = cell.addressing(hidden).reshape(2 * heads, -1).tolist()
    memory, old = before.memory.tolist(), before.addresses.tolist()
    addresses = [addressed(told[head], memory, old[head]) for head in range(2 * heads)]
    torch.testing.assert_close(state.addresses, torch.tensor(addresses, dtype=torch.float64))

    erase, add = (part.tolist() for part in cell.writing(hidden).reshape(heads, 2, -1).unbind(1))
    writing = addresses[heads:]
    for i, slot in enumerate(memory):
        for w, e in zip(writing, erase, strict=True):  # equation 3: all heads erase before any adds
            slot[:] = [value * (1 - w[i] * sigmoid(e[k])) for k, value in enumerate(slot)]
        for w, a in zip(writing, add, strict=True):  # equation 4
            slot[:] = [value + w[i] * math.tanh(a[k]) for k, value in enumerate(slot)]
    torch.testing.assert_close(state.memory, torch.tensor(memory, dtype=torch.float64))

    read = [sum(w[i] * memory[i][k] for i in range(7)) for w in addresses[:heads] for k in range(4)]  # equation 2
    torch.testing.assert_close(output, torch.cat([hidden, torch.tensor(read, dtype=torch.float64)]))


def test_addresses_are_distributions_and_gates_reach_their_ends() -> None:
    cell = ntm()
    state = after(cell, inputs(5))
    torch.testing.assert_close(state.addresses.sum(-1), torch.ones(2, dtype=torch.float64))
    with torch.no_grad():
        cell.addressing.weight.zero_()
        bias = cell.addressing.bias.reshape(2, -1)
        bias.zero_()
        bias[:, 5], bias[:, 6:9], bias[:, 9] = -30.0, torch.tensor([-30.0, -30.0, 30.0]), -30.0
    _, onward = cell(inputs(1)[0], state)
    torch.testing.assert_close(onward.addresses, state.addresses.roll(1, -1))  # by place alone: one step on


def slots_differ(cell: NTMCell) -> bool:
    return after(cell, inputs(6)).memory.std(0).max().item() > 1e-3


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_slots_come_to_differ_unless_the_first_addresses_are_uniform(controller: Controller) -> None:
    cell = ntm(controller)
    assert slots_differ(cell)
    torch.nn.init.zeros_(cell.first_addresses)  # dead: every slot is written the same for ever
    assert not slots_differ(cell)


def test_writing_the_same_twice_goes_on_in_memory() -> None:
    cell, x = ntm(), inputs(1)
    once, twice = after(cell, x), after(cell, x.repeat(2, 1))
    assert not torch.allclose(once.memory, twice.memory)
    assert twice.memory.isfinite().all()


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_a_state_without_leading_axes_is_shared(controller: Controller) -> None:
    cell, x = ntm(controller, heads=2), inputs(6)
    state = after(cell, x[:2])
    outputs, states = cell(x[2:], state)
    for i, one in enumerate(x[2:]):
        output, expected = cell(one, state)
        torch.testing.assert_close(outputs[i], output)
        torch.testing.assert_close(states.memory[i], expected.memory)
        torch.testing.assert_close(states.read[i], expected.read)


CELLS = {"lstm": lambda: LSTM(3, 5, 2).double(), "ntm": ntm, "ntm, feedforward": lambda: ntm("feedforward", 2)}


@pytest.mark.parametrize("cell", CELLS)
def test_a_stream_one_at_a_time_equals_the_whole(cell: str) -> None:
    learner = Transducer(CELLS[cell](), 2, bits).double()
    x = inputs(9)
    whole = learner.adapt(Batch(x, x[:, :0]))
    state = learner.init()
    for one in x.split(1):
        state = learner.update(state, Batch(one, one[:, :0]))
    for one, other in zip(leaves(whole), leaves(state), strict=True):
        torch.testing.assert_close(one, other)
    asked = inputs(4)
    torch.testing.assert_close(learner.predict(state, asked), learner.predict(whole, asked))


@pytest.mark.parametrize("cell", CELLS)
def test_an_empty_support_set_leaves_the_first_state(cell: str) -> None:
    learner = Transducer(CELLS[cell](), 2, bits).double()
    x = inputs(4)
    state = learner.adapt(Batch(x[:0], x[:0, :0]))
    torch.testing.assert_close(learner.predict(state, x), learner.predict(learner.init(), x))
    assert learner.predict(state, x[:0]).shape == (0, 2)


@pytest.mark.parametrize("cell", CELLS)
def test_tasks_of_any_length_in_a_list_equal_those_in_a_batch(cell: str) -> None:
    learner = Transducer(CELLS[cell](), 2, bits).double()
    tasks = Copy((1, 40), bits=2, same_length=2, seed=5).sample(np.arange(6))
    assert isinstance(tasks, list)
    tasks = [type(t)(*(Batch(b.x.double(), b.y.double()) for b in t)) for t in tasks]
    losses = learner.task_losses(tasks)
    assert losses.isfinite().all()
    assert len({len(task.query.y) for task in tasks}) > 1
    for loss, task in zip(losses, tasks, strict=True):
        torch.testing.assert_close(loss, learner.task_loss(task))


def test_bits_and_bit_errors_by_a_plain_loop() -> None:
    logits, y = torch.tensor([[0.5, -2.0], [0.0, 3.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    chances = [[sigmoid(z) for z in row] for row in logits.tolist()]
    cost = [
        -math.log2(p if t else 1 - p)
        for ps, ts in zip(chances, y.tolist(), strict=True)
        for p, t in zip(ps, ts, strict=True)
    ]
    assert bits.metric(logits, y).item() == pytest.approx(sum(cost), rel=1e-6)
    assert bits(logits, y).item() == pytest.approx(sum(cost) * math.log(2) / 4, rel=1e-6)
    assert bit_errors.metric(logits, y).item() == 1 / 4
    assert bit_errors(logits, y) == bits(logits, y)


def test_it_learns_to_copy_two_vectors() -> None:
    torch.manual_seed(0)
    cell: Cell = NTMCell(3, hidden=20, slots=8, width=6)
    learner = Transducer(cell, 2, bit_errors)
    tasks = Copy((1, 2), bits=2, seed=0)
    trained = train(
        learner,
        tasks,
        steps=300,
        optimizer=torch.optim.Adam(learner.parameters(), 1e-2),
        validation=Copy((1, 2), bits=2, seed=1, length=64),
        every=100,
    )
    assert trained.best is not None
    assert trained.best < 0.1  # guessing is wrong half the time


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"slots": 0}, {"reads": 0}, {"writes": 0}, {"width": 0}])
def test_sizes_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1; found 0"):
        NTMCell(3, **wrong)


def test_a_learned_start_is_a_table_that_content_looks_up_at_once() -> None:
    torch.manual_seed(0)
    constant, learned = NTMCell(3, hidden=6, slots=7, width=4), NTMCell(3, hidden=6, slots=7, width=4, start="learned")
    x = inputs(1)[0].float()
    state = learned.init()
    assert state.memory.unique(dim=0).shape == (7, 4)
    output, _ = learned(x, state)
    output.square().sum().backward()
    assert learned.first_memory is not None
    assert learned.first_memory.grad is not None
    assert (learned.first_memory.grad != 0).all()
    assert constant.first_memory is None
    # A key that is a slot of it weighs as much as all others together; of a constant memory every slot is as near.
    strength = F.softplus(learned.addressing.bias.view(2, -1)[:, 4])
    torch.testing.assert_close(strength, torch.full((2,), math.log(7)), atol=0.2, rtol=0)
    near = similarity(state.memory[:1], state.memory)
    assert near.argmax() == 0
    equal = similarity(torch.ones(1, 4), constant.init().memory)
    torch.testing.assert_close(equal, equal[:, :1].expand(1, 7))


def test_cells_and_readouts_without_features_are_refused() -> None:
    with pytest.raises(ValueError, match="outputs must be at least 1; found 0"):
        LSTM(3, 0)
    with pytest.raises(ValueError, match="layers must be at least 1; found 0"):
        LSTM(3, 4, 0)
    with pytest.raises(ValueError, match="inputs must be at least 1; found 0"):
        FeedForward(0, 4)
    with pytest.raises(ValueError, match="targets must be at least 1; found 0"):
        Transducer(LSTM(3, 5), 0, bits)


def test_a_transducer_refuses_labels_that_it_would_not_read() -> None:
    learner = Transducer(LSTM(3, 5), 2, bits)
    with pytest.raises(ValueError, match=r"support\.y without columns; found 2"):
        learner.adapt(Batch(torch.zeros(4, 3), torch.zeros(4, 2)))
