"""Model folders that are damaged or made to harm end in one clear line, and nothing of theirs runs."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig

import task_1
import task_2
import task_4
import task_5
from model import MultiTaskConfig, MultiTaskTransformer, SentenceTransformer
from multitask.common.checksums import CHECKSUMS
from multitask.common.errors import InputError
from multitask.data.labels import labels_from_config
from multitask.encoders.pretrained import find_backbone, load_model, load_tokenizer
from multitask.encoders.saving import save_model
from multitask.encoders.validation import read_config

HEADS = {"num_classes_task_a": 3, "num_labels_task_b": 4}


@pytest.fixture
def encoder(tmp_path, tiny) -> Path:
    return shutil.copytree(tiny, tmp_path / "model")


@pytest.fixture
def trained(tmp_path, tiny) -> Path:
    """A model with the names of two classes and one type, whose files may be changed."""
    fields = BertConfig.from_pretrained(tiny).to_dict()
    config = MultiTaskConfig(
        **{
            **fields,
            "classes": ["a", "b"],
            "num_classes_task_a": 2,
            "id2label": {0: "O", 1: "B-X", 2: "I-X"},
            "label2id": {"O": 0, "B-X": 1, "I-X": 2},
            "tag_scheme": "BIO",
            "max_length": 16,
            "stride": 4,
        }
    )
    save_model(MultiTaskTransformer(config), tiny, tmp_path / "trained")
    (tmp_path / "trained" / CHECKSUMS).unlink()
    return tmp_path / "trained"


def edit(folder: Path, **fields) -> None:
    """Set fields of config.json; those that are ... are taken out."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def edit_weights(folder: Path, change) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def refused(folder: Path, model_class=MultiTaskTransformer, **given) -> str:
    """The one line that loading a folder ends with."""
    with pytest.raises(InputError) as error:
        load_model(model_class, folder, **given)
    message = str(error.value)
    assert str(folder) in message
    assert "\n" not in message
    return message.replace(str(folder), "model")


class Harm:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_is_never_opened(encoder, tmp_path):
    mark = tmp_path / "mark"
    with open(encoder / "pytorch_model.bin", "wb") as file:
        pickle.dump(Harm(mark), file)
    load_model(SentenceTransformer, encoder)
    load_tokenizer(encoder)
    (encoder / "model.safetensors").unlink()
    assert refused(encoder) == (
        "model: no model.safetensors in it, so it is no model that can be loaded; pytorch_model.bin is a "
        "pickle, which could run code and is never loaded"
    )
    assert not mark.exists()
    with open(encoder / "pytorch_model.bin", "rb") as file:
        pickle.load(file)
    assert mark.exists(), "the pickle is a harmful one"


@pytest.mark.parametrize("content", [b"", b"x" * 7, b"\xff" * 4096, bytes(9), b"{}" * 50, "cut"])
def test_weights_that_are_damaged(encoder, content):
    weights = encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] if content == "cut" else content)
    assert refused(encoder).startswith("model/model.safetensors: can't be read: ")


def test_weights_of_other_names_are_never_silently_new(encoder):
    def rename(weights):
        for name in [name for name in weights if ".attention.self.key." in name]:
            weights[name.replace("key", "chiave")] = weights.pop(name)

    edit_weights(encoder, rename)
    for model_class, new_heads in ((SentenceTransformer, False), (MultiTaskTransformer, True)):
        message = refused(encoder, model_class, new_heads=new_heads)
        first = "bert.encoder.layer.0.attention.self.key.bias"
        assert message == f"model/model.safetensors: 6 weights are missing, such as {first} (32,)"


def test_a_weight_of_another_shape_is_an_error_but_for_new_heads(encoder, trained):
    edit(trained, classes=None, tag_scheme=None, id2label=None, label2id=None)
    assert "4 weights are missing, such as classifier.bias (4,)" in refused(trained, **HEADS)
    load_model(MultiTaskTransformer, trained, new_heads=True, **HEADS)

    def narrow(weights):
        weights["encoder.layer.1.output.dense.weight"] = torch.zeros(32, 63)

    edit_weights(encoder, narrow)
    message = refused(encoder, new_heads=True, **HEADS)
    assert "1 weights are missing, such as bert.encoder.layer.1.output.dense.weight (32, 64)" in message


