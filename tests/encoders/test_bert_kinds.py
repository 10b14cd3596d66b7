"""BERT checkpoints in all published forms load correctly and can be trained."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    BertTokenizer,
    FunnelConfig,
    MPNetConfig,
)

import task_4
import task_5
from model import MultiTaskTransformer, SentenceTransformer
from multitask.common.errors import InputError
from multitask.encoders.pretrained import find_backbone, load_model, load_tokenizer
from multitask.encoders.saving import tokenizer_files

SPECIAL = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "Paris", "paris", "The", "the", "won", "é", "e", "winning"]
IDS = torch.tensor([[3, 6, 8, 10, 4], [3, 7, 4, 0, 0]])


@pytest.fixture
def published(tmp_path):
    """A folder like that of bert-base-cased: pre-training heads, a pooler, and vocab.txt as the only
    tokenizer file; and its encoder's hidden states for IDS."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = BertForPreTraining(BertConfig(vocab_size=len(WORDS), **sizes)).eval()
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name:
            torch.nn.init.normal_(parameter, 1)
    folder = tmp_path / "published"
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    with torch.inference_mode():
        return folder, model.bert(IDS, attention_mask=IDS.sign()).last_hidden_state


def test_an_early_configuration_without_a_model_type_loads(published):
    folder, expected = published
    file = folder / "config.json"
    values = json.loads(file.read_text())
    del values["model_type"], values["architectures"]
    file.write_text(json.dumps(values))
    model = load_model(SentenceTransformer, folder)
    with torch.inference_mode():
        assert torch.equal(model.eval().encode(IDS, IDS.sign())[0], expected[0])
    assert load_tokenizer(folder).encode("The Paris won").tokens == ["[CLS]", "The", "Paris", "won", "[SEP]"]
    assert set(tokenizer_files(folder)) == {"tokenizer.json", "tokenizer_config.json"}


def old_name(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize(
    ("rename", "dtype"),
    [
        (str, torch.float32),
        (old_name, torch.float32),
        (lambda name: name.removeprefix("bert."), torch.float32),
        (lambda name: old_name(name.removeprefix("bert.")), torch.float32),
        (str, torch.float16),
        (str, torch.bfloat16),
    ],
)
def test_weights_load_under_all_their_published_names(published, rename, dtype):
    folder, expected = published
    weights = load_file(folder / "model.safetensors")
    if dtype != torch.float32:
        for name in weights:
            weights[name] = weights[name].to(dtype).float()
        reference = BertForPreTraining.from_pretrained(folder).eval()
        reference.load_state_dict(weights, strict=False)
        with torch.inference_mode():
            expected = reference.bert(IDS, attention_mask=IDS.sign()).last_hidden_state
    stored = {rename(name): weight.to(dtype).contiguous() for name, weight in weights.items()}
    stored["bert.embeddings.position_ids"] = torch.arange(512)[None]
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    heads = {"num_classes_task_a": 2, "num_labels_task_b": 3}
    for model in (
        load_model(SentenceTransformer, folder),
        load_model(MultiTaskTransformer, folder, new_heads=True, **heads),
    ):
        with torch.inference_mode():
            assert torch.equal(model.eval().encode(IDS, IDS.sign()), expected)


def vocabulary_only(folder: Path, lower: bool):
    if lower:
        names = (f"x{n}" if word in ("Paris", "The") else word for n, word in enumerate(WORDS))
        words = "\n".join(names)
        (folder / "vocab.txt").write_text(words + "\n", encoding="utf-8")


def tokenizer_file(folder: Path, lower: bool):
    BertTokenizer.from_pretrained(folder, do_lower_case=lower).save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer_config.json").unlink()


def contradicted_tokenizer_file(folder: Path, lower: bool):
    tokenizer_file(folder, lower)
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": not lower}))


def tokenizer_without_a_class(folder: Path, lower: bool):
    tokenizer_file(folder, lower)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["normalizer"]["clean_text"] = False
    content["model"]["max_input_chars_per_word"] = 6
    file.write_text(json.dumps(content))


def vocabulary_and_config(folder: Path, lower: bool):
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    "form",
    [
        vocabulary_only,
        vocabulary_and_config,
        tokenizer_file,
        contradicted_tokenizer_file,
        tokenizer_without_a_class,
    ],
)
def test_a_tokenizer_keeps_its_case_before_and_after_training(
    published, shell, settings_for, form, lower, capfd
):
    folder, _ = published
    form(folder, lower)
    text = "Paris paris the é winning"
    before = load_tokenizer(folder).encode(text).tokens
    assert (before[1] == before[2]) == lower
    warning = "its vocabulary has capitals, so the tokenizer keeps them"
    assert (warning in capfd.readouterr().err) == (form == vocabulary_only and not lower)
    ended = shell(task_4, *settings_for, f"model.backbone={folder}", "model.freeze_backbone=false")
    assert ended.status == 0, ended.err
    assert ended.err.count(warning) == (form == vocabulary_only and not lower)
    assert load_tokenizer("run/model").encode(text).tokens == before
    assert AutoTokenizer.from_pretrained("run/model")(text).tokens() == before
    predicted = shell(task_5, "predict", "Paris", "paris", "--model", "run/model")
    assert predicted.status == 0, predicted.err
    first, second = (json.loads(line)["probabilities"] for line in predicted.out.splitlines())
    assert (first == second) == lower


def test_a_few_capitals_in_a_vocabulary_do_not_make_it_cased(tmp_path, tiny):
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    words = (tmp_path / "vocab.txt").read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:-1], "NEW"]) + "\n")
    assert load_tokenizer(tmp_path).encode("Paris").tokens == ["[CLS]", "paris", "[SEP]"]


def test_a_saved_tokenizer_is_limited_to_the_positions_of_the_encoder(published):
    folder, _ = published
    for size, expected in ((None, 512), (100, 100), (1000, 512)):
        if size:
            (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": size}))
        assert json.loads(tokenizer_files(folder)["tokenizer_config.json"])["model_max_length"] == expected


@pytest.mark.parametrize("config", [AlbertConfig, FunnelConfig, MPNetConfig])
def test_another_architecture_is_refused_in_one_line(shell, settings_for, tmp_path, config):
    config().save_pretrained(tmp_path / "other")
    ended = shell(task_4, *settings_for, f"model.backbone={tmp_path / 'other'}")
    kind = config.model_type
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        f"error: {tmp_path / 'other'}: its model_type is {kind!r}; "
        "supported encoders are bert, roberta, xlm-roberta, camembert, electra, distilbert, modernbert, "
        "eurobert, deberta-v2\n"
    )


def test_a_tokenizer_is_read_from_two_kinds_of_files_only(published):
    folder, _ = published
    (folder / "vocab.txt").unlink()
    (folder / "sentencepiece.bpe.model").write_bytes(b"\n")
    with pytest.raises(InputError, match="no tokenizer.json and no vocab.txt in it, so it has no tokenizer"):
        load_tokenizer(find_backbone(str(folder)).folder)
