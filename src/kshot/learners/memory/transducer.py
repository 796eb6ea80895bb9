"""A recurrent net that is shown a sequence, and then asked for another."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch, Learner
from kshot.losses import Loss
from kshot.nets.cells import Cell, State, run
from kshot.validation import check_sizes

__all__ = ["Transducer"]


@final
class Transducer(Learner):
    r"""Read the support sequence, then answer the queries in their order.

    .. math::
        o_t, s_t = \mathrm{cell}(x_t, s_{t-1}), \qquad \hat y_t = W o_t + b

    Support examples have no labels: all that they show is in x. Each query changes the state that the next one meets.
    Alex Graves, Greg Wayne, Ivo Danihelka 2014, "Neural Turing machines".

    Args:
        cell: reads inputs of x.
        targets: features of y.
        loss: what predictions are judged by, ``bits`` for targets of zeros and ones.

    Raises:
        ValueError: there is no target.
    """

    order_sensitive = True
    fixed_ways = True
    uses_unlabelled = True  # no example has a label
    transductive = True  # what is asked before is part of the sequence
    one_cell = True

    def __init__(self, cell: Cell, targets: int, loss: Loss) -> None:
        check_sizes(targets=targets)
        super().__init__(loss)
        self.cell, self.settings = cell, {"cell": type(cell).__name__}
        self.readout = nn.Linear(cell.outputs, targets)

    def init(self) -> State:
        """Return the state before the first example."""
        return self.cell.init()

    def update(self, state: State, support: Batch) -> State:
        """Return the state after more of the sequence.

        Raises:
            ValueError: examples have labels, which nobody would read, or another number of features than the cell reads.
        """
        if support.y.shape[1]:
            raise ValueError(
                f"Transducer reads no labels and expects a support.y without columns; found {support.y.shape[1]}. Use "
                "Recurrent, which reads examples with their labels, or join them to x."
            )
        return run(self.cell, support.x, state)[1]

    def adapt(self, support: Batch) -> State:
        """Return the state after the support sequence."""
        return self.update(self.init(), support)

    def predict(self, state: State, x: Float[Tensor, "q inputs"]) -> Float[Tensor, "q targets"]:
        """Predict the targets of queries, each in the state that those before it leave."""
        prediction: Tensor = self.readout(run(self.cell, x, state)[0])
        return prediction
