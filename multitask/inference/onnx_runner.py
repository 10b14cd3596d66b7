"""An exported model as a Runner: onnxruntime, tokenizers and numpy, no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from multitask.common.checksums import ChecksumError, verify_checksums
from multitask.common.errors import InputError, list_problems
from multitask.common.strict_json import RepeatedKey, loads
from multitask.data.batching import pad, word_positions
from multitask.data.corpus import EncodedCorpus, window_problem
from multitask.data.labels import LEARNED_SCHEMES
from multitask.inference.runner import BatchOutput, Runner

MODEL, LABELS, TOKENIZER = "model.onnx", "labels.json", "tokenizer.json"
INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("sentence_logits", "token_logits", "embeddings")
# onnxruntime's fused kernels of these are slower on a CPU than their parts: without them a BERT of 6 layers
# took 180 ms in float32 and 119 in int8 instead of 213 and 142 (832 tokens, one thread)
SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasGeluFusion")


@dataclass(frozen=True)
class ExportedConfig:
    """What prediction must repeat of training, as MultiTaskConfig has it; labels.json holds it."""

    classes: list[str] | None
    tags: list[str]
    tag_scheme: str | None
    pooling: str
    max_length: int
    stride: int
    temperature_task_a: float
    temperature_task_b: float
    hidden_size: int
    vocab_size: int
    weights: str

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.tags))

    @property
    def num_labels(self) -> int:
        return len(self.tags)

    to_dict = asdict


class OnnxModel(Runner):
    """The model of an exported folder, on the CPU. `threads` batches run at once, each in a thread of its
    own; None takes as many as there are cores for this process.

    Raises InputError where onnxruntime is missing, where the folder is not as it was written, and where its
    parts don't fit each other."""

    # a layer's activations then stay in the core's cache: 1.3 times as fast in int8 as 1024
    batch_tokens = 256

    def __init__(self, folder: str | Path, threads: int | None = None):
        self.folder = Path(folder)
        try:
            verify_checksums(self.folder)
        except ChecksumError as damage:
            raise InputError(f"{folder}: {damage}; export the model again") from None
        self.config = read_labels(self.folder / LABELS)
        self.workers = threads or _cores()
        self.session = _session(self.folder / MODEL)
        self._check_shapes()

    def __call__(self, corpus: EncodedCorpus, windows: np.ndarray) -> BatchOutput:
        inputs = dict(zip(INPUTS, pad(corpus, windows)))
        sentence_logits, token_logits, embeddings = self.session.run(OUTPUTS, inputs)
        row, position, _ = word_positions(corpus, windows)
        return BatchOutput(embeddings, sentence_logits, token_logits[row, position])

    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer. Raises InputError where the model has no vector for one of its ids."""
        file = self.folder / TOKENIZER
        try:
            tokenizer = Tokenizer.from_file(str(file))
            largest = max([*tokenizer.get_vocab().values(), *tokenizer.encode("").ids])
        except Exception as error:  # the library has no class of its own for what a file lacks
            raise InputError(f"{file}: {_line(error)}") from None
        if largest >= (size := self.config.vocab_size):
            raise InputError(f"{file}: gives ids up to {largest}, but the model has {size} embeddings")
        return tokenizer

    def _check_shapes(self) -> None:
        """Raises InputError where the graph's inputs and outputs are not those that the labels are for."""
        config, file = self.config, self.folder / MODEL
        found = {value.name: value.shape[-1] for value in self.session.get_outputs()}
        inputs = {value.name for value in self.session.get_inputs()}
        if inputs != set(INPUTS) or not found.keys() >= set(OUTPUTS):
            raise InputError(f"{file}: its inputs and outputs are not those of an export")
        sizes = [len(config.classes) if config.classes else None, config.num_labels, config.hidden_size]
        for name, size in zip(OUTPUTS, sizes):
            if size is not None and found[name] != size:
                raise InputError(f"{file}: {name} has {found[name]} columns; {LABELS} is for {size}")


def read_labels(file: Path) -> ExportedConfig:
    """labels.json. Raises InputError with all that is wrong in it."""
    try:
        values = loads(file.read_bytes())
    except RepeatedKey as error:
        raise InputError(f"{file}: {error}") from None
    except OSError as error:
        raise InputError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InputError(f"{file}: not a JSON object")
    problems = [f"{file}: {name}: unknown key" for name in values if name not in _VALID]
    for name, (is_valid, meaning) in _VALID.items():
        if name not in values:
            problems.append(f"{file}: {name}: is missing; it is {meaning}")
        elif not is_valid(values[name]):
            problems.append(f"{file}: {name}: is not {meaning}")
    if not problems and (problem := window_problem(values["max_length"], values["stride"])):
        problems.append(f"{file}: stride: {values['stride']}, but {problem}")
    if problems:
        raise InputError(list_problems(problems))
    return ExportedConfig(**values)


def _names(value: Any) -> bool:
    texts = isinstance(value, list) and len(value) > 0 and all(isinstance(n, str) and n for n in value)
    return texts and len(set(value)) == len(value)


def _at_least(least: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: type(value) is int and least <= value < 1 << 24, f"a whole number from {least}"


def _one_of(*names: str | None) -> tuple[Callable[[Any], bool], str]:
    # None is not hashed, nor is a list that stands in its place
    shown = ", ".join("null" if name is None else name for name in names)
    return lambda value: any(value is name or value == name for name in names), f"one of {shown}"


def _temperature(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


_VALID = {
    "classes": (lambda value: value is None or _names(value), "a list of different names, or null"),
    "tags": (_names, "a list of different names"),
    "tag_scheme": _one_of(*LEARNED_SCHEMES, None),
    "pooling": _one_of("cls", "mean"),
    "max_length": _at_least(4),
    "stride": _at_least(0),
    "temperature_task_a": (_temperature, "a finite number above 0"),
    "temperature_task_b": (_temperature, "a finite number above 0"),
    "hidden_size": _at_least(1),
    "vocab_size": _at_least(1),
    "weights": _one_of("float32", "int8"),
}
assert list(_VALID) == [field.name for field in fields(ExportedConfig)]


def _session(file: Path):
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            "an exported model runs in onnxruntime, which is missing: pip install -r requirements-export.txt"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )
    except Exception as error:  # a class for each kind of damage, with nothing in common
        raise InputError(f"{file}: can't be loaded: {_line(error)}") from None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
