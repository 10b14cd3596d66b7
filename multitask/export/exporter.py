"""Export a trained model as a folder that runs without torch, after comparing it with the torch model."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from multitask.common.atomic_files import atomic_folder, rename
from multitask.common.checksums import CHECKSUMS, write_with_checksums
from multitask.common.errors import InputError, require_packages
from multitask.config.loading import load_settings
from multitask.data.corpus import EncodedCorpus, encode
from multitask.data.examples import Example
from multitask.data.splits import read_split, warn_unknown_labels
from multitask.data.tokenization import WordTokenizer
from multitask.encoders.thresholds import FILE as THRESHOLDS
from multitask.evaluation.metrics import Scores, score
from multitask.export.export_readme import export_readme
from multitask.export.int8 import quantize
from multitask.export.onnx_graph import DATA, export_graph, graph_files
from multitask.inference.decoding import decode_corpus
from multitask.inference.onnx_runner import LABELS, MODEL, TOKENIZER, ExportedConfig
from multitask.inference.predictor import Predictor

logger = logging.getLogger(__name__)

README = "README.md"
_PARTS = frozenset((MODEL, LABELS, TOKENIZER, README, CHECKSUMS))
_OPTIONAL = frozenset((DATA, THRESHOLDS))
_TOLERANCE = 1e-3  # for the outputs in float32; another order of summation alone makes some 1e-5
_RANDOM_TEXTS = 64


class ExportComparison(NamedTuple):
    """Two models on the same rows."""

    differences: dict[str, float]  # output → largest absolute difference
    scores: tuple[Scores, Scores]


def check_export(folder: str | Path) -> Path:
    """The resolved path of a new folder, or of an earlier export, which an export replaces.

    Raises InputError for any other path, and if a package is missing."""
    require_packages(("onnx", "onnxscript", "onnxruntime"), "export", "requirements-export.txt")
    path = Path(folder).resolve()  # replace the folder behind a link, not the link
    if not path.parent.is_dir():
        raise InputError(f"{folder}: there is no folder {Path(folder).parent}")
    if path.exists() and not path.is_dir():
        raise InputError(f"{folder}: is a file; an export is a folder")
    names = {file.name for file in path.iterdir()} if path.exists() else set()
    if names and not (names >= _PARTS and names <= _PARTS | _OPTIONAL):
        raise InputError(f"{folder}: contains other files than an export; choose another name")
    return path


def export(
    predictor: Predictor,
    folder: str | Path,
    corpus: EncodedCorpus | None = None,
    int8: bool = False,
    progress: Callable[[int], object] | None = None,
) -> ExportComparison:
    """Export a torch model, and compare it with the original before it replaces an earlier export.

    Args:
        predictor: a Predictor of a torch model in float32.
        folder: where to write the export.
        corpus: the rows to compare both models on; None for random texts.
        int8: whether matrix multiplications with weights are quantized to int8.
        progress: called with the number of rows done since the last call.

    Raises InputError if a float32 export gives other outputs than torch, and as `check_export` does."""
    path = check_export(folder)
    corpus = corpus if corpus is not None else random_corpus(predictor)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        written = Path(scratch) / path.name
        write_with_checksums(written, export_files(predictor, int8))
        result = compare_predictors(predictor, Predictor.from_onnx(written), corpus, progress)
        if not int8 and not all(difference <= _TOLERANCE for difference in result.differences.values()):
            raise InputError(
                "nothing was written, since the exported model gives other outputs than torch: "
                + ", ".join(f"{name} differ by up to {d:.2g}" for name, d in result.differences.items())
            )
        with atomic_folder(path) as target:
            for file in sorted(written.iterdir()):
                rename(file, target / file.name)
    return result


def compare_predictors(
    predictor: Predictor,
    other: Predictor,
    corpus: EncodedCorpus,
    progress: Callable[[int], object] | None = None,
) -> ExportComparison:
    """Run two Predictors with the same labels, tokenizer and windows over a corpus.

    Calls `progress` with the number of rows done since the last call."""
    labels = predictor.labels
    differences = dict.fromkeys(("sentence_logits", "word_logits", "embeddings"), 0.0)
    predictions: tuple[list, list] = [], []
    first = decode_corpus(predictor.runner, corpus, labels, progress=progress)
    for pair in zip(first, decode_corpus(other.runner, corpus, labels)):
        for name in differences:
            one, two = (getattr(rows, name) for rows in pair)
            if one is not None:
                differences[name] = float(np.maximum(differences[name], np.abs(one - two).max(initial=0)))
        for rows, parts in zip(pair, predictions):
            parts.append((rows.classes, rows.tags))
    scores = [score(corpus, labels, *map(_joined, zip(*parts))) for parts in predictions]
    return ExportComparison(differences, (scores[0], scores[1]))


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    arrays = [part for part in parts if part is not None]
    return np.concatenate(arrays) if arrays else None


def comparison_table(comparison: ExportComparison) -> str:
    """The differences and both models' scores as a text table."""
    lines = ["largest absolute difference from torch"]
    lines += [f"  {name:<16}{difference:10.2e}" for name, difference in comparison.differences.items()]
    original, exported = (scores.headline() for scores in comparison.scores)
    if any(value is not None for value in original.values()):
        lines += ["score              torch  exported"]
    for name, value in original.items():
        if value is not None:
            lines += [f"  {name:<16}{value:6.4f}  {exported[name]:8.4f}"]
    return "\n".join(lines)