def test_heads_are_new_only_where_that_is_asked_for(encoder):
    assert "4 weights are missing, such as classifier.bias" in refused(encoder, **HEADS)
    model = load_model(MultiTaskTransformer, encoder, new_heads=True, **HEADS)
    assert model.sentence_classifier.weight.shape == (3, 32)


@pytest.mark.parametrize("head", ["sentence_classifier", "classifier"])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_head_that_has_names_has_weights(trained, head, part):
    edit_weights(trained, lambda weights: weights.pop(f"{head}.{part}"))
    message = refused(trained, new_heads=True)
    assert message.startswith(f"model/model.safetensors: no {head}.{part} of ")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(encoder, bad):
    name = "encoder.layer.2.output.dense.bias"

    def spoil(weights):
        weights[name][5] = bad

    edit_weights(encoder, spoil)
    assert f"bert.{name} holds numbers that are not finite" in refused(encoder, SentenceTransformer)


def test_finite_weights_whose_sum_is_not_are_fine(encoder):
    edit_weights(encoder, lambda weights: weights["embeddings.LayerNorm.bias"].fill_(3e38))
    load_model(SentenceTransformer, encoder)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"hidden_size": "x"}, "hidden_size: Input should be a valid integer"),
        ({"hidden_size": -1}, "hidden_size: Input should be greater"),
        ({"hidden_size": None}, "hidden_size: Input should be a valid integer"),
        ({"hidden_size": True}, "hidden_size: Input should be a valid integer"),
        ({"hidden_size": 64}, "word_embeddings.weight is 160 × 32, but hidden_size in config.json is 64"),
        ({"num_attention_heads": 5}, "hidden_size is 32, no multiple of num_attention_heads, 5"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: Input should be less"),
        ({"num_hidden_layers": 100}, "weights of 3 layers, but num_hidden_layers in config.json is 100"),
        ({"num_hidden_layers": 2}, "weights of 3 layers, but num_hidden_layers in config.json is 2"),
        ({"intermediate_size": 10**7}, "intermediate.dense.weight is 64 × 32, but intermediate_size"),
        ({"vocab_size": 10**7}, "but vocab_size in config.json is 10000000"),
        ({"max_position_embeddings": 512}, "but max_position_embeddings in config.json is 512"),
        ({"type_vocab_size": 1}, "but type_vocab_size in config.json is 1"),
        ({"pad_token_id": 160}, "pad_token_id is 160, but vocab_size is 160"),
        ({"hidden_act": "gulu"}, "there is no activation 'gulu'"),
        ({"hidden_act": ["gelu"]}, "hidden_act: Input should be a valid string"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps: Input should be a finite number"),
        ({"hidden_dropout_prob": 2}, "hidden_dropout_prob: Input should be less than 1"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type: Input should be 'absolute'"),
        ({"model_type": ["bert"]}, "model_type is ['bert']; only BERT"),
        ({"auto_map": {"AutoModel": "modeling.Bert"}}, "code of the model's own (auto_map), which is never"),
        ({"num_labels": 10**9}, "num_labels: Input should be less"),
        ({"classes": ["a", "b", "c"]}, "num_classes_task_a is 2, but classes has 3 names"),
        ({"classes": ["a", "a"]}, "classes: a name stands twice"),
        ({"classes": "ab"}, "classes: Input should be a valid list"),
        ({"classes": ["a", "\ud800"]}, "classes.1: Input should be a valid string"),
        ({"classes": ["a", "b", "c"], "num_classes_task_a": 3}, "no sentence_classifier.weight of 3 × 32"),
        ({"id2label": {"0": "O", "x": "B-X", "2": "I-X"}}, "keys are not the numbers from 0 to 2"),
        ({"id2label": {"0": "O", "1": "B-X", "3": "I-X"}}, "keys are not the numbers from 0 to 2"),
        ({"id2label": {"0": "O", "1": "B-X", "01": "I-X"}}, "keys are not the numbers from 0 to 2"),
        ({"id2label": ["O"]}, "id2label: Input should be a valid dictionary"),
        ({"id2label": {"0": 0}}, "id2label.0: Input should be a valid string"),
        ({"id2label": {"0": "O", "1": "B-X"}}, "num_labels_task_b is 3, but id2label has 2 entries"),
        ({"id2label": None}, "tag_scheme is BIO, but there is no id2label"),
        ({"id2label": {"0": "O", "1": "B-X"}, "num_labels_task_b": 2}, "no classifier.weight of 2 × 32"),
        ({"tag_scheme": "BILOU"}, "tag_scheme: Input should be 'IO' or 'BIO'"),
        ({"pooling": "max"}, "pooling: Input should be 'cls' or 'mean'"),
        ({"max_length": 65}, "max_length is 65, but max_position_embeddings is 64"),
        ({"temperature_task_a": 0}, "temperature_task_a: Input should be greater than 0"),
        ({"temperature_task_b": float("inf")}, "temperature_task_b: Input should be a finite number"),
        ({"temperature_task_b": "1"}, "temperature_task_b: Input should be a valid number"),
        ({"max_length": 16, "stride": 14}, "stride is 14; with max_length 16 it is below 14"),
    ],
)  # fmt: skip
def test_a_configuration_that_can_not_be(trained, fields, reason):
    edit(trained, **fields)
    assert reason in refused(trained)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a model's configuration"),
        (b"[1]", "not a model's configuration"),
        (b"[" * 20_000, "not a model's configuration"),
        (b'{"a":' * 20_000, "not a model's configuration"),
        (b'{"model_type": "bert", "hidden_size": ' + b"9" * 5000 + b"}", "not a model's configuration"),
        (b'{"model_type": "\xff"}', "not a model's configuration"),
        (b'{"model_type": "gpt", "model_type": "bert"}', "the key 'model_type' stands twice"),
        (b" " * (16 << 20) + b"{}", "a configuration has at most"),
        (None, "no config.json in it"),
        ("fifo", "no config.json in it"),
    ],
)
def test_a_config_json_that_is_none(encoder, content, reason):
    file = encoder / "config.json"
    file.unlink()
    if content == "fifo":
        os.mkfifo(file)
    elif content is not None:
        file.write_bytes(content)
    for find in (lambda: find_backbone(str(encoder)), lambda: load_model(SentenceTransformer, encoder)):
        with pytest.raises(InputError, match=reason.replace("(", r"\(")):
            find()


