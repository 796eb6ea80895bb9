"""What the options of learners with a memory build."""

import torch

from kshot.cli.build_memory import build_snail
from kshot.cli.learner_options import SNAILOptions


def test_embeddings_start_with_one_length_and_keep_what_the_net_tells_apart() -> None:
    torch.manual_seed(0)
    picture = torch.Size([1, 28, 28])
    *_, down, norm = build_snail(SNAILOptions(), picture).encoder.children()
    features = torch.randn(6, 64)
    torch.testing.assert_close(torch.cdist(down(features), down(features)), torch.cdist(features, features))
    torch.testing.assert_close(norm(down(features)).norm(dim=-1), torch.full((6,), 8.0), atol=1e-3, rtol=0)
