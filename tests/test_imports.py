"""Who may import whom: a room may import the rooms before it, and no other."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import kshot

SRC = Path(kshot.__file__).parent

TIERS = [
    {"autocast", "losses", "batching", "modes", "validation", "core", "weights", "plain_operations"},
    {
        "nets",
        "tasks",
        "learners",
        "contract",
        "embeddings",
        "allocator",
        "atomic",
        "divergence",
        "finite_differences",
        "interruption",
        "position",
        "program",
        "side_by_side",
        "meta_gradient",
        "memory",
    },
    {
        "training",
        "clipping",
        "evaluation",
        "presentations",
        "calibration",
        "checkpoint",
        "run_folder",
        "progress",
        "audit",
        "memory_estimate",
    },
    {"report", "estimators", "rl"},
    {"cli"},
]
SIBLINGS_APART = [("nets", "learners"), ("tasks", "learners"), ("nets", "tasks"), ("contract", "learners")]


def imported(path: Path) -> set[str]:
    """Return the rooms of kshot that a file imports; type checkers' imports count too."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules |= {node.module} if node.module != "kshot" else {f"kshot.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in modules if name.startswith("kshot.")} - {"__version__"}


def files() -> list[Path]:
    return [path for path in sorted(SRC.rglob("*.py")) if path != SRC / "__init__.py"]


def room(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SRC)))
def test_imports_go_down_the_tiers(path: Path) -> None:
    tier = {name: number for number, names in enumerate(TIERS) for name in names}
    assert room(path) in tier, f"{path} stands in no room of the house: put it into a tier"
    upwards = {name for name in imported(path) if tier[name] > tier[room(path)]}
    assert not upwards, f"{path} imports {upwards} from above"
    for one, other in SIBLINGS_APART:
        assert not (room(path) == one and other in imported(path)), f"{path}: {one} must not import {other}"


def test_a_learner_family_imports_no_other() -> None:
    families = {path.name for path in (SRC / "learners").iterdir() if path.is_dir()}
    for path in (SRC / "learners").rglob("*.py"):
        text = path.read_text()
        # Fine-tuning is the inner loop of the gradient family.
        allowed = {path.parent.name, "gradient"} if path.parent.name == "transfer" else {path.parent.name}
        others = families - allowed - {"__pycache__"}
        assert not [name for name in others if f"kshot.learners.{name}" in text], path


def test_core_imports_torch_only() -> None:
    allowed = set(sys.stdlib_module_names) | {"torch", "jaxtyping", "kshot"}
    for path in (path for path in files() if room(path) in TIERS[0]):
        tree = ast.parse(path.read_text())
        roots = {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        roots |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert roots <= allowed, f"{path} imports {roots - allowed}"


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, kshot.cli; from kshot.cli import options; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_what_they_say_and_are_documented() -> None:
    for path in files():
        if "cli" not in path.parts:  # a submodule of a public name's name would hide it
            importlib.import_module(".".join(("kshot", *path.relative_to(SRC).with_suffix("").parts)))
    for name in kshot.__all__:
        public = getattr(kshot, name)
        assert callable(public), f"kshot.{name} is a {type(public).__name__}"
        assert public.__doc__, name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = kshot.nonsense


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SRC)))
def test_what_a_file_exports_exists_and_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    defined = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    exported = [
        ast.literal_eval(n.value)
        for n in tree.body
        if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"
    ]
    for name in exported[0] if exported else []:
        if name in defined:
            assert ast.get_docstring(defined[name]), f"{path}: {name} has no docstring"
