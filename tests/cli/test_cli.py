import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from kshot.checkpoint import load_checkpoint, save_checkpoint
from kshot.cli import main

COMMAND = [sys.executable, "-c", "from kshot.cli import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONUNBUFFERED": "1"}
SMALL = ("--filters", "4", "--val-tasks", "4", "--ways", "2", "--queries", "2", "--train-queries", "2", "--every", "2")
SINUSOID = ("train", "maml", "--data", "sinusoid", "--val-tasks", "4", "--tasks-per-step", "4", "--every", "10")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Kshot = Callable[..., Any]  # the fixture of conftest.py


def as_one_process(*args: Any) -> Ran:
    done = subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def draw_classes(folder: Path, count: int, first: int = 0) -> Path:
    rng = np.random.default_rng(first)
    for i in range(first, first + count):
        (folder / f"class{i}").mkdir(parents=True)
        for n in range(4):
            pixels = rng.integers(0, 60, (20, 24, 3)) + 25 * np.array([i % 8, i // 2 % 8, i // 4 % 8])
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"class{i}" / f"{n}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    for i, name in enumerate(("train", "val", "test")):
        draw_classes(folder / name, 3, 3 * i)
    return folder


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    run = tmp_path_factory.mktemp("runs") / "shapes"
    ran = as_one_process("train", "prototypical", "--data", pictures, *SMALL, "--steps", 4, "--out", run)
    assert ran.code == 0, ran.err
    return run, ran


@pytest.fixture
def run(trained: tuple[Path, Ran], tmp_path: Path) -> Path:
    """A run of its own for a test that changes it."""
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def refused(ran: Ran) -> str:
    """Return the message of a command that failed with one line and nothing else."""
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1, ran.err
    assert ran.err.startswith("kshot: ")
    return ran.err


def test_help_names_every_command() -> None:
    ran = as_one_process("--help")
    assert ran.code == 0
    assert all(command in ran.out for command in ("train", "resume", "eval", "compare", "data", "demo"))


def test_the_help_of_a_learner_explains_its_options(kshot: Kshot) -> None:
    ran = kshot("train", "maml", "--help")
    assert ran.code == 0
    assert all(
        option in ran.out for option in ("--inner-lr", "--inner-steps", "--differentiate", "--ways", "--minutes")
    )


def test_a_typo_in_an_option_is_answered_with_a_hint() -> None:
    ran = as_one_process("train", "maml", "--iner-steps", "5")
    assert ran.code == 2
    assert "--iner-steps" in ran.out + ran.err
    assert "--inner-steps" in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err


def test_an_unknown_command_is_refused(kshot: Kshot) -> None:
    ran = kshot("trian")
    assert ran.code == 2
    assert "trian" in ran.out + ran.err


def test_training_fills_a_run_folder(trained: tuple[Path, Ran], pictures: Path) -> None:
    run, ran = trained
    names = {"config.json", "metrics.jsonl", "last.safetensors", "best.safetensors", "report.html"}
    assert set(contents(run)) == names
    config = json.loads((run / "config.json").read_text())
    assert config["learner"] == "prototypical"
    assert (config["options"]["data"], config["options"]["steps"]) == (str(pictures), 4)
    assert set(config["versions"]) == {"kshot", "torch", "python"}
    assert [line["step"] for line in metrics(run)] == [2, 4]
    assert all(0 <= line["val_accuracy"] <= 1 for line in metrics(run))
    assert "</html>" in (run / "report.html").read_text()
    assert ran.out.count("validation accuracy") == 2
    assert "ended by: steps" in ran.out
    assert f"kshot eval {run}\n" in ran.out


@pytest.mark.parametrize(
    "told",
    [
        ("prototypical", "--distance", "cosine"),
        ("matching",),
        ("matching", "--distance", "squared-euclidean", "--learn-temperature", "--full-context"),
        ("siamese",),
        ("siamese", "--pair-loss", "contrastive"),
        ("siamese", "--pair-loss", "triplet"),
        ("siamese", "--pair-loss", "n-pair"),
        ("relation",),
        ("relation", "--batch-statistics"),
        ("ridge",),
        ("proto-maml", "--inner-steps", "2"),
        ("in-context", "--blocks", "1"),
    ],
    ids=" ".join,
)
def test_every_learner_of_any_ways_trains_and_is_judged(
    told: tuple[str, ...], kshot: Kshot, pictures: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ran = kshot("train", *told, "--data", pictures, *SMALL, "--steps", 2, "--out", run)
    assert ran.code == 0, ran.err
    judged = kshot("eval", run, "--tasks", 5)
    assert judged.code == 0, judged.err
    assert ("transductive" in judged.out) == ("--batch-statistics" in told)


def test_a_run_is_not_overwritten(kshot: Kshot, run: Path, pictures: Path) -> None:
    before = contents(run)
    ran = kshot("train", "prototypical", "--data", pictures, *SMALL, "--steps", 2, "--out", run)
    assert "already holds a run" in refused(ran)
    assert contents(run) == before


@pytest.mark.parametrize("held", ["best.safetensors", "model.safetensors"])
@pytest.mark.parametrize("command", [SINUSOID, ("rl", "train", "maml", "--tasks", "2")], ids=["train", "rl train"])
def test_a_model_is_not_overwritten(command: tuple[str, ...], held: str, kshot: Kshot, tmp_path: Path) -> None:
    (tmp_path / held).write_text("{}")
    message = refused(kshot(*command, "--steps", 1, "--out", tmp_path))
    assert "already holds" in message
    assert held in message
    assert contents(tmp_path) == {held: b"{}"}


def test_resume_goes_on_to_a_new_budget(kshot: Kshot, run: Path) -> None:
    ran = kshot("resume", run, "--steps", 6)
    assert ran.code == 0, ran.err
    assert [line["step"] for line in metrics(run)] == [2, 4, 6]
    assert json.loads((run / "config.json").read_text())["options"]["steps"] == 6
    assert load_checkpoint(run / "last.safetensors")["position"]["step"] == 6


def test_resume_equals_a_run_that_was_never_interrupted(
    kshot: Kshot, run: Path, pictures: Path, tmp_path: Path
) -> None:
    kshot("resume", run, "--steps", 6)
    ran = kshot("train", "prototypical", "--data", pictures, *SMALL, "--steps", 6, "--out", tmp_path / "whole")
    assert ran.code == 0, ran.err
    one, other = (load_checkpoint(folder / "last.safetensors") for folder in (run, tmp_path / "whole"))
    assert one["learner"].keys() == other["learner"].keys()
    assert all((value == other["learner"][name]).all() for name, value in one["learner"].items())


def test_a_folder_that_is_no_run_is_refused(kshot: Kshot, tmp_path: Path) -> None:
    for command in ("eval", "resume"):
        message = refused(kshot(command, tmp_path / "nothing"))
        assert "is not a run folder" in message
        assert not (tmp_path / "nothing").exists()


def test_eval_prints_accuracy_with_its_interval_and_keeps_it(kshot: Kshot, run: Path) -> None:
    report = (run / "report.html").read_text()
    first = kshot("eval", run, "--tasks", 20)
    second = kshot("eval", run, "--ways", 3, "--tasks", 10)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert " % ± " in first.out
    assert "95 % interval, 20 tasks" in first.out
    assert "expected calibration error: " in first.out
    assert "2-way 1-shot" in first.out
    assert "95 % interval, 10 tasks" in second.out
    assert "3-way 1-shot" in second.out
    results = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert [len(result["scores"]) for result in results] == [20, 10]
    assert (run / "report.html").read_text() != report
    assert "3-way 1-shot" in (run / "report.html").read_text()


def test_eval_leaves_what_a_training_run_is_about_to_save(kshot: Kshot, run: Path) -> None:
    (run / "last.safetensors").unlink()  # the run has validated, and is saving its first state to resume from
    part = run / "last.safetensors.1.part"
    part.write_bytes(b"half of it")
    assert kshot("eval", run, "--tasks", 4).code == 0
    assert part.read_bytes() == b"half of it"


def test_eval_gives_the_same_numbers_again(kshot: Kshot, run: Path) -> None:
    kshot("eval", run, "--tasks", 20)
    kshot("eval", run, "--tasks", 20)
    one, other = (json.loads(line) for line in (run / "results.jsonl").read_text().splitlines())
    assert one == other


def result_table(run: Path) -> str:
    return (run / "report.html").read_text().partition('<table class="results">')[2].partition("</table>")[0]


def test_the_report_shows_results_of_the_present_weights_alone(kshot: Kshot, run: Path) -> None:
    assert kshot("eval", run, "--tasks", 5).code == 0
    assert "1-shot" in result_table(run)
    best = load_checkpoint(run / "best.safetensors")
    save_checkpoint(run / "best.safetensors", {**best, "step": 9})  # as a resumed run that found better ones does
    assert kshot("eval", run, "--tasks", 5, "--shots", 2).code == 0
    assert "1-shot" not in result_table(run)
    assert "2-shot" in result_table(run)


def test_results_of_unknown_weights_are_not_shown(kshot: Kshot, run: Path) -> None:
    assert kshot("eval", run, "--tasks", 5).code == 0
    (line,) = (json.loads(line) for line in (run / "results.jsonl").read_text().splitlines())
    del line["step"]  # as lines were before they told it
    (run / "results.jsonl").write_text(json.dumps(line) + "\n")
    assert kshot("eval", run, "--tasks", 5, "--shots", 2).code == 0
    assert "1-shot" not in result_table(run)


def test_a_result_cut_short_by_a_killed_process_is_left_out(kshot: Kshot, run: Path) -> None:
    assert kshot("eval", run, "--tasks", 5).code == 0
    with (run / "results.jsonl").open("a") as file:
        file.write('{"metric": "accu')
    ran = kshot("eval", run, "--tasks", 5, "--shots", 2)
    assert ran.code == 0, ran.err
    assert len([json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]) == 2
    assert all(shots in result_table(run) for shots in ("1-shot", "2-shot"))


def test_a_run_that_ended_before_its_first_validation_is_judged(kshot: Kshot, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ran = kshot(*SINUSOID, "--steps", 0, "--out", run)
    assert ran.code == 0, ran.err
    ran = kshot("eval", run, "--tasks", 4)
    assert ran.code == 0, ran.err
    assert "How it learned" not in (run / "report.html").read_text()


def test_more_ways_than_there_are_classes_is_refused(kshot: Kshot, run: Path) -> None:
    assert "needs 9 classes; found 3" in refused(kshot("eval", run, "--ways", 9))


def test_a_damaged_checkpoint_is_named(kshot: Kshot, run: Path) -> None:
    path = run / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    message = refused(kshot("eval", run, "--tasks", 4))
    assert str(path) in message
    assert "is not a whole checkpoint" in message
    assert not (run / "results.jsonl").exists()


def test_classes_are_split_at_random_where_the_folder_has_no_splits(kshot: Kshot, tmp_path: Path) -> None:
    folder = draw_classes(tmp_path / "plain", 10)
    ran = kshot("train", "prototypical", "--data", folder, *SMALL, "--steps", 2, "--out", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert "train of random classes" in ran.out
    ran = kshot("eval", tmp_path / "run", "--tasks", 4)
    assert "test of random classes" in ran.out


def test_a_class_in_two_splits_is_refused(kshot: Kshot, pictures: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pictures, tmp_path / "leaky"))
    shutil.copytree(folder / "train" / "class0", folder / "test" / "class0")
    message = refused(kshot("train", "prototypical", "--data", folder, *SMALL, "--out", tmp_path / "run"))
    assert "train and test share 1: class0" in message


@pytest.mark.parametrize(
    "told",
    [
        ("snail",),
        ("recurrent", "--hidden", "8", "--slots", "8"),
        ("recurrent", "--cell", "ntm", "--hidden", "8", "--slots", "8"),
        (
            "recurrent",
            "--cell",
            "lstm",
            "--labels",
            "strings",
            "--fewest-ways",
            "1",
            "--uneven",
            "--flat",
            "--hidden",
            "8",
        ),
    ],
    ids=" ".join,
)
def test_every_learner_of_sequences_trains_and_is_judged(
    told: tuple[str, ...], kshot: Kshot, pictures: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ran = kshot("train", *told, "--data", pictures, *SMALL, "--steps", 2, "--tasks-per-step", 2, "--out", run)
    assert ran.code == 0, ran.err
    judged = kshot("eval", run, "--tasks", 5, "--shots", 2)
    assert judged.code == 0, judged.err
    assert ("presentation 2: accuracy" in judged.out) == (told[0] == "recurrent")
    kept = [json.loads(line)["stamp"].get("presentation") for line in (run / "results.jsonl").read_text().splitlines()]
    assert kept == ([None, "1", "2"] if told[0] == "recurrent" else [None])
    assert ("labels: strings" in judged.out) == ("strings" in told)


@pytest.mark.parametrize(
    "told",
    [
        ("maml", "--net", "connected"),
        ("maml", "--adapts", "head", "--start", "zero_head"),
        ("maml", "--adapts", "no_norm", "--start", "finn"),
        ("maml", "--adapts", "body", "--learn-lr", "per_parameter"),
        ("maml", "--adapts", "context", "--net", "pooled"),
        ("maml", "--differentiate", "implicit", "--clip", "1"),
        ("maml", "--inner-steps", "2", "--test-steps", "3", "--per-step-norm", "--multi-step", "0.5", "--cosine"),
        ("reptile", "--test-steps", "3"),
        ("reptile", "--test-steps", "3", "--inner-rule", "sgd", "--inner-lr", "0.1"),
        ("reptile", "--test-steps", "3", "--transductive"),
    ],
    ids=" ".join,
)
def test_every_learner_of_fixed_ways_trains_and_is_judged(
    told: tuple[str, ...], kshot: Kshot, pictures: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    small = SMALL if told[0] == "maml" else (*SMALL[:8], *SMALL[10:], "--train-shots", "3", "--batch-size", "2")
    ran = kshot("train", *told, "--data", pictures, *small, "--steps", 2, "--tasks-per-step", 2, "--out", run)
    assert ran.code == 0, ran.err
    judged = kshot("eval", run, "--tasks", 5)
    assert judged.code == 0, judged.err
    inductive = "head" in told or (told[0] == "reptile" and "--transductive" not in told)
    assert ("inductive" in judged.out) == inductive
    assert f"inner steps: {told[told.index('--test-steps') + 1] if '--test-steps' in told else 1}" in judged.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("maml", "--cosine", "--minutes", 1), "--cosine needs --steps"),
        (("maml", "--per-step-norm", "--adapts", "head", "--steps", 1), "--per-step-norm needs"),
        (("maml", "--adapts", "context", "--net", "connected", "--steps", 1), "steers convolutions"),
        (("recurrent", "--fewest-ways", 2), "--fewest-ways needs --labels strings"),
    ],
)
def test_options_that_do_not_go_together_leave_nothing_behind(
    options: tuple[Any, ...], message: str, kshot: Kshot, pictures: Path, tmp_path: Path
) -> None:
    assert message in refused(kshot("train", *options, "--data", pictures, *SMALL, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "schedule", [("maml", "--cosine"), ("reptile", "--train-shots", "3")], ids=lambda told: told[0]
)
def test_a_longer_resume_has_the_schedule_of_the_longer_run(
    schedule: tuple[str, ...], kshot: Kshot, pictures: Path, tmp_path: Path
) -> None:
    small = [*SMALL[:8], *SMALL[10:], "--tasks-per-step", 2, "--data", pictures]
    runs = [tmp_path / "stopped", tmp_path / "whole"]
    for run, steps in zip(runs, (2, 4), strict=True):
        assert kshot("train", *schedule, *small, "--steps", steps, "--out", run).code == 0
    assert kshot("resume", runs[0], "--steps", 4).code == 0
    stopped, whole = (load_checkpoint(run / "last.safetensors")["optimizer"]["param_groups"][0]["lr"] for run in runs)
    assert stopped == whole < 1e-3
    message = refused(kshot("resume", runs[0], "--minutes", 1))
    assert ("--cosine needs --steps" if "--cosine" in schedule else "say --steps too") in message
    assert json.loads((runs[0] / "config.json").read_text())["options"]["steps"] == 4


@pytest.mark.parametrize(
    ("learner", "encoder"),
    [
        (("snail",), "encoder.0"),
        (("maml", "--net", "pooled"), "model.0"),  # its layers keep no running averages
        (("maml", "--net", "pooled", "--per-step-norm", "--inner-steps", "2"), "model.0"),
        (("maml", "--net", "pooled", "--feature-length", "40"), "model.0.0"),
    ],
)
def test_a_run_begins_with_the_encoder_of_another(
    learner: tuple[str, ...], encoder: str, trained: tuple[Path, Ran], kshot: Kshot, pictures: Path, tmp_path: Path
) -> None:
    other, run = shutil.copytree(trained[0], tmp_path / "other"), tmp_path / "run"
    told = ("train", *learner, "--data", pictures, "--encoder-from", other, "--out", run, *SMALL)
    ran = kshot(*told, "--lr", 1e-9, "--steps", 1)
    assert ran.code == 0, ran.err
    began, ended = (load_checkpoint(folder / "best.safetensors")["learner"] for folder in (other, run))
    for kind in ("0.weight", "1.weight"):  # of a convolution, of a normalisation
        own, copied = ended[f"{encoder}.blocks.3.{kind}"], began[f"encoder.blocks.3.{kind}"]
        # A norm of its own for each step begins with the same at every step.
        torch.testing.assert_close(own, copied.expand_as(own))
    shutil.rmtree(other)  # once begun, a run needs no other
    assert kshot("resume", run, "--steps", 2).code == 0
    assert kshot("eval", run, "--tasks", 2).code == 0


def test_a_classifier_of_all_training_classes_serves_new_ones(kshot: Kshot, pictures: Path, tmp_path: Path) -> None:
    data, small = shutil.copytree(pictures, tmp_path / "data"), [*SMALL[:8], *SMALL[10:]]
    run, told = tmp_path / "run", ("train", "classifier", "--data", data, *small, "--batch", 4, "--crop")
    assert "found both" in refused(kshot(*told, "--distort", "--out", run))
    assert (ran := kshot(*told, "--steps", 2, "--out", run)).code == 0, ran.err
    assert load_checkpoint(run / "best.safetensors")["learner"]["head.weight"].shape[0] == 3  # classes for training
    maml = ("train", "maml", "--net", "pooled", "--data", data, *small, "--encoder-from", run)
    for command in (
        ("resume", run, "--steps", 4),
        ("eval", run, "--tasks", 2),
        (*maml, "--steps", 1, "--out", tmp_path / "maml"),
    ):
        assert (ran := kshot(*command)).code == 0, ran.err
    shutil.rmtree(data)  # which a run needs no more once it is used as an encoder
    mine, model = pictures / "test", tmp_path / "model"
    one = next(mine.glob("*/*.png"))
    for command in (("fit", mine, "--encoder", run, "--out", model), ("predict", model, one)):
        assert (ran := kshot(*command)).code == 0, ran.err


def test_the_weights_of_a_frozen_encoder_stay(
    trained: tuple[Path, Ran], kshot: Kshot, pictures: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    told = ("train", "recurrent", "--data", pictures, *SMALL, "--lr", 0.1, "--steps", 2, "--out", run)
    assert "say which by --encoder-from" in refused(kshot(*told, "--freeze-encoder"))
    began = load_checkpoint(trained[0] / "best.safetensors")["learner"]
    ended = []
    for command in ((*told, "--freeze-encoder", "--encoder-from", trained[0]), ("resume", run, "--steps", 4)):
        assert (ran := kshot(*command)).code == 0, ran.err
        ended.append(load_checkpoint(run / "last.safetensors")["learner"])
        for name in ("blocks.0.0.weight", "blocks.3.1.bias"):
            assert torch.equal(ended[-1][f"encoder.0.{name}"], began[f"encoder.{name}"])
    assert not torch.equal(ended[0]["encoder.2.weight"], ended[1]["encoder.2.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("snail", "--data", "glyphs"), "same training classes"),
        (("snail", "--filters", 5), "of the same layers"),
        (("maml", "--net", "pooled", "--per-step-norm", "--filters", 5), "of the same layers"),
        (("maml", "--net", "strided"), "halves pictures by pool, this learner's by stride: see --net"),
        (("recurrent", "--flat"), "this learner has 0"),
        (("prototypical", "--freeze-encoder"), "leaves this Prototypical nothing to train"),
    ],
)
def test_an_encoder_that_does_not_fit_leaves_nothing_behind(
    options: tuple[Any, ...], message: str, trained: tuple[Path, Ran], kshot: Kshot, pictures: Path, tmp_path: Path
) -> None:
    told = ("--data", pictures, *SMALL, "--encoder-from", trained[0], "--steps", 1, "--out", tmp_path / "run")
    assert message in refused(kshot("train", options[0], *told, *options[1:]))
    assert not (tmp_path / "run").exists()


def test_reptile_trains_on_more_examples_than_it_is_judged_with(kshot: Kshot, pictures: Path, tmp_path: Path) -> None:
    small = [*SMALL[:8], *SMALL[10:], "--data", pictures, "--steps", 1, "--out", tmp_path / "run"]
    message = refused(kshot("train", "reptile", "--train-shots", 1, *small))
    assert "--train-shots must be above --shots, 1; found 1" in message


def test_maml_keeps_the_ways_of_its_net(kshot: Kshot, pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ran = kshot("train", "maml", "--data", pictures, *SMALL, "--steps", 2, "--tasks-per-step", 2, "--out", run)
    assert ran.code == 0, ran.err
    message = refused(kshot("eval", run, "--ways", 3, "--tasks", 4))
    assert "trained for 2 ways" in message
    assert "found --ways 3" in message
    ran = kshot("eval", run, "--ways", 2, "--tasks", 4)
    assert "inference: transductive" in ran.out


@pytest.fixture(scope="module")
def sinusoid_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    runs = [folder / f"sinusoid{seed}" for seed in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        for seed, run in enumerate(runs):
            patch.setattr(sys, "argv", ["kshot", *SINUSOID, "--steps", "20", "--seed", str(seed), "--out", str(run)])
            main()
    return runs


def test_maml_learns_sinusoids_and_takes_more_steps_at_test_time(kshot: Kshot, sinusoid_runs: list[Path]) -> None:
    run = sinusoid_runs[0]
    one = kshot("eval", run, "--tasks", 20)
    five = kshot("eval", run, "--tasks", 20, "--inner-steps", 5)
    assert one.code == five.code == 0, one.err + five.err
    assert one.out.startswith("MSE ")
    assert "95 % interval, 20 tasks" in five.out
    means = [np.mean(json.loads(line)["scores"]) for line in (run / "results.jsonl").read_text().splitlines()]
    assert means[1] != means[0]


def test_ways_of_sine_waves_are_refused(kshot: Kshot, sinusoid_runs: list[Path]) -> None:
    for command in (("eval", sinusoid_runs[0]), ("compare", *sinusoid_runs)):
        assert "--ways 20: sine waves are regression" in refused(kshot(*command, "--ways", 20))


def test_compare_is_paired(kshot: Kshot, sinusoid_runs: list[Path]) -> None:
    ran = kshot("compare", *sinusoid_runs, "--shots", 10, "--tasks", 20)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{sinusoid_runs[0]}: MSE")
    assert lines[2].startswith(f"{sinusoid_runs[1]} - {sinusoid_runs[0]}: MSE")
    assert "(paired, 95 % interval, 20 tasks" in lines[2]


def test_compare_takes_the_tasks_of_the_first_run(kshot: Kshot, run: Path) -> None:
    options = json.loads((run / "config.json").read_text())["options"]
    ran = kshot("compare", run, run, "--tasks", 4)
    assert ran.code == 0, ran.err
    assert f"{options['ways']}-way {options['shots'] or 1}-shot, {options['queries']} queries a class" in ran.out
    assert "3-way" in kshot("compare", run, run, "--tasks", 4, "--ways", 3).out


def test_compare_needs_two_runs_on_the_same_tasks(kshot: Kshot, sinusoid_runs: list[Path], run: Path) -> None:
    assert "two or more run folders; found 1" in refused(kshot("compare", sinusoid_runs[0]))
    for mixed in ((sinusoid_runs[0], run), (run, sinusoid_runs[0])):
        ran = kshot("compare", *mixed, "--queries", 2, "--tasks", 4)
        assert "needs the same metric on the same tasks" in refused(ran)


def test_runs_have_a_folder_by_default(kshot: Kshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kshot(*SINUSOID, "--steps", 2).code == 0
    assert (tmp_path / "runs" / "maml-sinusoid" / "best.safetensors").exists()


def test_a_run_on_a_folder_is_judged_from_elsewhere(
    kshot: Kshot, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    told = ("--data", pictures.name, *SMALL, "--steps", 2)
    assert kshot("train", "prototypical", *told, "--out", tmp_path / "run").code == 0
    monkeypatch.chdir(tmp_path)
    assert kshot("eval", "run", "--ways", 2, "--queries", 2, "--tasks", 3).code == 0


def test_a_path_is_printed_as_it_is(kshot: Kshot, tmp_path: Path) -> None:
    run = tmp_path / "a long name with [red] brackets"
    ran = kshot(*SINUSOID, "--steps", 2, "--out", run)
    assert f"kshot eval {run}\n" in ran.out
    assert f"report: {run / 'report.html'}\n" in ran.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("prototypical", "--data", "sinusoid"), "sinusoid is regression. Use: kshot train maml --data sinusoid"),
        (("prototypical", "--data", "omniglott"), "--data must be one of glyphs, omniglot.*found 'omniglott'"),
        (("maml", "--data", "omniglott"), "--data must be one of glyphs, omniglot.*found 'omniglott'"),
    ],
)
def test_a_mistake_in_the_options_leaves_nothing_behind(
    kshot: Kshot, tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    ran = kshot("train", *args, "--out", tmp_path / "run")
    assert re.search(message, refused(ran))
    assert not (tmp_path / "run").exists()


def test_counts_below_one_are_refused(kshot: Kshot, tmp_path: Path) -> None:
    for option in ("--every", "--tasks-per-step"):
        ran = kshot(*SINUSOID, "--steps", 2, option, 0, "--out", tmp_path / option)
        assert "every and tasks_per_step must be at least 1" in refused(ran)
    for option, budget in (("--steps", -1), ("--minutes", -1.0), ("--minutes", "nan")):
        ran = kshot(*SINUSOID, option, budget, "--out", tmp_path / f"{budget}")
        assert f"a budget must be at least 0; found {budget}" in refused(ran)
    for told, message in (
        (("--chunk", 0), "chunk_size must be at least 1"),
        (("--side-by-side",), "side_by_side needs"),
    ):
        assert message in refused(kshot(*SINUSOID, "--steps", 2, *told, "--out", tmp_path / "chunk"))
        assert not (tmp_path / "chunk").exists()
    ran = kshot("train", "prototypical", "--filters", 0, "--out", tmp_path / "run")
    assert "filters must be at least 1; found 0" in refused(ran)
    assert "length must be at least 1; found 0" in refused(
        kshot(*SINUSOID, "--val-tasks", 0, "--out", tmp_path / "run")
    )


def test_a_folder_for_the_report_is_asked_for_before_the_demo_trains(kshot: Kshot, tmp_path: Path) -> None:
    (tmp_path / "note").touch()
    ran = kshot("demo", "--out", tmp_path / "note")
    assert "is no folder" in refused(ran)
    assert not ran.out


def test_without_matplotlib_everything_runs_but_the_report(
    kshot: Kshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = ("matplotlib", "kshot.report", "kshot.cli.report")
    for name in [name for name in sys.modules if name.startswith(drawing)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv("KSHOT_OFFLINE", "1")
    run = tmp_path / "run"
    for command in (
        (*SINUSOID, "--steps", 1, "--out", run),
        ("resume", run, "--steps", 2),
        ("eval", run, "--tasks", 4),
        ("demo", "--seconds", 1, "--tasks", 2, "--out", tmp_path / "demo"),
    ):
        ran = kshot(*command)
        assert ran.code == 0, ran.err
        assert ran.out.count("no report: pip install 'kshot[report]'\n") == 1
    ran = kshot("compare", run, run, "--tasks", 4)
    assert ran.code == 0, ran.err
    assert "no report" not in ran.out


def test_ctrl_c_saves_and_says_how_to_go_on(kshot: Kshot, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = [*COMMAND, *SINUSOID, "--minutes", "2", "--out", str(run)]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + 60
        while not (run / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "ended by: interrupted" in out
    assert f"kshot resume {run}\n" in out
    assert "Traceback" not in err
    step = load_checkpoint(run / "last.safetensors")["position"]["step"]
    ran = kshot("resume", run, "--steps", step + 3)
    assert ran.code == 0, ran.err
    assert metrics(run)[-1]["step"] == step + 3


def test_ctrl_c_where_nothing_is_to_be_saved_is_told_in_a_line(kshot: Kshot, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kshot.cli._run", interrupted)
    assert kshot("data", "glyphs") == (130, "", "kshot: interrupted.\n")


def test_data_describes_the_glyphs(kshot: Kshot) -> None:
    ran = kshot("data", "glyphs")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["train", "val", "test"]
    assert all("characters" in line and "drawings" in line for line in lines)


def test_demo_runs_on_a_machine_without_data_and_network(
    kshot: Kshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv("KSHOT_OFFLINE", "1")
    ran = kshot("demo", "--seconds", "1", "--tasks", "5", "--out", tmp_path / "demo")
    assert ran.code == 0, ran.err
    for words in (
        "Data: glyphs",
        "raw pixels",
        "20-way 1-shot",
        "after one gradient step of MAML",
        "one example of each",
    ):
        assert words in ran.out
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "Characters it had never seen" in page
    assert page.count("<svg") >= 2
