"""``--encoder-from``: begin with what another run has learned to see."""

from pathlib import Path

from torch import nn

from kshot.cli.build import load_best
from kshot.cli.learner_options import LearnerOptions
from kshot.cli.run_config import data_name, load_config, picture_shape
from kshot.nets.conv import Conv4
from kshot.nets.norm import PerStepNorm

__all__ = ["copy_encoder", "freeze_encoder"]


def copy_encoder(learner: nn.Module, options: LearnerOptions, run: Path) -> None:
    """Copy the trained convolutional net of a run into a learner.

    Raises:
        ValueError: the run saw classes that are not for training here, or the nets differ.
    """
    told = load_config(run)
    same = (told.data, told.protocol) == (data_name(options), options.protocol)
    if not same or (told.with_val and not options.with_val):
        # Its training classes could be validation or test classes here.
        raise ValueError(
            f"--encoder-from needs a run on the same training classes; {run} has --data {told.data} --protocol "
            f"{told.protocol}{' --with-val' * told.with_val}."
        )
    source = _net(load_best(run, told, picture=picture_shape(run)), f"the learner of {run}")
    target = _net(learner, "this learner")
    if source.downsample != target.downsample:  # of which the weights know nothing
        raise ValueError(
            f"--encoder-from needs a net of the same layers; that of {run} halves pictures by {source.downsample}, this "
            f"learner's by {target.downsample}: see --net."
        )
    wanted = target.state_dict()  # layers that normalise by the examples at hand keep no running averages
    norms = [name for name, layer in target.named_modules() if isinstance(layer, PerStepNorm)]
    per_step = {f"{name}.{part}" for name in norms for part in ("weight", "bias")}
    try:
        target.load_state_dict(
            {
                name: value.expand_as(wanted[name]) if name in per_step else value  # a copy for each step
                for name, value in source.state_dict().items()
                if name in wanted
            }
        )
    except RuntimeError as error:
        raise ValueError(
            f"--encoder-from needs a net of the same layers; that of {run} has other filters, channels or normalisation."
        ) from error


def freeze_encoder(learner: nn.Module, options: LearnerOptions) -> None:
    """Keep training from the convolutional net of a learner.

    Raises:
        ValueError: nothing was copied into it, or it has no other weights.
    """
    if options.encoder_from is None:
        raise ValueError("--freeze-encoder leaves the net of another run as it is; say which by --encoder-from.")
    _net(learner, "this learner").requires_grad_(False)
    if not any(parameter.requires_grad for parameter in learner.parameters()):
        raise ValueError(f"--freeze-encoder leaves this {type(learner).__name__} nothing to train; it is all encoder.")


def _net(learner: nn.Module, whose: str) -> Conv4:
    nets = [module for module in learner.modules() if isinstance(module, Conv4)]
    if len(nets) != 1:
        raise ValueError(f"--encoder-from copies a convolutional net, and {whose} has {len(nets)}.")
    return nets[0]
