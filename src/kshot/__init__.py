"""Learn to learn, in plain PyTorch: a learner adapts to a few examples, then predicts."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kshot.audit import check_meta_gradient
    from kshot.contract import check_learner
    from kshot.core import Batch, Episode, Learner, one_hot
    from kshot.evaluation import Evaluation, compare, evaluate
    from kshot.tasks.episodes import Episodes
    from kshot.tasks.labelled import LabelledData
    from kshot.training import train

__version__ = "0.1.0"
__all__ = [
    "Batch",
    "Episode",
    "Episodes",
    "Evaluation",
    "LabelledData",
    "Learner",
    "check_learner",
    "check_meta_gradient",
    "compare",
    "evaluate",
    "one_hot",
    "train",
]

_HOMES = {
    "Batch": "core",
    "Episode": "core",
    "Episodes": "tasks.episodes",
    "Evaluation": "evaluation",
    "LabelledData": "tasks.labelled",
    "Learner": "core",
    "check_learner": "contract",
    "check_meta_gradient": "audit",
    "compare": "evaluation",
    "evaluate": "evaluation",
    "one_hot": "core",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    # Names are imported when first used, so that `kshot --help` does not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'kshot' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kshot.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
