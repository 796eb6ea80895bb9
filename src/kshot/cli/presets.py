"""The papers' own settings, by name: what ``--preset`` makes the defaults. Nothing here imports torch."""

from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from kshot.cli.learner_options import MAMLOptions, RecurrentOptions, ReptileOptions

__all__ = ["with_preset"]


Presettable: TypeAlias = MAMLOptions | ReptileOptions | RecurrentOptions
OptionsT = TypeVar("OptionsT", bound=Presettable)


def with_preset(options: OptionsT) -> OptionsT:
    """Return the options with the settings of their preset, for their data, ways and shots.

    Raises:
        ValueError: the paper has no settings for them.
    """
    match options:
        case RecurrentOptions():
            told = _stream(options)
        case ReptileOptions():
            told = _reptile(options)
        case MAMLOptions():
            told = _by_paper(options)
    return replace(options, **told)


def _by_paper(options: MAMLOptions) -> dict[str, Any]:
    match options.preset:
        case "finn2017":
            return _maml(options)
        case "li2017":
            return {**_maml(options), "inner_steps": 1, "test_steps": None, "learn_lr": "per_parameter"}
        case "antoniou2019":
            return _maml_plus_plus(options)
        case "rajeswaran2019":
            return _implicit(options)
        case "zintgraf2019":
            return _context(options)
        case "raghu2020":
            return {**_maml(options), "adapts": "head"}
        case "oh2021":
            return _body(options)
        case None:
            return {}


def _maml(options: MAMLOptions) -> dict[str, Any]:
    """Finn et al. 2017, appendix A.1, and their code, which divides the sum of the losses by the shots alone.

    Our loss is the mean over examples, so that the code's step sizes are to be multiplied by the ways.
    """
    shots, ways = options.shots or 1, options.ways
    if options.data == "sinusoid":
        return {"inner_lr": 0.01, "tasks_per_step": 25, "steps": _steps(options, 70_000)}
    common = {"queries": shots, "steps": _steps(options, 60_000)}
    match options.data, ways:
        case "omniglot", 5:
            more = {"protocol": "finn", "inner_lr": 0.4 * ways, "test_steps": 3, "tasks_per_step": 32}
        case "omniglot", 20:
            more = {"protocol": "finn", "inner_lr": 0.1 * ways, "inner_steps": 5, "tasks_per_step": 16}
        case "miniimagenet", 5:
            more = {"net": "pooled", "filters": 32, "inner_lr": 0.01 * ways, "inner_steps": 5, "test_steps": 10}
            more |= {"tasks_per_step": 4 if shots == 1 else 2, "train_queries": 15, "clip": 10.0}
        case _:
            raise _unknown(options, "omniglot with 5 or 20 ways, miniimagenet with 5, and sinusoid")
    return {**common, **more}


def _maml_plus_plus(options: MAMLOptions) -> dict[str, Any]:
    """Antoniou et al. 2019, the configurations of their code; one model, where they report an ensemble of five."""
    common = {"net": "pooled", "inner_steps": 5, "learn_lr": "per_layer_per_step", "per_step_norm": True}
    common["steps"] = _steps(options, 50_000)
    match options.data:
        case "omniglot":
            more = {"protocol": "mamlpp", "inner_lr": 0.1, "tasks_per_step": 8, "multi_step": 0.1, "queries": 1}
            more |= {"train_queries": 1, "cosine": options.steps is not None or options.minutes is None}
        case "miniimagenet":
            more = {"filters": 48, "inner_lr": 0.01, "tasks_per_step": 2, "multi_step": 0.15, "queries": 15}
            more |= {"train_queries": 15, "clip": 10.0}
        case _:
            raise _unknown(options, "omniglot and miniimagenet")
    return {**common, **more}


def _implicit(options: MAMLOptions) -> dict[str, Any]:
    """Rajeswaran et al. 2019, the command in their code's README, not its bare defaults."""
    if (options.data, options.ways, options.shots or 1) != ("omniglot", 5, 1):
        raise _unknown(options, "omniglot with 5 ways and 1 shot")
    more = {"protocol": "finn", "inner_lr": 0.1, "inner_steps": 16, "differentiate": "implicit", "proximity": 2.0}
    # The code adds 1 to the identity and 10 to lambda: but for a factor of 6 that is 11 added to the identity.
    return {**more, "damping": 11.0, "tasks_per_step": 32, "queries": 1, "steps": _steps(options, 20_000)}


def _context(options: MAMLOptions) -> dict[str, Any]:
    """Zintgraf et al. 2019, the settings for miniImageNet and for sine waves; without their decay of the outer rate."""
    if options.data == "sinusoid":
        return {"adapts": "context", "inner_lr": 1.0, "tasks_per_step": 25, "steps": _steps(options, 50_000)}
    more = {"adapts": "context", "inner_lr": 1.0, "inner_steps": 2, "tasks_per_step": 16, "train_queries": 15}
    return {**_lent(options), **more, "filters": 32, "net": "pooled", "steps": _steps(options, 60_000)}


def _body(options: MAMLOptions) -> dict[str, Any]:
    """Oh et al. 2021, the settings for miniImageNet."""
    more = {"adapts": "body", "inner_lr": 0.5, "tasks_per_step": 4, "train_queries": 15}
    return {**_lent(options), **more, "net": "pooled", "steps": _steps(options, 30_000)}


def _lent(options: MAMLOptions) -> dict[str, Any]:
    """Where settings are for miniImageNet, take them for Omniglot too, with the split and the queries of Finn et al."""
    match options.data, options.ways:
        case "omniglot", 5:
            return {"protocol": "finn", "queries": options.shots or 1}
        case "miniimagenet", 5:
            return {}
        case _:
            raise _unknown(options, "miniimagenet with 5 ways, which omniglot borrows")


def _reptile(options: ReptileOptions) -> dict[str, Any]:
    """Nichol et al. 2018, their code's README."""
    net: dict[str, Any] = {}
    match options.data, options.ways:
        case "omniglot", 5:
            more = {"inner_steps": 5, "batch_size": 10, "inner_lr": 1e-3, "steps": _steps(options, 100_000)}
        case "omniglot", 20:
            more = {"inner_steps": 10, "batch_size": 20, "inner_lr": 5e-4, "steps": _steps(options, 200_000)}
        case "miniimagenet", 5:
            more = {"inner_steps": 8, "batch_size": 10, "train_shots": 15, "steps": _steps(options, 100_000)}
            net = {"net": "pooled", "filters": 32}
        case _:
            raise _unknown(options, "omniglot with 5 or 20 ways, and miniimagenet with 5")
    return {**net, **more, "protocol": "reptile", "queries": 1}


def _stream(options: RecurrentOptions) -> dict[str, Any]:
    """Santoro et al. 2016: data, streams and sizes; optimizer and length of training are ours."""
    if options.data != "omniglot":
        raise _unknown(options, "omniglot")
    return {"protocol": "mann", "shots": 10, "queries": 1, "flat": True, "steps": _steps(options, 100_000)}


def _steps(options: Presettable, published: int) -> int | None:
    """Return the published number of steps, unless the budget is in minutes."""
    return published if options.minutes is None else None


def _unknown(options: Presettable, known: str) -> ValueError:
    return ValueError(
        f"--preset {options.preset} has settings for {known}; found --data {options.data} --ways {options.ways} "
        f"--shots {options.shots or 1}."
    )
