"""From options to learners that read the support set."""

import torch
from torch import nn

from kshot.cli.features import features_of
from kshot.cli.learner_options import InContextOptions, RecurrentOptions, SNAILOptions
from kshot.learners.memory import SNAIL, InContext, MANNCell, NTMCell, Recurrent
from kshot.losses import LETTERS, cross_entropy, strings
from kshot.nets.cells import LSTM, Cell
from kshot.nets.conv import Conv4
from kshot.tasks.strings import LENGTH

__all__ = ["build_in_context", "build_recurrent", "build_snail"]

_EMBEDDED = 64  # what a picture comes to in front of a sequence, as in the paper of SNAIL
_SPARSE = 400  # what it comes to in front of a cell: as many numbers as MANN's pictures have pixels


def build_recurrent(options: RecurrentOptions, picture: torch.Size) -> Recurrent:
    """Build a recurrent learner with the cell that the options name."""
    told = options.labels == "strings"
    labels = LENGTH * LETTERS if told else options.ways
    encoder: nn.Module = nn.Flatten() if options.flat else _sparse(options.filters, picture)
    inputs = labels + (picture.numel() if options.flat else _SPARSE)
    return Recurrent(_cell(options, inputs), encoder, labels, strings if told else cross_entropy)


def _cell(options: RecurrentOptions, inputs: int) -> Cell:
    match options.cell:
        case "mann":
            return MANNCell(inputs, options.hidden, options.slots, options.width, options.heads)
        case "ntm":
            return NTMCell(inputs, options.hidden, options.slots, options.width, options.heads)
        case "lstm":
            return LSTM(inputs, options.hidden)


def build_snail(options: SNAILOptions, picture: torch.Size) -> SNAIL:
    """Build SNAIL for sequences of a support set and one query."""
    length = options.ways * (options.shots or 1) + 1
    return SNAIL(_embedding(options.filters, picture), _EMBEDDED, options.ways, length)


def build_in_context(options: InContextOptions, picture: torch.Size) -> InContext:
    """Build an in-context transformer on a convolutional net."""
    encoder = Conv4(picture[0], options.filters)
    most = max(100, options.train_ways)
    return InContext(encoder, features_of(encoder, picture), blocks=options.blocks, max_ways=most)


def _embedding(filters: int, picture: torch.Size) -> nn.Module:
    """Return a net whose embeddings start with one length, so that their dot products, for attention, tell likeness."""
    conv = Conv4(picture[0], filters)
    map_down = nn.Linear(features_of(conv, picture), _EMBEDDED)
    nn.init.orthogonal_(map_down.weight)
    return nn.Sequential(conv, map_down, nn.LayerNorm(_EMBEDDED))


def _sparse(filters: int, picture: torch.Size) -> nn.Module:
    """Return a net whose embeddings start wide and mostly zero, like ink on paper: cells bind labels to such soonest."""
    conv = Conv4(picture[0], filters)
    features = features_of(conv, picture)
    widen = nn.Linear(features, _SPARSE)
    nn.init.normal_(widen.weight, std=features**-0.5)
    nn.init.constant_(widen.bias, -1.0)  # which leaves a sixth of them above zero
    return nn.Sequential(conv, nn.LayerNorm(features), widen, nn.ReLU())
