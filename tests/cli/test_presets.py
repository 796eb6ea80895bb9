import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kshot.cli import main
from kshot.cli.learner_options import MAMLOptions, Paper, RecurrentOptions, ReptileOptions
from kshot.cli.presets import with_preset
from kshot.core import Batch, one_hot
from kshot.learners.gradient import MAML


@pytest.mark.parametrize(("ways", "theirs", "steps"), [(5, 0.4, 1), (20, 0.1, 5)])
def test_the_step_of_finn2017_is_that_of_the_code_which_divides_by_the_shots(
    ways: int, theirs: float, steps: int
) -> None:
    told = with_preset(MAMLOptions(preset="finn2017", data="omniglot", ways=ways, shots=2))
    assert isinstance(told, MAMLOptions)
    assert told.inner_lr is not None
    assert told.inner_steps == steps
    torch.manual_seed(0)
    net, labels = nn.Linear(6, ways).double(), torch.arange(ways).repeat(2)
    support = Batch(torch.randn(2 * ways, 6).double(), one_hot(labels, ways).double())
    ours = MAML(net, told.inner_lr).adapt(support)
    summed = F.cross_entropy(net(support.x), labels, reduction="sum") / 2
    for (name, weight), gradient in zip(
        net.named_parameters(), torch.autograd.grad(summed, list(net.parameters())), strict=True
    ):
        torch.testing.assert_close(ours[name], weight - theirs * gradient)


@pytest.mark.parametrize(
    ("paper", "data", "ways", "expected"),
    [
        ("finn2017", "omniglot", 5, {"protocol": "finn", "test_steps": 3, "tasks_per_step": 32, "steps": 60_000}),
        ("finn2017", "miniimagenet", 5, {"filters": 32, "inner_lr": 0.05, "test_steps": 10, "clip": 10.0}),
        ("finn2017", "sinusoid", 5, {"inner_lr": 0.01, "tasks_per_step": 25, "steps": 70_000}),
        ("li2017", "omniglot", 5, {"learn_lr": "per_parameter", "inner_steps": 1}),
        ("antoniou2019", "omniglot", 20, {"per_step_norm": True, "multi_step": 0.1, "cosine": True, "inner_lr": 0.1}),
        ("rajeswaran2019", "omniglot", 5, {"differentiate": "implicit", "inner_steps": 16, "inner_lr": 0.1}),
        ("zintgraf2019", "sinusoid", 5, {"adapts": "context", "inner_lr": 1.0}),
        ("raghu2020", "omniglot", 20, {"adapts": "head", "inner_steps": 5}),
        ("zintgraf2019", "omniglot", 5, {"adapts": "context", "protocol": "finn", "queries": 1}),
        ("oh2021", "omniglot", 5, {"adapts": "body", "protocol": "finn", "queries": 1}),
        ("oh2021", "miniimagenet", 5, {"adapts": "body", "inner_lr": 0.5, "tasks_per_step": 4}),
    ],
)
def test_a_preset_has_the_settings_of_its_paper(paper: Paper, data: str, ways: int, expected: dict[str, Any]) -> None:
    told = with_preset(MAMLOptions(preset=paper, data=data, ways=ways))
    assert {name: getattr(told, name) for name in expected} == pytest.approx(expected)


def test_reptile_has_its_own() -> None:
    stream = with_preset(RecurrentOptions(preset="santoro2016", data="omniglot"))
    assert (stream.protocol, stream.shots, stream.flat, stream.steps) == ("mann", 10, True, 100_000)
    told = with_preset(ReptileOptions(preset="nichol2018", data="omniglot", ways=20))
    expected = {"inner_steps": 10, "batch_size": 20, "inner_lr": 5e-4, "steps": 200_000, "protocol": "reptile"}
    assert {name: getattr(told, name) for name in expected} == expected


@pytest.mark.parametrize(
    "options",
    [
        MAMLOptions(preset="finn2017", data="omniglot", ways=7),
        MAMLOptions(preset="antoniou2019", data="sinusoid"),
        MAMLOptions(preset="oh2021", data="sinusoid"),
        MAMLOptions(preset="oh2021", data="omniglot", ways=20),
        MAMLOptions(preset="zintgraf2019", data="glyphs"),
        MAMLOptions(preset="rajeswaran2019"),
        MAMLOptions(preset="rajeswaran2019", data="omniglot", shots=5),
        ReptileOptions(preset="nichol2018", data="glyphs"),
    ],
)
def test_what_a_paper_did_not_do_is_refused(options: MAMLOptions | ReptileOptions) -> None:
    with pytest.raises(
        ValueError, match=rf"--preset {options.preset} has settings for .*; found --data {options.data}"
    ):
        with_preset(options)


def test_the_command_line_goes_before_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "train maml --preset finn2017 --data sinusoid --tasks-per-step 2 --steps 1 --val-tasks 2 --inner-steps 1"
    monkeypatch.setattr("sys.argv", ["kshot", *words.split(), "--out", str(tmp_path / "run")])
    main()
    told = json.loads((tmp_path / "run" / "config.json").read_text())["options"]
    assert (told["tasks_per_step"], told["steps"], told["inner_lr"]) == (2, 1, 0.01)
