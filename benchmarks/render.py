"""Render the committed result rows into the tables of README.md and of the pages in docs.

A table stands between ``<!-- table NAME -->`` and ``<!-- end NAME -->``; what is between them is replaced.

    python benchmarks/render.py
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memory_tables import neural_process, recurrent, sequence_bits, sequence_speed, sequences, stories
from rows import read_rows
from tables import grouped, latest, markdown, percent
from text_tables import intents, series, series_sets, strangers

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def cores(row: dict[str, Any]) -> str:
    number = row["machine"].split(",")[1].split()[0]
    return f"{number} core{'s' * (number != '1')}"


def paper(row: dict[str, Any]) -> str:
    if not row["published"]:
        return ""
    return f"{row['published']:.2f}".removesuffix("0") + " (unconfirmed)" * row.get("unconfirmed", False)


def few_shot(*keys: str, of: str = "", table: str = "omniglot") -> str:
    """Return ours beside the published accuracy, and how long training took; the last recipe of each learner, or more."""
    rows = [
        (
            row["learner"] if row["learner"] == "iMAML" else row["learner"][0].upper() + row["learner"][1:],
            f"{row['ways']}-way {row['shots']}-shot",
            row["variant"],
            percent(row),
            paper(row),
            f"{row['episodes']:,}",
            f"{row['seconds'] / 60:.0f} min",
            f"{row['machine'].split(',')[0]}, {cores(row)}",
        )
        for row in latest(table, "learner", "ways", "shots", *keys)
        if of in ("", row["learner"])
    ]
    return markdown(
        ("learner", "task", "trained on", "accuracy, %", "paper", "test tasks", "training", "machine"), rows
    )


def lake() -> str:
    """Return errors on the official runs, and of verification, beside the published ones."""
    rows = [
        (
            row["learner"],
            row["variant"],
            "verification" if row["ways"] == 2 else "the official runs",
            f"{100 * (1 - row['value']):.2f} ± {100 * row['ci95']:.2f}",
            f"{100 - row['published']:.2f} ({row['whose']})",
            f"{100 * (1 - row['validation']):.1f}",
            f"{row['seconds'] / 60:.0f} min",
        )
        for row in latest("lake", "learner", "variant", "ways")
    ]
    head = ("learner", "trained by", "task", "error, %", "published", "error on validation, %", "training")
    return markdown(head, rows)


def points(row: dict[str, Any]) -> str:
    return f"{100 * row['difference']:+.2f} ± {100 * row['difference_ci95']:.2f}"


def distances() -> str:
    """Return what class means reach by each distance, and the paired difference to the squared Euclidean one."""
    measured = {(row["learner"], row["embedding"], row["shots"]): row for row in read_rows("distances")}
    rows = []
    for name, embedding in dict.fromkeys(key[:2] for key in measured):
        cells: list[str] = []
        for shots in (1, 5):
            row = measured[name, embedding, shots]
            seeds = f"{100 * min(row['by_seed']):.1f} to {100 * max(row['by_seed']):.1f}"
            cells += [percent(row), seeds, points(row) if row["difference_ci95"] else ""]
        rows.append((name, embedding, *cells))
    cells_of = ("%", "seeds", "paired difference, points")
    head = ("distance", "embedding trained with", *(f"{shots}-shot, {what}" for shots in (1, 5) for what in cells_of))
    return markdown(head, rows)


def semi() -> str:
    """Return what unlabelled examples add, without and with distractors."""
    rows = [
        (row["learner"], str(row["distractors"]), percent(row), points(row) if row["difference_ci95"] else "")
        for row in latest("semi", "learner", "distractors")
    ]
    return markdown(("learner", "distractor classes", "accuracy, %", "gain, points, paired"), rows)


def transfer() -> str:
    """Return what a pretrained net reaches in each way of using it, and the paired difference to the meta-trained one."""
    rows = [
        (
            f"{row['data']}, {row['ways']}-way {row['shots']}-shot",
            row["learner"],
            percent(row),
            points(row) if row["difference_ci95"] else "",
            f"{row['episodes']:,}",
            f"{row['steps']:,} steps, {row['seconds'] / 60:.0f} min" if row["seconds"] else "",
        )
        for row in latest("transfer", "data", "shots", "learner")
    ]
    head = ("task", "net and its use", "accuracy, %", "to meta-training, points, paired", "test tasks", "training")
    return markdown(head, rows)


def sinusoid() -> str:
    """Return the mean squared error, after 1, 5 and 10 gradient steps where they are taken, beside the published one."""
    rows = []
    measured = latest("sinusoid", "learner", "gradient_steps", "seed")
    for name in dict.fromkeys(row["learner"] for row in measured):
        of_name = {row["gradient_steps"]: row for row in measured if row["learner"] == name}
        cells = [
            f"{of_name[step]['value']:.3g} ± {of_name[step]['ci95']:.2g}"
            + (f" (paper {of_name[step]['published']:g})" if of_name[step]["published"] else "")
            if step in of_name
            else ""
            for step in (0, 1, 5, 10)
        ]
        rows.append((name, *cells, f"{next(iter(of_name.values()))['seconds']} s"))
    return markdown(("learner", "no gradient step", "1 step", "5 steps", "10 steps", "training"), rows)


def calibration() -> str:
    """Return accuracy and expected calibration error of one net and of five."""
    rows = [
        (row["learner"], str(row["members"]), percent(row), f"{100 * row['calibration_error']:.2f}")
        for row in latest("calibration", "learner", "members")
    ]
    return markdown(("learner", "nets", "accuracy, %", "expected calibration error, %"), rows)


def sampling() -> str:
    """Return the speed of drawing tasks."""
    value = {row["metric"]: row["value"] for row in latest("sampling", "metric")}
    rows = [
        ("32 tasks from memory, one gather, in a row", f"{value['meta-batch, ms']:.1f} ms"),
        ("the same between training steps", f"{value['meta-batch between training steps, ms']:.1f} ms"),
        (
            "32 tasks, one picture at a time with Pillow and a DataLoader",
            f"{value['meta-batch by Pillow and DataLoader, ms']:.0f} ms",
        ),
        ("ratio of the first to the third", f"{value['ratio']:.0f}x"),
        ("share of a prototypical training step", f"{value['share of a 60-way prototypical step']:.1%}"),
    ]
    return markdown(("drawing tasks", "median"), rows)


def encoding() -> str:
    """Return the speed of a prototypical step beside a supervised one."""
    value = {row["metric"]: row["value"] for row in latest("encoding", "metric")}
    rows = [
        ("prototypical, 60-way 1-shot, 5 queries", f"{value['prototypical step, ms']:.0f} ms"),
        ("supervised, 1,028 classes", f"{value['supervised step, ms']:.0f} ms"),
        ("speed of the first, of the second's", f"{value['ratio']:.0%}"),
    ]
    return markdown(("training step on 360 pictures", "median"), rows)


def anil() -> str:
    """Return the speed of a step of ANIL beside one of MAML."""
    measured = {(row["learner"], row["metric"]): row["value"] for row in latest("anil", "learner", "metric")}
    rows = [(name, f"{measured[name, 'step, ms']:.0f} ms") for name in ("MAML", "ANIL")]
    rows.append(("ANIL's speed, of MAML's", f"{measured['ANIL', 'ratio']:.1f}x"))
    return markdown(("training step, 20-way 1-shot, 5 inner steps, 16 tasks", "median"), rows)


def few_examples() -> str:
    """Return what fitting and asking the estimator takes."""
    names = ("MiniLM, nearest mean", "Conv4, nearest mean")
    measured = {(row["learner"], row["what"]): row["value"] for row in latest("few_examples", "learner", "what")}
    asked = dict.fromkeys(what for _, what in measured)
    rows = [(what, *(f"{measured[name, what]:,.0f} ms" for name in names)) for what in asked]
    return markdown(("", *names), rows)


def alphabets() -> str:
    """Return the accuracy on alphabets that no encoder has seen."""
    measured = grouped(latest("alphabets", "learner", "shots"), "learner")
    rows = [
        (name, *(percent(row) for row in found), f"{found[0]['seconds'] / 60:.0f} min" if found[0]["seconds"] else "")
        for (name,), found in measured.items()
    ]
    return markdown(("encoder", "1 drawing of each character", "5 drawings", "training"), rows)


def returns(table: str, first: str, *by: str) -> str:
    """Return the return after each step of adaptation, beside the published one, a row for each of the keys."""
    rows = []
    for keys, found in grouped(latest(table, "gradient_steps", *by), *by).items():
        cells = [
            f"{row['value']:.2f} ± {row['ci95']:.2f}" + (f" ({row['published']:g})" if row["published"] else "")
            for row in found
        ]
        tasks = re.search(r"\d+ tasks a step", found[0]["variant"])  # where a table has rows of several
        many = f" of {tasks[0].removesuffix(' a step')}" if tasks else ""
        spent = f"{found[0]['steps']:,} steps{many}, {found[0]['seconds'] / 60:.0f} min" if found[0]["steps"] else ""
        rows.append((", ".join(map(str, keys)), *cells, *[""] * (4 - len(cells)), spent))
    return markdown((first, "before", "1 step", "2 steps", "3 steps", "training"), rows)


def navigation() -> str:
    """Return the returns in 2D navigation."""
    return returns("navigation", "policy, seed", "learner", "seed")


def locomotion() -> str:
    """Return the returns of cheetahs and ants."""
    return returns("locomotion", "tasks, policy", "data", "learner")


def bandits() -> str:
    """Return the total reward in bandits, beside the published one."""
    measured = grouped(latest("bandits", "learner", "pulls", "arms"), "pulls", "arms")
    names = ("RL²", "Gittins' index", "Thompson's sampling", "random")
    rows = []
    for (pulls, arms), found in measured.items():
        by = {row["learner"]: row for row in found}
        told = [
            f"{by[name]['value']:.2f} ± {by[name]['ci95']:.2f}"
            + (f" ({by[name]['published']:g})" if by[name]["published"] else "")
            for name in names
        ]
        rows.append((f"{pulls} pulls, {arms} arms", *told, f"{by['RL²']['seconds'] / 60:.0f} min"))
    return markdown(("bandit", *names, "training of RL²"), rows)


def rl_speed() -> str:
    """Return the time of an outer step, in all and by parts."""
    rows = [
        (
            row["learner"],
            f"{row['value']:.2f} s",
            *(f"{1000 * part:.0f} ms" for part in row["parts"].values()),
            f"{row['ratio']:.1f}",
        )
        for row in latest("rl_speed", "learner")
    ]
    head = ("2D navigation, policy 64-64", "outer step", "collecting", "adapting", "trust region")
    return markdown((*head, "times the speed of pytorch-maml-rl"), rows)


def last_runs() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each workload's last run: what was timed in turns belongs together."""
    workloads: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows("speed"):
        before = workloads.get(row["workload"], [])
        workloads[row["workload"]] = [*(one for one in before if one["run"] == row["run"]), row]
    return workloads


