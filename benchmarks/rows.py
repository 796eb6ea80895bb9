"""Rows of the result tables: what was measured, by which command, at which commit, on which machine."""

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from kshot.evaluation import Evaluation

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Name the processor, its cores, and the versions that speed and rounding depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    return f"{(names or [platform.machine()])[0]}, {cores} cores, torch {torch.__version__}, {platform.system()}"


def commit() -> str:
    """Return the commit of the working tree, with a mark where it has uncommitted changes to the library."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")


# Read when a benchmark starts: the working tree may move on while it runs.
_ORIGIN = {"machine": machine(), "commit": commit(), "command": shlex.join(["python", *sys.argv])}


def write_rows(table: str, rows: list[dict[str, Any]]) -> None:
    """Add rows to ``results/TABLE.jsonl``, each with machine, commit and command."""
    with (RESULTS / f"{table}.jsonl").open("a") as file:
        for row in rows:
            file.write(json.dumps({"table": table, **row, **_ORIGIN}, ensure_ascii=False) + "\n")


def result_row(result: Evaluation, **more: Any) -> dict[str, Any]:
    """Turn an evaluation into a row; ``more`` says learner, ways, shots, published, seed and seconds."""
    protocol = "; ".join(f"{key}: {value}" for key, value in result.stamp.items())
    return {
        "data": result.stamp.get("data", ""),
        "protocol": protocol,
        "metric": result.metric,
        "value": result.mean,
        "ci95": result.ci95,
        "episodes": len(result.scores),
        **more,
    }


def read_rows(table: str) -> list[dict[str, Any]]:
    """Read the rows of a table."""
    path = RESULTS / f"{table}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
