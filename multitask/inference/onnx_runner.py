"""Run an exported model with onnxruntime, tokenizers and numpy; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from multitask.common.checksums import ChecksumError, verify_checksums
from multitask.common.device import usable_cpus
from multitask.common.errors import InputError, list_problems, one_line, require_packages
from multitask.common.strict_json import RepeatedKey, loads
from multitask.data.batching import pad, word_positions
from multitask.data.corpus import EncodedCorpus, window_problem
from multitask.encoders.prediction_fields import RULES, SQUARE_MATRIX, one_of, whole_number
from multitask.inference.runner import BatchOutput, Runner

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MODEL, LABELS, TOKENIZER = "model.onnx", "labels.json", "tokenizer.json"
INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("sentence_logits", "token_logits", "embeddings")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# onnxruntime's fused kernels that are slower on a CPU than separate ones: without them a BERT of 6 layers
# took 180 ms in float32 and 119 ms in int8 instead of 213 and 142 (832 tokens, one thread)
SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasGeluFusion")


@dataclass(frozen=True)
class ExportedConfig:
    """The content of labels.json: the fields of MultiTaskConfig that prediction takes over from training."""

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
    weights: str  # "float32" or "int8"
    transitions: list[list[float]] | None = None  # of a CRF: (K, K), of a tag followed by another

    @property
    def id2label(self) -> dict[int, str]:
        """Tag names by id, as in MultiTaskConfig."""
        return dict(enumerate(self.tags))

    @property
    def num_labels(self) -> int:
        """Number of tags, as in MultiTaskConfig."""
        return len(self.tags)

    def to_dict(self) -> dict[str, Any]:
        """The content of labels.json. Without a CRF there is no key `transitions`."""
        return {name: value for name, value in asdict(self).items() if name not in _OPTIONAL or value}


_RULES = {
    **{name: rule for name, rule in RULES.items() if name not in ("id2label", "token_head")},
    "hidden_size": whole_number(1),
    "vocab_size": whole_number(1),
    "weights": one_of("float32", "int8"),
    "transitions": SQUARE_MATRIX,
}
_OPTIONAL = ("transitions",)


class OnnxModel(Runner):
    """The model of an exported folder.

    Args:
        threads: on a CPU, the number of batches that run at once, each in its own thread; None: one thread
            per core of this process.
        device: "cpu"; "cuda" or "cuda:1", with onnxruntime-gpu; "auto": CUDA if onnxruntime has it.

    Raises InputError if onnxruntime is missing or lacks the device, a file is damaged, or the files do not
    match each other."""

    # small batches keep a layer's activations in the core's cache: 1.3 times as fast in int8 as 1024
    batch_tokens = 256

    def __init__(self, folder: str | Path, threads: int | None = None, device: str = "cpu"):
        self.folder = Path(folder)
        try:
            verify_checksums(self.folder)
        except ChecksumError as damage:
            raise InputError(f"{folder}: {damage}; export the model again") from None
        self.config = read_labels(self.folder / LABELS)
        if self.config.transitions:
            self.transitions = np.array(self.config.transitions)
        self.workers = threads or usable_cpus()
        self.session = _session(self.folder / MODEL, device, self.config.weights)
        if self.session.get_providers()[0] == CUDA:
            self.workers, self.batch_tokens = 1, 1 << 14  # a GPU needs large batches, one at a time
        self._check_shapes()

    def __call__(self, corpus: EncodedCorpus, windows: np.ndarray) -> BatchOutput:
        """Windows (B,) of a corpus → the outputs of the batch."""
        inputs = dict(zip(INPUTS, pad(corpus, windows)))
        sentence_logits, token_logits, embeddings = self.session.run(OUTPUTS, inputs)
        row, position, _ = word_positions(corpus, windows)
        return BatchOutput(embeddings, sentence_logits, token_logits[row, position])

    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer. Raises InputError if it can't be read, or if the model has no embedding for
        one of its ids."""
        file = self.folder / TOKENIZER
        try:
            tokenizer = Tokenizer.from_file(str(file))
            largest = max([*tokenizer.get_vocab().values(), *tokenizer.encode("").ids])
        except Exception as error:  # the library has no exception class for a bad file
            raise InputError(f"{file}: {one_line(error)}") from None
        if largest >= (size := self.config.vocab_size):
            raise InputError(f"{file}: gives ids up to {largest}, but the model has {size} embeddings")
        return tokenizer

    def _check_shapes(self) -> None:
        """Raises InputError if the graph's inputs and outputs do not match labels.json."""
        config, file = self.config, self.folder / MODEL
        columns = {value.name: value.shape[-1] for value in self.session.get_outputs()}
        inputs = {value.name for value in self.session.get_inputs()}
        if inputs != set(INPUTS) or not columns.keys() >= set(OUTPUTS):
            raise InputError(f"{file}: its inputs and outputs are not those of an export")
        sizes = [len(config.classes) if config.classes else None, config.num_labels, config.hidden_size]
        for name, size in zip(OUTPUTS, sizes):
            if size is not None and columns[name] != size:
                raise InputError(f"{file}: {name} has {columns[name]} columns; {LABELS} is for {size}")


