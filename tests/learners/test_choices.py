"""Arguments that no learner or net knows: annotations catch them in these tests, a user has no such help."""

import subprocess
import sys

import pytest

CALLS = {
    'MAML(net, 0.1, 2, "second_order")': "differentiate must be one of 'mixed', 'reverse', 'first_order', 'implicit'; "
    "found 'second_order'.",
    'MAML(net, 0.1, learn_lr="per_param")': "learn_lr must be one of 'per_layer_per_step', 'per_parameter'; found "
    "'per_param'.",
    'MetaLSTM(net, differentiate="implicit")': "differentiate must be one of 'mixed', 'reverse', 'first_order'; found "
    "'implicit'.",
    'ProtoMAML(net, 0.1, differentiate="implicit")': "differentiate must be one of 'mixed', 'reverse', 'first_order'; "
    "found 'implicit'.",
    'InnerLoop(mode="exact")': "mode must be one of 'mixed', 'reverse', 'first_order'; found 'exact'.",
    'MemoryNetwork(5, tying="adjcent")': "tying must be one of 'adjacent', 'layer_wise'; found 'adjcent'.",
    'Recurrent(LSTM(4, 8), net, 2, judged="queries")': "judged must be one of 'stream', 'query'; found 'queries'.",
    'Conv4(downsample="Pool")': "downsample must be one of 'pool', 'stride'; found 'Pool'.",
    "MAML(net, 0.1, rule=adam)": "rule must be an UpdateRule, such as adam() gives; found a function.",
    "FineTune(net, 0.1, rule=adam)": "rule must be an UpdateRule, such as adam() gives; found a function.",
    "MAML(net, -0.1)": "the inner step size must be finite and at least 0; found -0.1.",
    "ProtoMAML(net, float('nan'))": "the inner step size must be finite and at least 0; found nan.",
    "ProtoMAML(net, 0.1, loss=mean_squared_error)": "ProtoMAML classifies; found a loss judged by MSE. For regression take "
    "MAML.",
    "MetaLSTM(net, 0)": "MetaLSTM expects steps of at least 1, for its rule to take; found 0.",
    "MAML(net, 0.1, loss=F.mse_loss)": "loss must be a kshot.losses.Loss, which brings its metric; found a function. "
    "Take one of kshot.losses, or make one: Loss(function, metric, name, higher_is_better).",
    "Reptile(net, 5)": "Reptile moves the start of a MAML; found a Linear. Give it MAML(net, lr).",
    'Conv4(space="means")': "space must be one of 'flatten', 'mean'; found 'means'.",
}
SETTING = """
import torch.nn.functional as F
from torch import nn
from kshot.learners.gradient import MAML, MetaLSTM, ProtoMAML, Reptile
from kshot.learners.gradient.inner_loop import InnerLoop
from kshot.learners.gradient.update_rules import adam
from kshot.learners.memory import MemoryNetwork, Recurrent
from kshot.learners.transfer import FineTune
from kshot.losses import mean_squared_error
from kshot.nets.cells import LSTM
from kshot.nets.conv import Conv4
net = nn.Linear(4, 2)
"""


@pytest.fixture(scope="module")
def messages() -> dict[str, str]:
    """What each call raises in a Python that checks no annotations."""
    body = "".join(
        f"try:\n    {call}\nexcept Exception as error:\n    print(error)\nelse:\n    print()\n" for call in CALLS
    )
    ran = subprocess.run([sys.executable, "-c", SETTING + body], capture_output=True, text=True, check=True)
    return dict(zip(CALLS, ran.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("call", CALLS)
def test_unknown_names_are_refused(call: str, messages: dict[str, str]) -> None:
    assert messages[call] == CALLS[call]