def test_fields_that_are_not_read_have_no_effect(encoder):
    plain = load_model(SentenceTransformer, encoder)
    elsewhere = {
        "transformers_weights": "../other.safetensors",
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
        "attn_implementation": "someone/kernels",
        "per_layer_config": {"0": {"hidden_size": 8}},
        "is_decoder": True,
        "dtype": "nonsense",
        "_name_or_path": "/elsewhere",
    }
    edit(encoder, **elsewhere)
    model = load_model(SentenceTransformer, encoder)
    assert model.config.to_dict() == plain.config.to_dict()
    ids = torch.arange(10, 20)[None]
    assert torch.equal(model.eval()(ids), plain.eval()(ids))


@pytest.mark.parametrize("elsewhere", ["/{}/other.safetensors", "../other/model.safetensors"])
def test_no_file_that_another_one_names_is_read(encoder, tiny, elsewhere):
    name = elsewhere.replace("/{}", str(tiny))
    weights = load_file(encoder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (encoder / "model.safetensors.index.json").write_text(json.dumps(index))
    (encoder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name}))
    load_model(SentenceTransformer, encoder)
    other = encoder.parent / "other"
    other.mkdir()
    shutil.move(encoder / "model.safetensors", other)
    assert "no model.safetensors in it" in refused(encoder)


def test_a_member_may_be_a_link_as_in_the_hubs_cache(encoder, tmp_path):
    for file in list(encoder.iterdir()):
        shutil.move(file, tmp_path)
        file.symlink_to(tmp_path / file.name)
    load_model(SentenceTransformer, encoder)
    load_tokenizer(encoder)


def change_tokenizer(folder: Path, change) -> None:
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    change(tokenizer)
    file.write_text(json.dumps(tokenizer))


def larger_vocabulary(tokenizer):
    tokenizer["model"]["vocab"]["zebra"] = 160


