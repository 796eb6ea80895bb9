from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from kshot.core import Batch, Episode, Learner, one_hot
from kshot.evaluation import evaluate
from kshot.learners.memory import MANNCell, MANNState, MemoryNetwork, NeuralProcess, NTMCell, Recurrent
from kshot.losses import strings
from kshot.meta_gradient import MetaGradient
from kshot.nets.cells import LSTM, Cell, FeedForward, run
from kshot.presentations import evaluate_presentations, times_seen
from kshot.tasks.episodes import Episodes
from kshot.tasks.functions import GaussianProcesses
from kshot.tasks.labelled import LabelledData
from kshot.tasks.repeated import Repeated
from kshot.tasks.stories import VOCABULARY, Stories
from kshot.tasks.strings import StringLabels
from kshot.tasks.variable_shots import VariableShots
from kshot.training import train

CELLS: dict[str, Callable[[int], Cell]] = {
    "LSTM": lambda inputs: LSTM(inputs, 8),
    "LSTM of two layers": lambda inputs: LSTM(inputs, 8, 2),
    "MANN": lambda inputs: MANNCell(inputs, 8, slots=12, width=5, heads=2),
    "NTM": lambda inputs: NTMCell(inputs, 8, slots=12, width=5, reads=2, controller="feedforward"),
}


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> Cell:
    torch.manual_seed(0)
    return CELLS[request.param](6 + 3).double()


def stream(length: int = 9) -> Batch:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(length) % 3
    return Batch(torch.randn(length, 6, generator=generator, dtype=torch.float64), one_hot(labels, 3).double())


def learner(cell: Cell) -> Recurrent:
    return Recurrent(cell, nn.Identity(), 3).double()


def rows() -> LabelledData:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return LabelledData.from_arrays(x, torch.arange(60) % 4)


def test_one_example_at_a_time_equals_the_whole_stream(cell: Cell) -> None:
    model, support = learner(cell), stream()
    said, whole = model.read(model.init(), support)
    state = model.init()
    for i in range(len(support.y)):
        one = Batch(support.x[i : i + 1], support.y[i : i + 1])
        torch.testing.assert_close(model.predict(state, one.x)[0], said[i])
        state = model.update(state, one)
    torch.testing.assert_close(state, whole)


def test_the_support_set_may_be_empty_and_longer_than_the_memory(cell: Cell) -> None:
    model = learner(cell)
    empty = Batch(torch.empty(0, 6, dtype=torch.float64), torch.empty(0, 3, dtype=torch.float64))
    torch.testing.assert_close(model.adapt(empty), model.init())
    for support in (empty, stream(60)):
        assert model.predict(model.adapt(support), stream().x).isfinite().all()


def test_the_same_example_twice_is_no_harm_but_no_nothing(cell: Cell) -> None:
    model, once = learner(cell), stream(3)
    twice = Batch(torch.cat([once.x, once.x]), torch.cat([once.y, once.y]))
    first, second = (model.predict(model.adapt(support), once.x) for support in (once, twice))
    assert second.isfinite().all()
    assert (first - second).abs().max() > 1e-6


def test_queries_do_not_see_each_other(cell: Cell) -> None:
    model = learner(cell)
    state, x = model.adapt(stream()), stream(4).x
    torch.testing.assert_close(model.predict(state, x), torch.cat([model.predict(state, one[None]) for one in x]))


def test_a_label_is_read_with_the_example_after_it(cell: Cell) -> None:
    model, support = learner(cell), stream()
    other = support.y.clone()
    other[4] = other[4].roll(1)
    said, changed = (model.read(model.init(), Batch(support.x, y))[0] for y in (support.y, other))
    torch.testing.assert_close(said[:5], changed[:5])
    assert (said[5:] - changed[5:]).abs().amax(1).min() > 0


