import subprocess
import sys

CODE = """
import torch
from kshot.allocator import keep_freed_memory
first, second = keep_freed_memory(), keep_freed_memory()
blocks = [torch.ones(2**20) for _ in range(8)]
print(first, second, sum(block.sum().item() for block in blocks) == 2**23)
"""


def test_it_says_whether_the_settings_were_taken_and_may_be_asked_twice() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    first, second, whole = done.stdout.split()
    assert first in ("True", "False")
    assert (second, whole) == (first, "True")


def test_elsewhere_than_on_linux_nothing_happens() -> None:
    code = (
        "import sys; sys.platform = 'darwin'; from kshot.allocator import keep_freed_memory; print(keep_freed_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
