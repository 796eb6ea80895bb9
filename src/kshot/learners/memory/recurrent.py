"""A recurrent net that reads examples one after the other, each with the label of the one before."""

from typing import Literal, NamedTuple, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch, Episode
from kshot.learners.encoded import EncodedLearner
from kshot.losses import Loss, cross_entropy
from kshot.nets.cells import Cell, State, run
from kshot.validation import check_choice, check_sizes

__all__ = ["Reading", "Recurrent"]

Judged: TypeAlias = Literal["stream", "query"]


class Reading(NamedTuple):
    """The state of the cell, and the label ``(labels,)`` of the last example, which it has not read yet."""

    cell: State
    label: Tensor


@final
class Recurrent(EncodedLearner):
    r"""Read the support set as a stream, and predict what a query's label would be if it came next.

    .. math::
        o_t, s_t = \mathrm{cell}([f(x_t), y_{t-1}], s_{t-1}), \qquad \hat y_t = W o_t + b

    An example comes with the label of the one before, so that the net must hold it in its state until that label comes.
    With an ``LSTM`` it is the meta-learner of Sepp Hochreiter, Steven Younger, Peter Conwell 2001, "Learning to learn
    using gradient descent"; with a ``MANNCell`` that of Adam Santoro et al. 2016, "Meta-learning with memory-augmented
    neural networks".

    Args:
        cell: reads ``encoded features + labels`` inputs.
        encoder: maps ``(m, *features)`` to ``(m, d)``, each example alone.
        labels: features of a label, as many as ways; the number of classes is built in.
        loss: what predictions are judged by.
        judged: ``"stream"`` judges support examples too, each as it comes and before its label is shown, as the papers
            do; ``"query"`` judges queries alone.

    Raises:
        ValueError: there is no such ``judged``, or no label.
    """

    order_sensitive = True
    fixed_ways = True
    uses_unlabelled = True
    one_cell = True

    def __init__(
        self,
        cell: Cell,
        encoder: nn.Module,
        labels: int,
        loss: Loss = cross_entropy,
        *,
        judged: Judged = "stream",
    ) -> None:
        check_choice("judged", judged, Judged)
        check_sizes(labels=labels)
        super().__init__(encoder, loss)
        self.settings = {"cell": type(cell).__name__}
        self.cell, self.labels, self.judged = cell, labels, judged
        self.readout = nn.Linear(cell.outputs, labels)

    def init(self) -> Reading:
        """Return the state before the first example."""
        return Reading(self.cell.init(), self.readout.weight.new_zeros(self.labels))

    def update(self, state: Reading, support: Batch) -> Reading:
        """Return the state after more examples."""
        return self.read(state, support)[1]

    def adapt(self, support: Batch) -> Reading:
        """Return the state after the support set."""
        return self.update(self.init(), support)

    def predict(self, state: Reading, x: Float[Tensor, "q d"]) -> Float[Tensor, "q labels"]:
        """Predict each query as if it alone came next."""
        output, _ = self.cell(torch.cat([x, state.label.expand(len(x), -1)], -1), state.cell)
        prediction: Tensor = self.readout(output)
        return prediction

    def read(self, state: Reading, support: Batch) -> tuple[Float[Tensor, "n labels"], Reading]:
        """Return what each example of a stream is taken for before its label is shown, and the state after all.

        Raises:
            ValueError: x or y has another number of columns than the learner was built for.
        """
        if support.y.shape[1] != self.labels:
            raise ValueError(
                f"this Recurrent was built for labels={self.labels}; found y with {support.y.shape[1]} columns. Labels are "
                "part of its input: build and train one with as many."
            )
        labels = torch.cat([state.label[None], support.y])
        outputs, cell = run(self.cell, torch.cat([support.x, labels[:-1]], -1), state.cell)
        return self.readout(outputs), Reading(cell, labels[-1])

    def task_loss(self, task: Episode) -> Tensor:
        """Return the loss of one encoded task, of its stream and its queries, or of its queries alone."""
        if self.judged == "query":
            return super().task_loss(task)
        seen, state = self.read(self.init(), task.support)
        predictions = torch.cat([seen, self.predict(state, task.query.x)])
        return self.loss(predictions, torch.cat([task.support.y, task.query.y]))
