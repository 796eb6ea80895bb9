import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from kshot.checkpoint import load_checkpoint, load_learner, save_checkpoint, save_learner
from kshot.learners.metric import Prototypical


def test_nested_content_comes_back_as_it_was(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    content = {
        "tensors": [shared, shared.T, torch.tensor(3, dtype=torch.int64)],
        0: {"none": None, "pair": (1, 2.5), "text": "ä", "flag": True, "tiny": 1e-320},
        "empty": torch.zeros(0),
    }
    save_checkpoint(tmp_path / "c.safetensors", content)
    loaded = load_checkpoint(tmp_path / "c.safetensors")
    assert loaded[0] == content[0]
    assert all(torch.equal(one, other) for one, other in zip(loaded["tensors"], content["tensors"], strict=True))
    assert loaded["empty"].shape == (0,)


def test_values_that_cannot_be_saved_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="found object at /optimizer/1"):
        save_checkpoint(tmp_path / "c.safetensors", {"optimizer": [1, object()]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", [{"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}}, {1: torch.zeros(1), "1": torch.ones(1)}]
)
def test_two_tensors_of_one_place_are_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(ValueError, match="two tensors of a checkpoint would stand at /"):
        save_checkpoint(tmp_path / "c.safetensors", content)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Nothing was saved\. Check that .*file is a folder that you may write to"):
        save_checkpoint(tmp_path / "file" / "c.safetensors", {"step": 1})


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"w": torch.randn(100, 10)})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"not a whole checkpoint of kshot .* Delete it"):
        load_checkpoint(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a whole checkpoint of kshot"):
        load_checkpoint(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "missing.safetensors")


def test_a_learner_of_another_build_is_refused(tmp_path: Path) -> None:
    save_learner(tmp_path / "l.safetensors", Prototypical(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match="does not fit this Prototypical"):
        load_learner(tmp_path / "l.safetensors", Prototypical(nn.Linear(4, 2)))


FULL_DISK = """
import resource, sys, torch
from kshot.checkpoint import save_checkpoint
save_checkpoint(sys.argv[1], {"step": 1, "w": torch.zeros(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # the system refuses to write more, as a full disk does
try:
    save_checkpoint(sys.argv[1], {"step": 2, "w": torch.zeros(10_000)})
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX matter")
def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert "could not save" in told
    assert "The file saved before it is untouched. Free some space" in told
    assert load_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]
