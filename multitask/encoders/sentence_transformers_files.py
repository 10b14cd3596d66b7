"""The files from which sentence-transformers loads a model folder as a sentence encoder."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model import MultiTaskConfig


def sentence_transformers_files(config: "MultiTaskConfig") -> Iterator[tuple[str, bytes]]:
    """A model's configuration → file names and contents. They set this project's pooling, and the window's
    `max_length`, where sentence-transformers cuts a text off."""
    # every version of sentence-transformers knows these class names
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    yield "modules.json", _json(modules)
    yield "sentence_bert_config.json", _json({"max_seq_length": config.max_length, "do_lower_case": False})
    pooling = {
        "word_embedding_dimension": config.hidden_size,
        "pooling_mode_cls_token": config.pooling == "cls",
        "pooling_mode_mean_tokens": config.pooling == "mean",
    }
    yield "1_Pooling/config.json", _json(pooling)
    prompts = {"query": "", "document": ""}
    fields = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    yield "config_sentence_transformers.json", _json({"model_type": "SentenceTransformer", **fields})


def _json(values: object) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
