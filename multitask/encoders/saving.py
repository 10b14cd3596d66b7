"""A model as a folder, which transformers and sentence-transformers read too."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers.normalizers import BertNormalizer

from multitask.common.checksums import Buffer, write_with_checksums
from multitask.encoders.pretrained import quiet_transformers, read_tokenizer, transformers_tokenizer
from multitask.encoders.sentence_transformers_files import sentence_transformers_files
from multitask.encoders.validation import read_config


def save_model(
    model, tokenizer_source: str | Path, folder: str | Path, card: str | None = None
) -> dict[str, str]:
    """Make or replace a model folder, which transformers and sentence-transformers read too: the weights, the
    tokenizer of the folder `tokenizer_source`, the model card, and the SHA-256 of each file, which are given
    back."""
    return write_with_checksums(Path(folder), _files(model, tokenizer_source, card))


def config_file(model) -> bytes:
    """A model's config.json as `save_pretrained` writes it, which adds what it knows of the model."""
    with TemporaryDirectory() as folder, quiet_transformers():
        model.save_pretrained(folder, state_dict={})
        return (Path(folder) / "config.json").read_bytes()


def _files(model, tokenizer_source: str | Path, card: str | None) -> Iterator[tuple[str, Iterable[Buffer]]]:
    from multitask.encoders.safetensors_writer import serialize

    yield "model.safetensors", serialize(model.state_dict(), {"format": "pt"})
    files = {"config.json": config_file(model), **tokenizer_files(tokenizer_source)}
    files |= sentence_transformers_files(model.config)
    if card is not None:
        files["README.md"] = card.encode()
    for name, content in files.items():
        yield name, [content]


def tokenizer_files(source: str | Path) -> dict[str, bytes]:
    """A folder's tokenizer as the files of a model folder. What transformers makes from them splits alike,
    and cuts no text before the encoder's positions end."""
    source = Path(source)
    tokenizer, _ = read_tokenizer(source)
    case = {}
    if isinstance(normalizer := tokenizer.normalizer, BertNormalizer):
        case["do_lower_case"] = normalizer.lowercase
        case["strip_accents"] = normalizer.strip_accents
        case["tokenize_chinese_chars"] = normalizer.handle_chinese_chars
    theirs = transformers_tokenizer(source, **case)
    theirs._tokenizer.no_truncation()
    theirs._tokenizer.no_padding()
    # transformers makes a BertTokenizer from its vocabulary and these fields, whatever tokenizer.json says
    same = theirs._tokenizer.to_str() == tokenizer.to_str()
    config = {
        "tokenizer_class": "BertTokenizer" if same else "PreTrainedTokenizerFast",
        **case,
        "model_max_length": min(theirs.model_max_length, read_config(source)["max_position_embeddings"]),
        **theirs.special_tokens_map,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode(),
    }
