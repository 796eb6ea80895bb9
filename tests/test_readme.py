"""What README and docs show is what happens."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for found, content in fenced if found == language]


def test_the_code_of_the_readme_runs_and_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text()
    first, few, own = blocks(text, "python")
    names: dict[str, object] = {}
    exec(compile(first, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    shown = next(block for block in blocks(text, "") if block.startswith("accuracy"))
    measured, claimed = (float(re.findall(r"accuracy (\d+\.\d+) %", one)[0]) for one in (printed, shown))
    assert abs(measured - claimed) < 1.5  # weights start at random
    words = [re.sub(r"[\d.]+ % ± [\d.]+|error: [\d.]+ %", "", one).strip() for one in (printed, shown)]
    assert words[0] == words[1]
    exec(compile(few, "README.md", "exec"), {})
    assert f"# {capsys.readouterr().out.strip()}\n" in few
    exec("from kshot import Learner, check_learner", names)
    exec(compile(own, "README.md", "exec"), names)


@pytest.fixture
def render(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("render")


def test_tables_are_rendered_from_the_committed_rows(render: ModuleType) -> None:
    for page in PAGES:
        assert render.rendered(page.read_text()) == page.read_text(), f"{page.name}: run python benchmarks/render.py"


def test_the_speed_table_is_of_the_last_run_and_of_exact_gradients(
    render: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(variant: str, value: float | None, exact: bool = True, run: int = 2) -> dict[str, object]:
        group = "kshot" if "kshot" in variant else "rival"
        told = {"variant": variant, "group": group, "value": value, "exact": exact, "run": run, "error": 1e-6}
        ratios = {"ratio": value and 90 / value, "ratio_to_exact_rival": value and 60 / value, "ratio_to_floor": None}
        rest = {"peak_bytes": None, "first_seconds": None, "failure": None if value else "it | failed"}
        return {"workload": "waves", "protocol": "tasks; turns", "bfloat16": False, **told, **ratios, **rest}

    rows = [row("kshot, mixed", 1.0, run=1), row("textbook", 90.0), row("higher", 60.0), row("torchopt", None)]
    rows += [row("parallel-metalearn", 10.0, exact=False), row("kshot, mixed", 20.0), row("kshot, reverse", 30.0)]
    for module in ("render", "tables"):
        monkeypatch.setattr(f"{module}.read_rows", lambda table: rows if table == "speed" else [])
    line = "| waves | 90 ms | 20 ms | 4.5x | 60 ms (higher), 3x | 1e-06 |"
    assert render.speed().splitlines()[2:] == [line]
    assert len(render.speed_all().splitlines()) == 2 + 6
    assert "it / failed" in render.speed_all()
    assert render.memory() == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    targets = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    assert not [target for target in targets if not target.startswith("http") and not leads_somewhere(page, target)]


def leads_somewhere(page: Path, target: str) -> bool:
    """Return whether there is the file that a page links to, with the heading, where one is named."""
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    return path.exists() and (not anchor or anchor in map(as_anchor, headings(path)))


def headings(path: Path) -> list[str]:
    without_code = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)


def as_anchor(heading: str) -> str:
    """Return the name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    "page",
    [
        "few-examples.md",
        "in-context.md",
        "memory-network.md",
        "metric.md",
        "multi-task.md",
        "neural-process.md",
        "ntm.md",
        "recurrent.md",
        "rl.md",
        "snail.md",
        "transfer.md",
        "uncertainty.md",
    ],
)
def test_the_code_of_a_page_prints_what_it_says(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for code in blocks((ROOT / "docs" / page).read_text(), "python"):
        exec(compile(code, page, "exec"), {})
        printed = capsys.readouterr().out.strip()
        assert f"# {printed}" in code or "print(" not in code or page in ("memory-network.md", "ntm.md")  # which train
