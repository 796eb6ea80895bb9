"""The command line. Its options are dataclasses; torch is imported inside commands, so that ``--help`` answers at once."""

import sys
import warnings
from pathlib import Path

import tyro

from kshot.cli import options
from kshot.cli.learner_options import MAMLOptions, RecurrentOptions, ReptileOptions
from kshot.cli.presets import with_preset
from kshot.tasks.cache import DataUnavailable

__all__ = ["main"]


def main() -> None:
    """Run the command named on the command line; report mistakes of the user in one line, without a traceback."""
    command = tyro.cli(options.Command, prog="kshot", description="Learn to learn, in plain PyTorch.")
    warnings.showwarning = _warn
    try:
        _run(_with_preset(command))
    except (ValueError, OSError, ImportError, FloatingPointError, DataUnavailable) as error:
        sys.exit(f"kshot: {error}")
    except KeyboardInterrupt:
        print("kshot: interrupted.", file=sys.stderr)
        sys.exit(130)  # as shells tell an interrupted command from a failed one


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as a line, without the line of code that it came from."""
    print(f"kshot: {message}", file=sys.stderr)


def _with_preset(command: options.Command) -> options.Command:
    """Let the preset of a training run stand behind what the command line says."""
    match command:
        case options.Train(MAMLOptions() | ReptileOptions() | RecurrentOptions() as learner) if learner.preset:
            # The same words are read once more with other defaults, so that what they say themselves goes first.
            return options.Train(tyro.cli(type(learner), args=sys.argv[3:], default=with_preset(learner)))
    return command


def _run(command: options.Command) -> None:
    match command:
        case options.Train(learner):
            from kshot.cli.train import start

            start(learner)
        case options.Resume():
            from kshot.cli.train import resume

            resume(command)
        case options.Eval(data=Path() as data):
            from kshot.cli.fit import run_model_eval

            run_model_eval(command, data)
        case options.Eval():
            from kshot.cli.evaluate import run_eval

            run_eval(command)
        case options.Fit():
            from kshot.cli.fit import run_fit

            run_fit(command)
        case options.RL(told):
            from kshot.cli.rl import run_rl

            run_rl(told)
        case options.Predict():
            from kshot.cli.fit import run_predict

            run_predict(command)
        case options.Add():
            from kshot.cli.fit import run_add

            run_add(command)
        case options.Compare():
            from kshot.cli.evaluate import run_compare

            run_compare(command)
        case options.Export():
            from kshot.cli.fit import run_export

            run_export(command)
        case options.Data():
            from kshot.cli.data import run_data

            run_data(command)
        case options.Demo():
            from kshot.cli.demo import run_demo

            run_demo(command)
        case options.Doctor():
            from kshot.cli.doctor import run_doctor

            run_doctor(command)
