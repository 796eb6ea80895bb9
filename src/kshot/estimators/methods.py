"""The methods that an estimator knows by name: which learner each is, and what that adapts to."""

from dataclasses import replace
from typing import Literal, TypeAlias, get_args

from torch import nn

from kshot.core import Learner
from kshot.estimators.familiarity import squared_distances
from kshot.estimators.features import Features, Own
from kshot.learners.gradient import Ridge
from kshot.learners.gradient.update_rules import adam
from kshot.learners.metric import Prototypical
from kshot.learners.transfer import FineTune, LinearProbe

__all__ = ["HEADS", "MethodName", "body_of", "build_method", "features_of", "methods_for"]

MethodName: TypeAlias = Literal["nearest-mean", "ridge", "linear-probe", "fine-tune-last", "fine-tune", "own"]
HEADS: tuple[MethodName, ...] = ("nearest-mean", "ridge", "linear-probe")  # on embeddings that stay as they are
_DEPTHS: dict[str, Literal["all"] | int] = {"fine-tune-last": 1, "fine-tune": "all"}  # blocks that are trained


def methods_for(features: Features) -> tuple[MethodName, ...]:
    """Return the methods that there are for examples like these, the one that asks least of them first.

    Heads are for all; a module of one's own can be fine-tuned, and a learner is a method itself.
    """
    if not isinstance(features, Own):
        return HEADS
    own: tuple[MethodName, ...] = ("own",) if isinstance(features.encoder, Learner) else ()
    body = body_of(features.encoder)
    if body is None:
        return own
    trains = any(parameter.requires_grad for parameter in body.parameters())
    return (*HEADS, *(("fine-tune-last", "fine-tune") if trains else ()), *own)


def features_of(features: Features, method: str) -> Features:
    """Return how examples become what a method adapts to: embeddings, or for fine-tuning what is to be embedded.

    Raises:
        ValueError: there is no such method for this encoder.
    """
    if method not in (there := methods_for(features)):
        why = f" for {features.name}" if method in get_args(MethodName) else ""
        more = " An encoder by name stays as it is: to train it, pass the encoder itself, with trainable=True."
        raise ValueError(
            f"method must be 'auto' or one of {', '.join(there)}{why}; found {method!r}."
            + (more if method in _DEPTHS and not isinstance(features, Own) else "")
        )
    if method == "own" or not isinstance(features, Own):
        return features
    return replace(features, encoder=body_of(features.encoder) or features.encoder, as_it_is=method in _DEPTHS)


def build_method(method: str, features: Features, penalty: float = 1.0, lr: float = 3e-4) -> Learner:
    """Return the learner of a name, for rows of ``features_of``; heads are in float64.

    Args:
        method: its name.
        features: how examples become what it adapts to.
        penalty: of the weights of a last layer.
        lr: the step size of fine-tuning.
    """
    if isinstance(features, Own) and method == "own" and isinstance(features.encoder, Learner):
        return features.encoder.eval()
    if isinstance(features, Own) and method in _DEPTHS:
        rule = adam(eps=1e-4)  # less, and what fits already is moved as far as what does not
        return FineTune(features.encoder, lr, 25, _DEPTHS[method], head="mean", rule=rule).eval()
    nothing = nn.Identity()
    heads: dict[str, Learner] = {
        "nearest-mean": Prototypical(nothing, distance=squared_distances),
        "ridge": Ridge(nothing, penalty=penalty),
        "linear-probe": LinearProbe(nothing, penalty=penalty, steps=15),  # 40 change its weights little
    }
    return heads[method].double().eval()


def body_of(module: nn.Module) -> nn.Module | None:
    """Return the encoder of a learner, where it has one; of another module the module itself.

    Where a learner sees examples as they are, as MAML does, that is a flat row for the others to work on.
    """
    if not isinstance(module, Learner):
        return module
    encoder = getattr(module, "encoder", None)
    if isinstance(encoder, nn.Identity):
        return nn.Flatten()
    return encoder if isinstance(encoder, nn.Module) else None
