"""Every example runs, with a few steps, and stays short enough to read."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from kshot.tasks.cache import DataUnavailable

EXAMPLES = Path(__file__).parents[1] / "examples"
NUMBERED = sorted(EXAMPLES.glob("[0-9]*.py"))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    load(path).main(steps=2, test_tasks=4)
    return capsys.readouterr().out


def example(number: int) -> Path:
    return next(path for path in NUMBERED if path.name.startswith(f"{number:02}"))


def test_learn_from_one_example(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(example(1), capsys)
    assert "support x (5, 1, 28, 28), y (5, 5)" in text
    assert "paired, 95 % interval, 4 tasks" in text


def test_maml_sinusoid(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(example(2), capsys)
    assert "after one gradient step on 5 points" in text
    assert "from scratch, 100 gradient steps" in text


def test_write_your_own_learner(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(example(3), capsys)
    assert "AttentionVote keeps every promise" in text
    assert "PeekingVote does not: transductive=False is declared" in text


def test_your_own_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(example(4), capsys)
    assert "720 pictures of 60 classes" in text
    assert text.count("probability") == 5


def test_your_own_pictures_takes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = load(example(4))
    module.draw_folder(tmp_path, classes=8, pictures=10)
    module.main(str(tmp_path), steps=1, test_tasks=2)
    assert "2 new classes, 5 pictures of each" in capsys.readouterr().out


def test_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(EXAMPLES / "picture.py").main(tmp_path, steps=1, test_tasks=10)
    assert capsys.readouterr().out.count("right, 95 % interval over 10 unseen tasks") == 3
    for scheme in ("light", "dark"):
        assert (tmp_path / f"adapt-{scheme}.svg").stat().st_size < 150_000


def test_metric_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)  # it has its colours from the other picture
    load(EXAMPLES / "metric_pictures.py").main(tmp_path, steps=1, test_tasks=4)
    assert capsys.readouterr().out.count("right, 95 % interval over 4 unseen tasks") == 8
    for scheme in ("light", "dark"):
        assert (tmp_path / f"metric-{scheme}.svg").stat().st_size < 400_000


def test_neural_process_points(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)  # where figures go
    path = EXAMPLES / "neural_process_points.py"
    load(path).main(tmp_path, steps=2, test_tasks=4)
    assert "10 points: log-likelihood -" in capsys.readouterr().out
    assert "    python examples/neural_process_points.py" in path.read_text(encoding="utf-8").split('"""')[1]
    for scheme in ("light", "dark"):
        assert (tmp_path / f"neural-process-points-{scheme}.svg").stat().st_size < 200_000


def test_memory_network_hops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)  # where figures go
    path = EXAMPLES / "memory_network_hops.py"
    load(path).main(tmp_path, steps=2, test_tasks=4)
    assert "right, 95 % interval over 4 unseen stories" in capsys.readouterr().out
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    assert f"    python examples/{path.name}" in text.split('"""')[1]
    for scheme in ("light", "dark"):
        picture = (tmp_path / f"memory-network-hops-{scheme}.svg").read_text(encoding="utf-8")
        assert "where is the violin?" in picture
        assert picture.count("to the") >= 6


@pytest.mark.parametrize(
    ("name", "arguments", "less", "printed"),
    [
        ("potential", {"steps": 40, "points": 5}, {}, "MAML: phi 1.2"),
        ("directions", {"steps": 2, "test_tasks": 3}, {}, "meta-trained: cosine of Reptile with MAML"),
        ("steps", {"steps": 2, "test_tasks": 4}, {}, "MAML, trained with 5 steps"),
        ("waves", {"steps": 2, "test_tasks": 4}, {}, "Pretrained, 5 points on the right"),
        (
            "omniglot",
            {"steps": 1, "test_tasks": 2},
            {"RATES": (0.1,), "CHOICE": 2},
            "MAML less pretrained after 3 steps",
        ),
        ("nothing_shared", {"steps": 1, "test_tasks": 4}, {"SETTINGS": [(0.1, 2)]}, "MAML for all shared"),
    ],
)
def test_experiments_on_maml(
    name: str,
    arguments: dict[str, int],
    less: dict[str, object],
    printed: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)  # they share how lines are drawn, and how nets are trained
    path = EXAMPLES / f"maml_{name}.py"
    module = load(path)
    for constant, value in less.items():
        monkeypatch.setattr(module, constant, value)
    if name == "omniglot":
        monkeypatch.setattr(module, "omniglot", absent)
    module.main(tmp_path, **arguments)
    assert printed in capsys.readouterr().out
    assert f"    python examples/{path.name}" in path.read_text(encoding="utf-8").split('"""')[1]
    for scheme in ("light", "dark"):
        assert (tmp_path / f"maml-{name.replace('_', '-')}-{scheme}.svg").stat().st_size < 150_000


def test_mann_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)  # where figures go
    load(EXAMPLES / "mann_stream.py").main(tmp_path, steps=2, slots=16, test_tasks=4)
    assert capsys.readouterr().out.count("95 % interval over 4 unseen streams") == 3
    for scheme in ("light", "dark"):
        assert (tmp_path / f"mann-stream-{scheme}.svg").stat().st_size < 60_000


def test_ntm_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)  # where figures go
    load(EXAMPLES / "ntm_copy.py").main(tmp_path, steps=2, slots=16, test_tasks=2)
    assert capsys.readouterr().out.count("bit error") == 3
    for scheme in ("light", "dark"):
        assert (tmp_path / f"ntm-copy-{scheme}.svg").stat().st_size < 150_000


def absent(preset: str) -> None:
    raise DataUnavailable(preset)


@pytest.mark.parametrize(
    ("name", "steps", "printed"),
    [("multi_task", 2, "Slopes that share nothing, MSE with 2"), ("long_tail", 2, "class means for a head: 3 to 20")],
)
def test_experiments_on_transfer(
    name: str,
    steps: int,
    printed: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)  # they share how lines are drawn, and the linear tasks
    path = EXAMPLES / f"{name}.py"
    load(path).main(tmp_path, steps=steps)
    assert printed in capsys.readouterr().out
    assert f"    python examples/{path.name}" in path.read_text(encoding="utf-8").split('"""')[1]
    for scheme in ("light", "dark"):
        assert (tmp_path / f"{name.replace('_', '-')}-{scheme}.svg").stat().st_size < 150_000


def test_every_experiment_on_maml_is_tested_here() -> None:
    names = {path.stem.removeprefix("maml_") for path in EXAMPLES.glob("maml_*.py")}
    assert names == {"potential", "directions", "steps", "waves", "omniglot", "nothing_shared"}


def test_every_numbered_example_is_tested_here() -> None:
    assert [path.name[:2] for path in NUMBERED] == ["01", "02", "03", "04"]


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.name)
def test_an_example_is_under_80_lines_and_says_how_it_is_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    assert f"    python examples/{path.name}" in text.split('"""')[1]


def test_paths_of_a_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    load(EXAMPLES / "navigation_paths.py").main(tmp_path, steps=1)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in printed if "return after" in line] == ["MAML", "pretrained"]
    assert (tmp_path / "navigation-light.svg").stat().st_size < 400_000


def test_an_animation_of_cheetahs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    monkeypatch.syspath_prepend(EXAMPLES)
    load(EXAMPLES / "cheetah_gif.py").main(out=tmp_path, horizon=9)
    with Image.open(tmp_path / "cheetah.gif") as animation:
        assert animation.n_frames == 3
