"""What the options of learners with a memory build."""

import torch

from kshot.cli.build_memory import build_recurrent, build_snail
from kshot.cli.learner_options import RecurrentOptions, SNAILOptions


def test_embeddings_start_with_one_length_and_keep_what_the_net_tells_apart() -> None:
    torch.manual_seed(0)
    picture = torch.Size([1, 28, 28])
    *_, down, norm = build_snail(SNAILOptions(), picture).encoder.children()
    features = torch.randn(6, 64)
    torch.testing.assert_close(torch.cdist(down(features), down(features)), torch.cdist(features, features))
    torch.testing.assert_close(norm(down(features)).norm(dim=-1), torch.full((6,), 8.0), atol=1e-3, rtol=0)


def test_what_a_cell_reads_starts_mostly_zero() -> None:
    torch.manual_seed(0)
    learner = build_recurrent(RecurrentOptions(), torch.Size([1, 20, 20]))
    _, *behind = learner.encoder.children()
    read = torch.nn.Sequential(*behind)(torch.randn(50, 64))
    assert read.shape == (50, learner.cell.inputs - learner.labels)
    assert 0.13 < (read > 0).float().mean() < 0.19  # a sixth of N(0, 1) is above 1
