"""A model on the Hugging Face hub: look into the local cache, ask the hub, download.

A revision is a commit, branch or tag; None is the newest commit."""

import threading
from contextlib import suppress
from pathlib import Path

from multitask.common.errors import InputError

NEEDED = ("config.json", "model.safetensors")
TOKENIZERS = ("tokenizer.json", "vocab.txt")
OPTIONAL = ("tokenizer_config.json", "1_Pooling/config.json")
PROBE_SECONDS = 5


def cached_folder(name: str, revision: str | None = None) -> Path | None:
    """The folder of a model in the local cache of the hub; None if a file that is needed is not cached."""
    from huggingface_hub import try_to_load_from_cache

    paths = {file: try_to_load_from_cache(name, file, revision=revision) for file in (*NEEDED, *TOKENIZERS)}
    cached = {file: Path(path) for file, path in paths.items() if isinstance(path, str)}
    complete = cached.keys() >= set(NEEDED) and cached.keys() & set(TOKENIZERS)
    return cached["config.json"].parent if complete else None


def why_unreachable(name: str, revision: str | None = None) -> str | None:
    """Ask the hub once for a model → None if it answers in time, else the reason why not.

    Raises InputError if the hub has no such model or revision."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError

    outcome: list[Exception | None] = []

    def probe() -> None:
        try:
            url = hf_hub_url(name, "config.json", revision=revision)
            get_hf_file_metadata(url, timeout=PROBE_SECONDS)
            outcome.append(None)
        except Exception as error:  # a network or a proxy can fail in any way
            outcome.append(error)

    # the library's timeout does not cover the DNS lookup, and a hanging thread must not delay the exit
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    error = outcome[0] if outcome else TimeoutError()
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
        if isinstance(error, RevisionNotFoundError):
            raise InputError(f"model.revision: the hub has no {revision!r} of {name}") from None
        raise InputError(f"model.backbone: the hub has no model {name!r}, or it needs a login") from None
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    return None if error is None else f"the hub can't be reached ({type(error).__name__})"


def download(name: str, revision: str | None = None) -> Path:
    """Download a model into the local cache → its folder. Raises InputError if that fails, and for a model
    without safetensors weights or without a tokenizer."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    files: dict[str, Path] = {}
    try:
        for file in (*NEEDED, *TOKENIZERS, *OPTIONAL):
            with suppress(EntryNotFoundError):
                files[file] = Path(hf_hub_download(name, file, revision=revision))
    except Exception as error:
        raise InputError(
            f"downloading {name} failed ({type(error).__name__}: {error}); start again to resume it"
        ) from None
    missing = [file for file in NEEDED if file not in files]
    if not files.keys() & set(TOKENIZERS):
        missing.append(" or ".join(TOKENIZERS))
    if missing:
        raise InputError(f"model.backbone: {name} has no {missing[0]}, and no other format is loaded")
    return files["config.json"].parent
