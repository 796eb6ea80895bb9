"""From options to learners."""

from pathlib import Path

import torch

from kshot.checkpoint import load_learner
from kshot.cli.build_gradient import build_maml, build_proto_maml, build_reptile
from kshot.cli.build_memory import build_in_context, build_recurrent, build_snail
from kshot.cli.build_metric import build_classifier, build_metric
from kshot.cli.build_tasks import picture_of
from kshot.cli.learner_options import (
    ClassifierOptions,
    InContextOptions,
    LearnerOptions,
    MAMLOptions,
    MetricOptions,
    ProtoMAMLOptions,
    RecurrentOptions,
    ReptileOptions,
    SNAILOptions,
)
from kshot.cli.run_config import learner_name
from kshot.core import Learner

__all__ = ["build_learner", "load_best"]


def build_learner(
    options: LearnerOptions, inner_steps: int | None = None, picture: torch.Size | None = None
) -> Learner:
    """Build the learner with its starting weights, which depend on the seed.

    Args:
        options: what the run was told.
        inner_steps: gradient steps at test time; as in validation by default.
        picture: the shape of its pictures, by default that of its data.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        name, waves = learner_name(options), options.data == "sinusoid"
        if waves and not isinstance(options, MAMLOptions):
            raise ValueError(f"{name} classifies, and sinusoid is regression. Use: kshot train maml --data sinusoid")
        picture = picture_of(options) if picture is None else picture
        match options:
            case MAMLOptions():
                return build_maml(options, picture, inner_steps)
        assert picture is not None
        match options:
            case ReptileOptions():
                return build_reptile(options, picture, inner_steps)
            case ProtoMAMLOptions():
                return build_proto_maml(options, picture[0], inner_steps)
            case _ if inner_steps is not None:
                raise ValueError(f"{name} takes no gradient steps; leave --inner-steps out.")
            case InContextOptions():
                return build_in_context(options, picture)
            case MetricOptions():
                return build_metric(options, picture)
            case ClassifierOptions():
                return build_classifier(options, picture)
            case RecurrentOptions():
                return build_recurrent(options, picture)
            case SNAILOptions():
                return build_snail(options, picture)
    raise TypeError(f"no learner for {type(options).__name__}")


def load_best(
    run: Path, options: LearnerOptions, inner_steps: int | None = None, picture: torch.Size | None = None
) -> Learner:
    """Return the best learner of a run that was told these options.

    Raises:
        ValueError: its checkpoint is damaged or of another learner.
        OSError: it has none.
    """
    learner = build_learner(options, inner_steps, picture)
    load_learner(run / "best.safetensors", learner)
    return learner