def special_token_without_embedding(tokenizer):
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [999], "tokens": ["[CLS]"]}},
    }


def no_unknown_token(tokenizer):
    tokenizer["model"]["unk_token"] = "[NO]"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (larger_vocabulary, "gives ids up to 160, but its encoder has 160 embeddings"),
        (special_token_without_embedding, "gives ids up to 999, but its encoder has 160 embeddings"),
        (no_unknown_token, "no token for words that it does not know"),
        (lambda tokenizer: tokenizer.pop("model"), "its tokenizer can't be used: "),
    ],
)
def test_a_tokenizer_that_does_not_fit(encoder, change, reason):
    change_tokenizer(encoder, change)
    with pytest.raises(InputError, match=reason):
        load_tokenizer(encoder)


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 20_000, b"\xff\xfe", None])
def test_a_tokenizer_that_is_none(encoder, content):
    (encoder / "tokenizer.json").unlink()
    (encoder / "vocab.txt").unlink(missing_ok=True)
    if content is not None:
        (encoder / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match="tokenizer can't be used|so it has no tokenizer"):
        load_tokenizer(encoder)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"auto_map": {"AutoTokenizer": ["tokenizer.Mine", None]}}, "which is never run"),
        ({"fast_tokenizer_files": ["tokenizer.0.0.json"]}, "names other files"),
    ],
)
@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt"])
def test_a_tokenizer_config_that_asks_for_more(encoder, tiny, fields, reason, file):
    for name in ("tokenizer.json", "vocab.txt"):
        (encoder / name).unlink(missing_ok=True)
    shutil.copy(tiny / file, encoder)
    (encoder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **fields}))
    with pytest.raises(InputError, match=reason):
        load_tokenizer(encoder)


def test_files_that_a_tokenizer_config_names_are_not_read(encoder, tiny, tmp_path):
    (encoder / "tokenizer.json").unlink()
    shutil.copy(tiny / "vocab.txt", encoder)
    (tmp_path / "other.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nsecret\n")
    named = dict.fromkeys(("vocab_file", "tokenizer_file", "name_or_path"), str(tmp_path / "other.txt"))
    (encoder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **named}))
    assert load_tokenizer(encoder).get_vocab() == load_tokenizer(tiny).get_vocab()


def test_a_model_comes_back_as_it_was(trained):
    model = load_model(MultiTaskTransformer, trained)
    weights = load_file(trained / "model.safetensors")
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    saved = json.loads((trained / "config.json").read_text())
    save_model(model, trained, trained.parent / "again")
    assert json.loads((trained.parent / "again" / "config.json").read_text()) == saved
    labels = labels_from_config(BertConfig.from_dict(read_config(trained)))
    assert (labels.classes, labels.tags) == (("a", "b"), ["O", "B-X", "I-X"])


@pytest.mark.parametrize("task", [task_1, task_2, task_4, task_5])
def test_every_task_ends_in_one_line_and_status_2(shell, trained, settings_for, tmp_path, task):
    def spoil(weights):
        weights["bert.encoder.layer.0.output.dense.weight"][0, 0] = float("nan")

    edit_weights(trained, spoil)
    (tmp_path / "config.yml").write_text("model: {backbone: trained, max_length: 16, stride: 4}\n")
    overrides = [*settings_for, "model.backbone=trained", "model.max_length=16", "model.stride=4"]
    arguments = {task_4: overrides, task_5: ["predict", "a", "--model", "trained"]}.get(task, [])
    ended = shell(task, *arguments)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith("error: trained/model.safetensors: bert.encoder.layer.0")
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "SHA256SUMS", "1_Pooling/config.json"]
)
def test_a_saved_model_is_not_used_where_a_bit_of_it_is_another(shell, settings_for, tmp_path, name):
    assert shell(task_4, *settings_for).status == 0
    assert shell(task_5, "predict", "Anna won.", "--model", "run/model").status == 0
    with open(tmp_path / "run/model/README.md", "a") as card:
        card.write("Mine.")
    assert shell(task_5, "predict", "Anna won.", "--model", "run/model").status == 0
    file = tmp_path / "run/model" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    ended = shell(task_5, "predict", "Anna won.", "--model", "run/model")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("error: run/model") and ended.err.count("\n") == 1
