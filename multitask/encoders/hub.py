"""A model on the hub: in its cache, asked for, downloaded."""

import threading
from pathlib import Path

from multitask.common.errors import InputError

NEEDED = ("config.json", "model.safetensors")
TOKENIZERS = ("tokenizer.json", "vocab.txt")
_PROBE_SECONDS = 5


def cached_folder(name: str) -> Path | None:
    """The folder of a model in the hub's cache; None where one of its files is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = {file: try_to_load_from_cache(name, file) for file in (*NEEDED, *TOKENIZERS)}
    have = {file for file, path in found.items() if isinstance(path, str)}
    complete = have.issuperset(NEEDED) and have.intersection(TOKENIZERS)
    return Path(found["config.json"]).parent if complete else None


def why_unreachable(name: str) -> str | None:
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


def download(name: str) -> Path:
    """Fetch a model into the hub's cache → its folder there. Raises InputError."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def fetch(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(name, file))
        except EntryNotFoundError:
            return None

    try:
        config, weights = map(fetch, NEEDED)
        tokenizers = [fetch(file) for file in (*TOKENIZERS, "tokenizer_config.json")]
    except Exception as error:
        raise InputError(
            f"downloading {name} failed ({type(error).__name__}: {error}); start again to go on"
        ) from None
    if weights is None or not any(tokenizers[:2]):
        missing = "model.safetensors" if weights is None else " or ".join(TOKENIZERS)
        raise InputError(f"model.backbone: {name} has no {missing}, and no other format is loaded")
    return config.parent