@pytest.mark.parametrize("kind", ["LSTM", "MANN", "NTM"])
def test_compiled_equals_eager(kind: str) -> None:
    torch.manual_seed(0)
    cell, support = CELLS[kind](6 + 3).double(), stream(2)
    tasks = Episode(*(Batch(*(torch.stack([part, part.flip(0)]) for part in support)) for _ in range(2)))
    model = learner(cell)
    MetaGradient(model)(tasks)
    eager = [p.grad for p in model.parameters()]
    model.zero_grad()
    gradient = MetaGradient(model, compiled=True)
    gradient(tasks)
    assert list(gradient._steps._programs.values()) not in ([], [None]), "it ran uncompiled"
    for one, other in zip(eager, model.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_the_judged_part_is_told_by_an_argument() -> None:
    cell = LSTM(9, 8).double()
    task = Episode(stream(), stream(3))
    model = learner(cell)
    whole = model.task_loss(task)
    said, state = model.read(model.init(), task.support)
    expected = torch.cat([said, model.predict(state, task.query.x)])
    torch.testing.assert_close(whole, model.loss(expected, torch.cat([task.support.y, task.query.y])))
    model.judged = "query"
    torch.testing.assert_close(model.task_loss(task), model.loss(model.predict(state, task.query.x), task.query.y))


def plain_mann(cell: MANNCell, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Run the cell slot by slot, as the paper's equations say; return the outputs and the memory."""

    def cosine(one: Tensor, other: Tensor) -> Tensor:
        return one @ other / ((one @ one + 1e-6).sqrt() * (other @ other + 1e-6).sqrt())

    slots, heads, width = cell.slots, cell.heads, cell.width
    memory = [torch.zeros(width).double() for _ in range(slots)]
    usage = [1e-6 * i for i in range(slots)]
    reading = torch.zeros(heads, slots).double()
    read, controller, outputs = torch.zeros(heads * width).double(), cell.controller.init(), []
    for x in inputs:
        hidden, controller = cell.controller(torch.cat([x, read]), controller)
        told = cell.addressing(hidden).reshape(heads, width + 2)
        keys, strengths, gates = told[:, :width].tanh(), (1 + told[:, width].exp()).log(), told[:, width + 1].sigmoid()
        least = sorted(range(slots), key=lambda i: usage[i])[:heads]
        writing = torch.zeros(heads, slots).double()
        for i in range(slots):
            for h in range(heads):
                writing[h, i] = gates[h] * reading[h, i] + (1 - gates[h]) * (i == least[h])
            start = torch.zeros(width).double() if i in least else memory[i]
            memory[i] = start + sum(writing[h, i] * keys[h] for h in range(heads))
        reading = torch.stack(
            [torch.stack([strengths[h] * cosine(keys[h], slot) for slot in memory]).softmax(0) for h in range(heads)]
        )
        read = torch.cat([sum(reading[h, i] * memory[i] for i in range(slots)) for h in range(heads)])
        usage = [cell.decay * usage[i] + float(reading[:, i].sum() + writing[:, i].sum()) for i in range(slots)]
        outputs.append(torch.cat([hidden, read]))
    return torch.stack(outputs), torch.stack(memory)


@torch.no_grad()
def test_mann_follows_the_equations_slot_by_slot() -> None:
    torch.manual_seed(0)
    cell = MANNCell(4, 6, slots=7, width=3, heads=2).double()
    inputs = torch.randn(12, 4).double()
    outputs, state = run(cell, inputs, cell.init())
    expected, memory = plain_mann(cell, inputs)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(state.memory, memory)


def different_slots(memory: Tensor) -> int:
    return len({tuple(np.round(slot.tolist(), 8)) for slot in memory})


def after_a_stream(cell: MANNCell) -> MANNState:
    with torch.no_grad():
        state: MANNState = run(cell, torch.randn(10, 4, generator=torch.Generator().manual_seed(2)), cell.init())[1]
    return state


def test_a_mann_writes_different_things_into_its_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cell = MANNCell(4, 6, slots=20, width=3, heads=2)
    assert different_slots(after_a_stream(cell).memory) == 20
    # Heads that write alike to all of the least used slots leave them the same, two by two.
    monkeypatch.setattr(MANNCell, "_least_used", shared(MANNCell._least_used))
    assert different_slots(after_a_stream(cell).memory) == 10
    # A memory written everywhere at once holds the same in all its slots, whatever is written: it is dead.
    monkeypatch.setattr(MANNCell, "_least_used", lambda _, usage: usage.new_full((2, 20), 1 / 40))
    assert different_slots(after_a_stream(cell).memory) == 1


def shared(least_used: Callable[[MANNCell, Tensor], Tensor]) -> Callable[[MANNCell, Tensor], Tensor]:
    return lambda cell, usage: least_used(cell, usage).sum(-2, keepdim=True).expand(2, -1) / 2


@pytest.mark.parametrize("sizes", [{"heads": 0}, {"slots": 1}, {"hidden": 0}, {"width": 0}])
def test_sizes_that_make_no_memory_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"a slot for each head; found|must be at least 1; found 0"):
        MANNCell(4, **{"hidden": 6, "slots": 8, "width": 3, "heads": 2, **sizes})


class Nearest(Learner):
    """It keeps what it is shown, and answers with the label of the nearest."""

    def init(self) -> Batch:
        return Batch(torch.empty(0, 1), torch.empty(0, 5))

    def update(self, state: Batch, support: Batch) -> Batch:
        return Batch(*(torch.cat(pair) for pair in zip(state, support, strict=True)))

    def adapt(self, support: Batch) -> Batch:
        return self.update(self.init(), support)

    def predict(self, state: Batch, x: Tensor) -> Tensor:
        return (-(x - state.x.mT).square()).exp() @ state.y


def test_a_class_is_known_from_its_second_presentation_on() -> None:
    data = LabelledData.from_arrays(10 * torch.arange(40).div(4, rounding_mode="floor")[:, None], torch.arange(40) // 4)
    found = evaluate_presentations(Nearest(), Episodes(data, 5, 3, 1, length=300), (1, 2, 3))
    assert found[1].mean < 0.5  # the first time nobody can know
    assert found[2].mean == found[3].mean == 1
    assert found[2].stamp["presentation"] == "2"
    assert len(found[2].scores) == 300


def test_what_has_no_label_is_of_no_class_and_judged_nowhere() -> None:
    data = LabelledData.from_arrays(10 * torch.arange(40).div(4, rounding_mode="floor")[:, None], torch.arange(40) // 4)
    tasks = Episodes(data, 5, 2, 1, unlabelled=1, length=20)
    assert evaluate_presentations(Nearest(), tasks, (2,))[2].mean == 1


def test_times_seen_counts_labels_of_any_kind() -> None:
    tasks = Episodes(rows(), 3, 4, 1, length=6)
    drawn, spelled = tasks.sample(np.arange(6)), StringLabels(tasks).sample(np.arange(6))
    times = times_seen(drawn.support.y)
    torch.testing.assert_close(times, times_seen(spelled.support.y))
    for y, counts in zip(drawn.support.y, times, strict=True):
        seen = [0] * 3
        for row, count in zip(y, counts, strict=True):
            seen[int(row.argmax())] += 1
            assert seen[int(row.argmax())] == count


def test_presentations_refuse_what_they_cannot_judge() -> None:
    from kshot.learners.gradient import MAML

    tasks = Episodes(rows(), 3, 2, 1, length=4)
    with pytest.raises(TypeError, match="MAML has no init and no update"):
        evaluate_presentations(MAML(nn.Linear(6, 3), 0.1), tasks)
    with pytest.raises(ValueError, match="no class comes 3 times"):
        evaluate_presentations(learner(LSTM(9, 4)), tasks, (1, 3))
    with pytest.raises(ValueError, match="counted from 1; found 0"):
        evaluate_presentations(learner(LSTM(9, 4)), tasks, (0, 1))
    with pytest.raises(ValueError, match="this NeuralProcess is judged by log-likelihood"):
        evaluate_presentations(NeuralProcess(1), GaussianProcesses(shots=3), (1,))
    with pytest.raises(ValueError, match="have none"):
        evaluate_presentations(MemoryNetwork(len(VOCABULARY)), Stories("one_fact", length=2), (1,))


def test_strings_are_judged_as_strings_and_nothing_else_is() -> None:
    classes = Episodes(rows(), 3, 2, 1, length=4)
    letters, by_class = StringLabels(classes), Recurrent(LSTM(6 + 25, 4), nn.Identity(), 25).double()
    by_letter = Recurrent(LSTM(6 + 25, 4), nn.Identity(), 25, strings).double()
    for wrapped in (letters, Repeated(letters, 2), VariableShots(letters, (1, 6))):
        assert evaluate(by_letter, wrapped).metric == "accuracy"
    for refused in (evaluate, evaluate_presentations, lambda *given: train(*given, steps=1)):
        with pytest.raises(ValueError, match="are strings, and the loss of this Recurrent is not for strings"):
            refused(by_class, Repeated(letters, 2))
    with pytest.raises(
        ValueError, match="the loss of this Recurrent is for strings, and labels of these tasks are none"
    ):
        evaluate(by_letter, classes)


def test_a_result_names_the_cell() -> None:
    tasks = Episodes(rows(), 3, 2, 1, length=4)
    cells = [evaluate(learner(cell), tasks).stamp["cell"] for cell in (LSTM(9, 4), MANNCell(9, 4, slots=5))]
    assert cells == ["LSTM", "MANNCell"]


def test_a_feedforward_cell_remembers_nothing() -> None:
    cell = FeedForward(4, 6)
    x = torch.randn(3, 4)
    outputs, state = run(cell, x, cell.init())
    assert state == ()
    torch.testing.assert_close(outputs[2], cell(x[2], ())[0])


def test_another_number_of_labels_is_refused() -> None:
    two = Batch(torch.zeros(4, 6).double(), one_hot([0, 1, 0, 1], 2).double())
    with pytest.raises(ValueError, match="built for labels=3; found y with 2 columns"):
        learner(LSTM(9, 4).double()).adapt(two)
    with pytest.raises(ValueError, match="labels must be at least 1; found 0"):
        Recurrent(LSTM(9, 4), nn.Identity(), 0)


def test_a_cell_for_other_inputs_is_refused(cell: Cell) -> None:
    with pytest.raises(ValueError, match="was built for inputs=9; found 10 features"):
        Recurrent(cell, nn.Identity(), 4).adapt(Batch(torch.zeros(2, 6).double(), torch.zeros(2, 4).double()))


def test_a_cell_differentiates_twice_alone_and_under_vmap(cell: Cell) -> None:
    inputs = torch.randn(2, 3, 9, dtype=torch.float64)

    def last(x: Tensor) -> Tensor:
        return run(cell, x, cell.init())[0][-1].square().sum()

    def of_gradient(x: Tensor) -> Tensor:
        return grad(last)(x).square().sum()

    assert torch.autograd.gradcheck(grad(last), inputs[0].clone().requires_grad_())
    torch.testing.assert_close(vmap(grad(of_gradient))(inputs), torch.stack([grad(of_gradient)(x) for x in inputs]))
