"""Save a model as a folder that transformers and sentence-transformers can load too."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tokenizers.normalizers import BertNormalizer

from multitask.common.checksums import Buffer, write_with_checksums
from multitask.encoders.pretrained import (
    config_of,
    load_tokenizer,
    quiet_transformers,
    transformers_tokenizer,
)

if TYPE_CHECKING:
    from model import SentenceTransformer
    from model_config import MultiTaskFields


def save_model(
    model: "SentenceTransformer", tokenizer_source: str | Path, folder: str | Path, card: str | None = None
) -> dict[str, str]:
    """Create or replace a model folder: the model, the tokenizer of the folder `tokenizer_source`, and `card`
    as README.md. Returns the SHA-256 of each file, which are also written to the folder."""
    return write_with_checksums(Path(folder), _files(model, tokenizer_source, card))


def loaders(token_head: str) -> str:
    """What opens a model folder with this kind of token head, as one line for people."""
    everywhere = "MultiTaskTransformer, AutoModel and sentence-transformers"
    if token_head == "linear":
        return f"{everywhere} open it, and AutoModelForTokenClassification"
    return f"{everywhere} open it; with model.token_head=linear AutoModelForTokenClassification would too"


def config_file(model: "SentenceTransformer") -> bytes:
    """A model's config.json as `save_pretrained` writes it, with the class and the dtype of the model."""
    with TemporaryDirectory() as folder, quiet_transformers():
        model.save_pretrained(folder, state_dict={})
        return (Path(folder) / "config.json").read_bytes()


def _files(
    model: "SentenceTransformer", tokenizer_source: str | Path, card: str | None
) -> Iterator[tuple[str, Iterable[Buffer]]]:
    from multitask.encoders.safetensors_writer import serialize

    yield "model.safetensors", serialize(model.state_dict(), {"format": "pt"})
    files = {"config.json": config_file(model), **tokenizer_files(tokenizer_source)}
    files |= sentence_transformers_files(model.config)
    if card is not None:
        files["README.md"] = card.encode()
    for name, content in files.items():
        yield name, [content]


def tokenizer_files(source: str | Path) -> dict[str, bytes]:
    """A folder's tokenizer → names and contents of the files for a model folder.

    transformers loads a tokenizer from them that gives the same tokens, and that truncates no text before the
    encoder's last position."""
    source = Path(source)
    tokenizer = load_tokenizer(source, warn=False)
    case: dict[str, bool | None] = {}
    if isinstance(normalizer := tokenizer.normalizer, BertNormalizer):
        case["do_lower_case"] = normalizer.lowercase
        case["strip_accents"] = normalizer.strip_accents
        case["tokenize_chinese_chars"] = normalizer.handle_chinese_chars
    loaded = transformers_tokenizer(source, **case)
    backend = loaded.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    # transformers builds a BertTokenizer from its vocabulary and these fields, whatever tokenizer.json says
    same = bool(case) and backend.to_str() == tokenizer.to_str()
    settings = config_of(source)
    # not every family knows token types; all take a text for the first of two where there are none
    inputs = {} if settings.model_type == "bert" else {"model_input_names": ["input_ids", "attention_mask"]}
    config = {
        "tokenizer_class": "BertTokenizer" if same else "PreTrainedTokenizerFast",
        **case,
        "model_max_length": min(loaded.model_max_length, settings.num_positions),
        **loaded.special_tokens_map,
        **inputs,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": _json(config),
    }


def sentence_transformers_files(config: "MultiTaskFields") -> dict[str, bytes]:
    """The files from which sentence-transformers loads a model folder as a sentence encoder.

    They set this project's pooling, and the window's `max_length`, where sentence-transformers cuts a text
    off."""
    # every version of sentence-transformers knows these class names
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    pooling = {
        "word_embedding_dimension": config.hidden_size,
        "pooling_mode_cls_token": config.pooling == "cls",
        "pooling_mode_mean_tokens": config.pooling == "mean",
    }
    prompts = {"query": "", "document": ""}
    fields = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    return {
        "modules.json": _json(modules),
        "sentence_bert_config.json": _json({"max_seq_length": config.max_length, "do_lower_case": False}),
        "1_Pooling/config.json": _json(pooling),
        "config_sentence_transformers.json": _json({"model_type": "SentenceTransformer", **fields}),
    }


def _json(values: object) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