def comparison_corpus(predictor: Predictor, dev: str | None, config: Path) -> EncodedCorpus | None:
    """The rows of the file `dev`, else of data.dev in a run's config.yml.

    None, with a warning, if data.dev can't be read. Raises InputError if `dev` can't be read."""
    labels, window = predictor.labels, (predictor.config.max_length, predictor.config.stride)
    subwords = WordTokenizer(predictor.tokenizer)
    try:
        if dev:
            paths, on_bad_row = [dev], "stop"
        else:
            data = load_settings(config, []).data
            if not data.dev:
                raise InputError(f"{config}: data.dev is null")
            paths, on_bad_row = list(data.dev), data.on_bad_row
        split = read_split(paths, subwords, *window, on_bad_row)
    except InputError as reason:
        if dev:
            raise
        logger.warning(
            f"no dev set ({str(reason).splitlines()[0]}): comparing on random texts; choose one by --dev FILE"
        )
        return None
    for line in [*split.skipped, *split.notices, *warn_unknown_labels(", ".join(paths), split, labels)]:
        logger.warning(line)
    return split.corpus(labels) if len(split) else None


def random_corpus(predictor: Predictor) -> EncodedCorpus:
    """Texts of 1 to `max_length` words drawn from the vocabulary, the same on each call."""
    random, config = np.random.default_rng(0), predictor.config
    words = sorted(predictor.tokenizer.get_vocab())
    lengths = np.linspace(1, config.max_length, _RANDOM_TEXTS).astype(int)
    examples = [Example(random.choice(words, length).tolist()) for length in lengths]
    return encode(examples, predictor.tokenizer, predictor.labels, config.max_length, config.stride)


def export_files(predictor: Predictor, int8: bool) -> Iterator[tuple[str, list[bytes]]]:
    """(name, pieces of the content) of each file of an export but its checksums."""
    graph = export_graph(predictor.runner.model)
    if int8:
        quantize(graph)
    yield from graph_files(graph)
    exported = _exported_config(predictor, "int8" if int8 else "float32")
    yield LABELS, [(json.dumps(exported.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()]
    yield TOKENIZER, [predictor.tokenizer.to_str(pretty=True).encode()]
    if predictor.thresholds:
        yield THRESHOLDS, [predictor.thresholds.to_json()]
    yield README, [export_readme(exported, predictor.labels, predictor.thresholds is not None).encode()]


def _exported_config(predictor: Predictor, weights: str) -> ExportedConfig:
    config, transitions = predictor.config, predictor.runner.transitions
    values: dict[str, Any] = {
        field.name: getattr(config, field.name, None) for field in fields(ExportedConfig)
    }
    values["tags"] = [config.id2label[i] for i in range(config.num_labels)]
    values["transitions"] = None if transitions is None else transitions.tolist()
    return ExportedConfig(**values | {"weights": weights})
