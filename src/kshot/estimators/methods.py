"""The methods that an estimator knows by name: learners on rows that are embedded already."""

from typing import Literal, TypeAlias

from torch import nn

from kshot.core import Learner
from kshot.estimators.familiarity import squared_distances
from kshot.learners.gradient import Ridge
from kshot.learners.metric import Prototypical
from kshot.learners.transfer import LinearProbe

__all__ = ["CANDIDATES", "MethodName", "build_method"]

MethodName: TypeAlias = Literal["nearest-mean", "ridge", "linear-probe"]
CANDIDATES: tuple[MethodName, ...] = ("nearest-mean", "ridge", "linear-probe")


def build_method(method: str | Learner, penalty: float = 1.0) -> Learner:
    """Return the learner of a name, in float64, or the learner that was given, in eval mode.

    Args:
        method: its name, or the learner.
        penalty: of the weights of a last layer.

    Raises:
        ValueError: there is no such method.
    """
    match method:
        case Learner():
            return method.eval()
        case "nearest-mean":
            learner: Learner = Prototypical(nn.Identity(), distance=squared_distances)
        case "ridge":
            learner = Ridge(nn.Identity(), penalty=penalty)
        case "linear-probe":
            learner = LinearProbe(
                nn.Identity(), penalty=penalty, steps=15
            )  # within some hundredths of the weights of 40
        case _:
            raise ValueError(f"method must be 'auto', one of {', '.join(CANDIDATES)}, or a learner; found {method!r}.")
    return learner.double().eval()
