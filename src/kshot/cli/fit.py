"""``kshot fit``, ``predict`` and ``add``: a classifier from a user's own few examples."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kshot.cli.models import (
    encoder_of,
    is_model,
    labelled_examples,
    load_model,
    read_table,
    save_model,
    unlabelled_table,
)
from kshot.cli.options import Add, Eval, Export, Fit, Predict
from kshot.estimators import FewShotClassifier, export_onnx
from kshot.estimators.held_out import share_with_interval

__all__ = ["run_add", "run_export", "run_fit", "run_model_eval", "run_predict"]


def run_fit(command: Fit) -> None:
    """Fit a classifier to labelled examples and save it."""
    console = Console(markup=False)  # brackets in a name are no style
    taken = _holds_something(command.out)
    if taken and not command.overwrite:
        raise ValueError(f"{command.out} is there already; name another folder with --out, or pass --overwrite.")
    if taken and (not is_model(command.out) or (command.out / "last.safetensors").exists()):
        raise ValueError(
            f"{command.out} is no fitted model, and --overwrite replaces nothing else; name another folder."
        )
    x, y = labelled_examples(command.data, command.label)
    encoder, picture = encoder_of(command.encoder)
    of_run = picture is not None
    with console.status(f"{len(x):,} examples"):
        model = FewShotClassifier(
            encoder, command.method, threshold=command.threshold, picture=picture, cache=command.cache
        ).fit(x, y)
    save_model(model, command.out, Path(command.encoder) if of_run and command.encoder else None)
    few, many = min(Counter(y).values()), max(Counter(y).values())
    sizes = f"{few}" if few == many else f"{few} to {many}"
    console.print(f"{len(set(y)):,} classes, {sizes} examples each; {model.features_.name}", highlight=False)
    if command.method == "auto":
        console.print(str(model.choice_), highlight=False)
    console.print(f"{command.out}: kshot predict {command.out} FILE…", highlight=False)


def run_predict(command: Predict) -> None:
    """Print the class of each example, with its probability."""
    model = load_model(command.model)
    names, x = _asked(model, command.examples, command.label)
    answers, sure = model.predict(x), model.predict_proba(x).max(1)
    console, table = Console(), Table(box=None, pad_edge=False)
    for column in ("example", "class", "probability"):
        table.add_column(column, overflow="fold")  # a name cut short names nothing
    for name, answer, probability in zip(names, answers, sure, strict=True):
        known = answer in model.classes_
        table.add_row(name, str(answer), f"{100 * probability:.0f} %" if known else "")
    console.print(table, highlight=False, markup=False)


def run_add(command: Add) -> None:
    """Add examples of a class, known or new, to a model."""
    if not command.label.strip():
        raise ValueError("--label is empty; name the class of the examples.")
    model = load_model(command.model)
    names, x = _asked(model, command.examples, "label")
    model.partial_fit(x, np.array([command.label] * len(names), dtype=object))
    model.save(command.model)
    count = int((model.classes_[model.labels_.numpy()] == command.label).sum())
    Console(markup=False).print(f"{command.label}: {count} examples; {len(model.classes_)} classes", highlight=False)


def run_export(command: Export) -> None:
    """Write a model as ONNX."""
    model = load_model(command.model)
    x, _ = labelled_examples(command.example, command.label, model)
    export_onnx(model, command.out, x[:2])
    outputs = "output probabilities" if model.familiarity_ is None else "outputs probabilities and none"
    Console(markup=False).print(f"{command.out}: input x, {outputs}", highlight=False, soft_wrap=True)


def run_model_eval(command: Eval, data: Path) -> None:
    """Print how many labelled examples a model answers right, class by class."""
    of_tasks = ("ways", "shots", "queries", "tasks", "inner_steps")
    if told := [f"--{name.replace('_', '-')}" for name in of_tasks if getattr(command, name) is not None]:
        raise ValueError(f"{', '.join(told)}: a fitted model is judged on all of {data}, not on tasks. Leave it out.")
    model = load_model(command.run)
    x, y = labelled_examples(data, command.label, model)
    truth, answers = np.array(y, dtype=object), np.array([str(answer) for answer in model.predict(x)], dtype=object)
    right, console = answers == truth, Console(markup=False)
    table = Table("class", "right", "of", box=None, pad_edge=False)
    for name in sorted(set(y)):
        table.add_row(name, str(int(right[truth == name].sum())), str(int((truth == name).sum())))
    console.print(table, highlight=False, markup=False)
    share, half_width = share_with_interval(int(right.sum()), len(right))
    unknown = sorted(set(y) - {str(name) for name in model.classes_})
    console.print(
        f"accuracy {100 * share:.2f} % ± {100 * half_width:.2f} (95 % interval, {len(right):,} examples; "
        f"{model.features_.name})" + (f"; not among the model's classes: {', '.join(unknown)}" if unknown else ""),
        highlight=False,
        soft_wrap=True,
    )


def _holds_something(path: Path) -> bool:
    """Say whether a path is taken: an empty folder is not, nor is one of a save that failed or was killed."""
    return path.exists() and not (path.is_dir() and all(file.suffix == ".part" for file in path.iterdir()))


def _asked(model: FewShotClassifier, examples: tuple[str, ...], label: str) -> tuple[list[str], Any]:
    """Return the names of what was asked, and the examples: files of pictures, tables without the label, or texts."""
    if not examples:
        raise ValueError("name the files, or, for a model of texts, the texts.")
    if model.features_.kind == "texts" and not any(name.lower().endswith(".csv") for name in examples):
        return list(examples), [_text(example) for example in examples]
    if model.features_.kind == "pictures":
        if folders := [name for name in examples if Path(name).is_dir()]:
            raise ValueError(f"expected files of pictures; found folders: {', '.join(folders[:5])}. Name their files.")
        if missing := [name for name in examples if not Path(name).is_file()]:
            raise ValueError(f"no such file: {', '.join(missing[:5])}.")
        return list(examples), [Path(name) for name in examples]
    if len(examples) != 1:
        raise ValueError(
            f"expected one .csv table and nothing beside it; found {len(examples)} names: {', '.join(examples[:5])}."
        )
    table = read_table(Path(examples[0]), label, model)
    known = getattr(model, "feature_names_in_", ())
    x = unlabelled_table(table if label in known else table.drop(columns=label, errors="ignore"))
    return [f"row {i + 1}" for i in range(len(x))], x


def _text(example: str) -> str:
    if os.path.isfile(example):  # noqa: PTH113, any text
        return Path(example).read_text(encoding="utf-8").strip()
    if example.lower().endswith(".txt") and not any(letter.isspace() for letter in example):
        raise ValueError(f"there is no file {example}.")
    return example
