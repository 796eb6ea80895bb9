import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODELS = """
import torch
from torch import nn

from neighbour import WIDTH

net = nn.Sequential(nn.Flatten(), nn.Linear(16, WIDTH), nn.LayerNorm(WIDTH), nn.Tanh(), nn.Linear(WIDTH, 3))
width = 8


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def reader():
    return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 3))


def regressor():
    return nn.Linear(6, 2)


def averaging():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3))


def number():
    return 3


def pair():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    return Pair()
"""


Doctor = Callable[..., Any]


@pytest.fixture
def doctor(kshot: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "neighbour.py").write_text("WIDTH = 5\n")
    return functools.partial(kshot, "doctor")


PICTURES = ("--input", "1,4,4", "--ways", 3, "--shots", 2, "--tasks", 2, "--steps", 1, 2)


@pytest.mark.parametrize("name", ["net", "Net"])
def test_a_sound_model_leaves_with_zero(doctor: Doctor, name: str) -> None:
    ran = doctor(f"models.py:{name}", *PICTURES)
    assert ran.code == 0, ran.out + ran.err
    for words in ("mixed, vmap", "reverse, loop", "finite differences", "1 step", "2 steps", "peak memory of 2 tasks"):
        assert words in ran.out
    assert "The meta-gradient of this model is exact." in ran.out


def test_a_model_that_an_inner_loop_cannot_take_leaves_with_one(doctor: Doctor) -> None:
    ran = doctor("models.py:averaging", *PICTURES)
    assert ran.code == 1
    assert "wrong" in ran.out
    assert "track_running_stats=False" in ran.out
    assert "is not exact" in ran.out


def test_tokens_and_regression(doctor: Doctor) -> None:
    ran = doctor("models.py:reader", "--input", 6, "--integers", 9, "--ways", 3, "--tasks", 2, "--steps", 1)
    assert ran.code == 0, ran.out + ran.err
    ran = doctor("models.py:regressor", "--input", 6, "--targets", 2, "--tasks", 2, "--steps", 1)
    assert ran.code == 0, ran.out + ran.err


def test_a_package_is_found_from_here(doctor: Doctor) -> None:
    Path("mypackage").mkdir()
    Path("mypackage/nets.py").write_text("from torch import nn\nnet = nn.Linear(6, 3)\n")
    assert doctor("mypackage.nets:net", "--input", 6, "--ways", 3, "--steps", 1).code == 0


def test_a_budget_is_answered_with_what_fits(doctor: Doctor) -> None:
    ran = doctor("models.py:net", *PICTURES, "--steps", 1, "--budget", "1GB")
    assert "At 1 step 1.0 GB are enough for: mixed\n" in ran.out
    ran = doctor("models.py:net", *PICTURES, "--steps", 1, "--budget", "10 B")
    assert "At 1 step nothing fits into 10 B" in ran.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("models.py",), "MODEL must be path/to/file.py:name or package.module:name; found 'models.py'"),
        (("nowhere.py:net",), "there is no file nowhere.py"),
        (("nowhere.nets:net",), "No module named 'nowhere'"),
        (("models.py:nett",), "models.py has no 'nett'; it has net, Net, reader, regressor, averaging, number, pair."),
        (("models.py:number",), "models.py:number must be or return an nn.Module; found int"),
        (("models.py:width",), "models.py:width must be or return an nn.Module; found int"),
        (("models.py:pair",), "the model must return one tensor; found tuple"),
        (("models.py:net", "--ways", 4), "to (4, 4), a row for each example; found (4, 3)"),
        (("models.py:net", "--input", "1,5,5"), "the model cannot be called on torch.float32 of (3, 1, 5, 5)"),
        (("models.py:net", "--tasks", 0, "--shots", -1), "counts must be at least 1; found --tasks 0, --shots -1."),
        (("models.py:reader", "--integers", 0), "counts must be at least 1; found --integers 0."),
        (("models.py:regressor", "--targets", 0), "counts must be at least 1; found --targets 0."),
        (("models.py:net", "--ways", 1), "the loss is constant. For a model of one output use --targets 1."),
        (("models.py:net", "--input=-6"), "--input must be the shape of one example, such as 1,28,28; found '-6'"),
        (
            ("models.py:net", "--steps", 0),
            "steps must be one or more numbers of at least 1, such as (1, 5); found (0,).",
        ),
        (("models.py:net", "--input", "4x4"), "--input must be the shape of one example, such as 1,28,28; found '4x4'"),
        (
            ("models.py:net", "--budget", "lots"),
            "--budget must be a number of bytes, such as 500MB or 4GB; found 'lots'",
        ),
    ],
)
def test_mistakes_are_answered_in_one_line(doctor: Doctor, args: tuple[Any, ...], message: str) -> None:
    ran = doctor(args[0], "--input", "1,4,4", "--ways", 3, "--steps", 1, *args[1:])
    assert ran.code == 1
    assert message in ran.err
    assert ran.err.startswith("kshot: ")
    assert "\n" not in ran.err.strip()