def read_labels(file: Path) -> ExportedConfig:
    """Read labels.json. Raises InputError with all problems of its fields."""
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
    problems = [f"{file}: {name}: unknown key" for name in values if name not in _RULES]
    for name, rule in _RULES.items():
        if name not in values:
            if name not in _OPTIONAL:
                problems.append(f"{file}: {name}: is missing; it is {rule.meaning}")
        elif not rule.is_valid(values[name]):
            problems.append(f"{file}: {name}: is not {rule.meaning}")
    if problems := problems or [f"{file}: {problem}" for problem in _contradictions(values)]:
        raise InputError(list_problems(problems))
    return ExportedConfig(**values)


def _contradictions(values: dict[str, Any]) -> Iterator[str]:
    """Problems of several valid fields of labels.json together."""
    if problem := window_problem(values["max_length"], values["stride"]):
        yield f"stride: {values['stride']}, but {problem}"
    tags, rows = (len(values.get(name, values["tags"])) for name in ("tags", "transitions"))
    if rows != tags:
        yield f"transitions: has {rows} rows, but there are {tags} tags"


def _session(file: Path, device: str, weights: str) -> InferenceSession:
    require_packages(["onnxruntime"], "an exported model", "requirements-export.txt")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    kind, _, number = device.partition(":")
    if device == "auto":
        fits = CUDA in onnxruntime.get_available_providers() and weights != "int8"
        kind = "cuda" if fits else "cpu"
    if problem := _device_problem(kind, onnxruntime.get_available_providers(), weights):
        raise InputError(f"--device {device}: {problem}")
    on_gpu = [(CUDA, {"device_id": int(number or 0)})] if kind == "cuda" else []
    try:
        session = onnxruntime.InferenceSession(
            file,
            options,
            providers=[*on_gpu, CPU],
            disabled_optimizers=SLOW_FUSIONS if kind == "cpu" else (),
        )
    except Exception as error:  # each kind of damage has its own class, without a common base
        raise InputError(f"{file}: can't be loaded: {one_line(error)}") from None
    if kind == "cuda" and session.get_providers()[0] != CUDA:  # onnxruntime falls back without an error
        raise InputError(f"--device {device}: onnxruntime can't use CUDA here; its log says why")
    return session


def _device_problem(kind: str, providers: list[str], weights: str) -> str | None:
    """Why an exported model can't run on a kind of device; None if it can."""
    if kind == "cpu":
        return None
    if kind != "cuda":
        return "an exported model runs on cpu or cuda"
    if weights == "int8":
        return "an int8 model runs on the CPU"
    if CUDA not in providers:
        return "this onnxruntime runs on the CPU alone; onnxruntime-gpu in its place also runs on CUDA"
    return None
