"""The files by which sentence-transformers reads a model folder as an encoder of sentences."""

import json
from collections.abc import Iterator


def sentence_transformers_files(config) -> Iterator[tuple[str, bytes]]:
    """A model's configuration → names and contents. They ask for what this project does with the weights: its
    pooling, and no more tokens than a window has. What is longer sentence-transformers cuts off."""
    # the names by which every version since the first knows them
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
    whole = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    yield "config_sentence_transformers.json", _json({"model_type": "SentenceTransformer", **whole})


def _json(values: object) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
