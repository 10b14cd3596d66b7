"""Tokenizer files that do not fit the encoder, or ask for more, are refused."""

import json
import shutil
from pathlib import Path

import pytest

from multitask.common.errors import InputError
from multitask.encoders.pretrained import load_tokenizer


@pytest.fixture
def encoder(tmp_path, tiny) -> Path:
    """A copy of the tiny encoder, whose files may be changed."""
    return shutil.copytree(tiny, tmp_path / "model")


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
        (no_unknown_token, "no token for unknown words"),
        (lambda tokenizer: tokenizer.pop("model"), "its tokenizer can't be used: "),
    ],
)
def test_a_tokenizer_that_does_not_fit_the_encoder_is_refused(encoder, change, reason):
    change_tokenizer(encoder, change)
    with pytest.raises(InputError, match=reason):
        load_tokenizer(encoder)


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 20_000, b"\xff\xfe", None])
def test_a_missing_or_damaged_tokenizer_is_refused(encoder, content):
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
def test_a_tokenizer_config_that_names_code_or_files_is_refused(encoder, tiny, fields, reason, file):
    for name in ("tokenizer.json", "vocab.txt"):
        (encoder / name).unlink(missing_ok=True)
    shutil.copy(tiny / file, encoder)
    (encoder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **fields}))
    with pytest.raises(InputError, match=reason):
        load_tokenizer(encoder)


def test_files_named_in_a_tokenizer_config_are_not_read(encoder, tiny, tmp_path):
    (encoder / "tokenizer.json").unlink()
    shutil.copy(tiny / "vocab.txt", encoder)
    (tmp_path / "other.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nsecret\n")
    named = dict.fromkeys(("vocab_file", "tokenizer_file", "name_or_path"), str(tmp_path / "other.txt"))
    (encoder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **named}))
    assert load_tokenizer(encoder).get_vocab() == load_tokenizer(tiny).get_vocab()