def milliseconds(row: dict[str, Any]) -> str:
    return f"{row['value']:.3g} ms" if row["value"] < 1000 else f"{row['value']:,.0f} ms"


def times(value: float | None) -> str:
    return f"{value:.3g}x" if value else ""


def speed() -> str:
    """Return, for each workload, the textbook loop beside kshot's fastest exact way and the fastest exact rival."""
    rows = []
    for name, measured in last_runs().items():
        exact = [row for row in measured if row["value"] and row["exact"] and not row["bfloat16"]]
        loop = next((row for row in exact if row["variant"] == "textbook"), None)
        ours, rival = (
            min((row for row in exact if row["group"] == group), key=lambda row: row["value"], default=None)
            for group in ("kshot", "rival")
        )
        if loop and ours and rival:
            fastest = f"{milliseconds(rival)} ({rival['variant']}), {times(ours['ratio_to_exact_rival'])}"
            error = f"{ours['error']:.0e}"
            rows.append((name, milliseconds(loop), milliseconds(ours), times(ours["ratio"]), fastest, error))
    head = ("meta-gradient", "textbook loop", "kshot", "ratio", "fastest exact rival, ratio to it", "error")
    return markdown(head, rows)


def speed_all() -> str:
    """Return every variant of every workload."""
    rows = [
        (
            f"{name}: {row['protocol'].split(';')[0]}" if number == 0 else "",
            row["variant"],
            milliseconds(row) if row["value"] else row["failure"].replace("|", "/"),
            times(row["ratio"]),
            times(row["ratio_to_exact_rival"]),
            f"{row['error']:.0e}" + ("" if row["exact"] else " **not exact**") if row["error"] is not None else "",
            times(row["ratio_to_floor"]),
            f"{row['peak_bytes'] / 1e6:,.3g} MB" if row["peak_bytes"] else "",
            f"{row['first_seconds']:.0f} s" if row["first_seconds"] else "",
        )
        for name, measured in last_runs().items()
        for number, row in enumerate(measured)
    ]
    head = ("meta-gradient", "by", "median", "ratio", "to exact rival", "error", "to floor", "peak", "first step")
    return markdown(head, rows)


