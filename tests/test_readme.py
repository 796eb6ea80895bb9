"""What README and docs show is what happens."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for found, content in fenced if found == language]


def test_the_code_of_the_readme_runs_and_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text()
    first, own = blocks(text, "python")
    names: dict[str, object] = {}
    exec(compile(first, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    shown = next(block for block in blocks(text, "") if block.startswith("accuracy"))
    measured, claimed = (float(re.findall(r"accuracy (\d+\.\d+) %", one)[0]) for one in (printed, shown))
    assert abs(measured - claimed) < 1.5  # weights start at random
    words = [re.sub(r"[\d.]+ % ± [\d.]+", "", one).strip() for one in (printed, shown)]
    assert words[0] == words[1]
    exec("from kshot import Learner, check_learner", names)
    exec(compile(own, "README.md", "exec"), names)


def test_tables_are_rendered_from_the_committed_rows() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import render
    finally:
        sys.path.pop(0)
    for page in PAGES:
        assert render.rendered(page.read_text()) == page.read_text(), f"{page.name}: run python benchmarks/render.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    targets = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    missing = [target for target in targets if not target.startswith("http") and not (page.parent / target).exists()]
    assert not missing
