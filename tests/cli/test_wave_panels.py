"""The report of a run on sine waves shows what its own learner answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import nn

from kshot.cli.build import build_learner
from kshot.cli.learner_options import MAMLOptions
from kshot.cli.report import wave_panels
from kshot.core import Batch, Episode
from kshot.learners.gradient import MAML
from kshot.learners.gradient.update_rules import adam
from kshot.losses import mean_squared_error

Kshot = Callable[..., Any]
ADAPTS = get_args(get_type_hints(MAMLOptions)["adapts"])


def build(**told: Any) -> MAML:
    learner = build_learner(MAMLOptions(data="sinusoid", inner_lr=0.1, inner_steps=2, **told))
    assert isinstance(learner, MAML)
    return learner


LEARNERS: dict[str, Callable[[], MAML]] = {
    **{f"adapts {name}": lambda name=name: build(adapts=name) for name in ADAPTS},
    "implicit": lambda: build(differentiate="implicit"),
    "learned sizes": lambda: build(learn_lr="per_layer_per_step"),
    "adam": lambda: MAML(nn.Linear(1, 1), 0.1, 2, loss=mean_squared_error, rule=adam()),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_wave_is_drawn_as_the_learner_predicts_it(name: str) -> None:
    learner = LEARNERS[name]()
    (panel,) = wave_panels({"MAML": learner}, (0, 1, 2, 10))
    assert list(panel.curves) == ["before", "after 1 step", "after 2 steps", "after 10 steps"]
    asked = Episode(panel.support, Batch(panel.x[:, None], panel.truth[:, None]))
    assert learner.training
    (expected,) = learner.eval().predictions([asked])  # which takes two steps
    torch.testing.assert_close(panel.curves["after 2 steps"], expected[:, 0])
    before = learner.predict(learner.split_weights()[0], learner.encode(panel.x[:, None]))
    torch.testing.assert_close(panel.curves["before"], before[:, 0])


@pytest.mark.parametrize("adapts", ADAPTS)
def test_every_variant_has_a_report(kshot: Kshot, adapts: str, tmp_path: Path) -> None:
    small = ("--val-tasks", 2, "--tasks-per-step", 2, "--steps", 1, "--out", tmp_path / "run")
    ran = kshot("train", "maml", "--data", "sinusoid", "--adapts", adapts, *small)
    assert ran.code == 0, ran.err
    assert "A wave it had never seen" in (tmp_path / "run" / "report.html").read_text()