def memory() -> str:
    """Return the peak memory of a meta-gradient by the number of inner steps."""
    measured = latest("memory", "variant", "tasks", "gradient_steps")
    steps = sorted({row["gradient_steps"] for row in measured})
    value = {
        (row["variant"], row["tasks"], row["gradient_steps"]): f"{row['value'] / 1e6:,.3g} MB"
        for row in measured
        if row["value"]
    }
    named = dict.fromkeys((row["variant"], row["tasks"]) for row in measured)
    rows = [(variant, str(tasks), *(value.get((variant, tasks, s), "") for s in steps)) for variant, tasks in named]
    return markdown(("by", "tasks", *(f"{s} step{'s' * (s > 1)}" for s in steps)), rows)


TABLES: dict[str, Callable[[], str]] = {
    "omniglot": few_shot,
    "omniglot-all": lambda: few_shot("variant"),
    "omniglot-prototypical": lambda: few_shot("variant", of="prototypical"),
    "miniimagenet": lambda: few_shot(table="miniimagenet"),
    "equal-minutes": lambda: few_shot(table="equal_minutes"),
    "lake": lake,
    "distances": distances,
    "semi": semi,
    "transfer": transfer,
    "sinusoid": sinusoid,
    "calibration": calibration,
    "sampling": sampling,
    "encoding": encoding,
    "anil": anil,
    "few-examples": few_examples,
    "alphabets": alphabets,
    "navigation": navigation,
    "locomotion": locomotion,
    "bandits": bandits,
    "rl-speed": rl_speed,
    "intents-clinc150": lambda: intents("clinc150"),
    "intents-banking77": lambda: intents("banking77"),
    "strangers": strangers,
    "series": series,
    "series-sets": series_sets,
    "speed": speed,
    "speed-all": speed_all,
    "memory": memory,
    "recurrent": recurrent,
    "stories": stories,
    "sequences-copy": lambda: sequences("copy"),
    "sequences-n-grams": lambda: sequence_bits("n-grams"),
    "sequences-recall": lambda: sequence_bits("associative recall"),
    "sequences-priority-sort": lambda: sequence_bits("priority sort"),
    "sequence_speed": sequence_speed,
    "neural-process-gp": lambda: neural_process("Gaussian processes, RBF()"),
    "neural-process-sinusoid": lambda: neural_process("sinusoid"),
}


def rendered(text: str) -> str:
    """Return a page with its tables replaced by what the rows say now."""
    for name, table in TABLES.items():
        pattern = re.compile(f"(<!-- table {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if pattern.search(text):
            content = table()
            lines = f"{content}\n" if content else ""  # a table without rows so far is no table
            text = pattern.sub(lambda found, lines=lines: f"{found[1]}{lines}{found[2]}", text)
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rendered(page.read_text()))
