"""A trained model as a folder that runs without torch, compared with torch before it is there."""

import json
import logging
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from multitask.common.atomic_files import atomic_folder, rename
from multitask.common.checksums import CHECKSUMS, write_with_checksums
from multitask.common.errors import InputError
from multitask.config.loading import load_settings
from multitask.data.corpus import EncodedCorpus, encode
from multitask.data.labels import LabelSpace
from multitask.data.rows import Example
from multitask.data.splits import read_split, warn_unknown_labels
from multitask.data.tokenization import WordTokenizer
from multitask.evaluation.metrics import Scores, score
from multitask.export.int8 import quantize
from multitask.export.onnx_graph import DATA, export_graph, graph_files
from multitask.inference.decoding import decode_corpus
from multitask.inference.onnx_runner import LABELS, MODEL, TOKENIZER, ExportedConfig
from multitask.inference.predictor import Predictor

logger = logging.getLogger(__name__)

README = "README.md"
_PARTS = frozenset((MODEL, LABELS, TOKENIZER, README, CHECKSUMS))
_LARGEST = 1e-3  # difference of a float32 export; the order of its sums is another, which gives some 1e-5
_DRAWN = 64  # texts that are made up where there is no dev set


class ExportComparison(NamedTuple):
    """Two models on the same rows: the largest absolute difference of each output, and both ones' scores."""

    differences: dict[str, float]
    scores: tuple[Scores, Scores]


def check_export(folder: str | Path) -> Path:
    """The folder that an export may be written to, or replace. Raises InputError where it may not, and where
    a package is missing."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"export needs {', '.join(missing)}, not installed: pip install -r requirements-export.txt"
        )
    path = Path(folder).resolve()  # a link's folder is replaced, not the link
    if not path.parent.is_dir():
        raise InputError(f"{folder}: there is no folder {Path(folder).parent}")
    if path.exists() and not path.is_dir():
        raise InputError(f"{folder}: is a file; an export is a folder")
    held = {file.name for file in path.iterdir()} if path.exists() else set()
    if held and not (held >= _PARTS and held <= _PARTS | {DATA}):
        raise InputError(f"{folder}: holds other things than an earlier export; give a new name")
    return path


def export(
    predictor: Predictor,
    folder: str | Path,
    corpus: EncodedCorpus | None = None,
    int8: bool = False,
    progress: Callable[[int], object] | None = None,
) -> ExportComparison:
    """Write the exported folder of a Predictor of a torch model in float32, and compare both on a corpus, or
    on texts that are made up. With `int8`, products with weights are of int8.

    All or nothing: an earlier export is replaced only by one that has been compared. Raises InputError for a
    float32 export that gives other outputs than torch, and as `check_export` does."""
    path = check_export(folder)
    corpus = corpus if corpus is not None else random_corpus(predictor)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        written = Path(scratch) / path.name
        write_with_checksums(written, _files(predictor, int8))
        found = compare_predictors(predictor, Predictor.from_onnx(written), corpus, progress)
        if not int8 and not all(difference <= _LARGEST for difference in found.differences.values()):
            raise InputError(
                "the exported model gives other outputs than torch, so nothing was written: "
                + ", ".join(f"{name} differ by up to {d:.2g}" for name, d in found.differences.items())
            )
        with atomic_folder(path) as target:
            for file in sorted(written.iterdir()):
                rename(file, target / file.name)
    return found


def compare_predictors(
    predictor: Predictor,
    other: Predictor,
    corpus: EncodedCorpus,
    progress: Callable[[int], object] | None = None,
) -> ExportComparison:
    """Two Predictors of the same labels, tokenizer and windows on a corpus."""
    names, labels = ("sentence_logits", "word_logits", "embeddings"), predictor.labels
    differences = dict.fromkeys(names, 0.0)
    classes, tags = ([], []), ([], [])
    runs = (
        decode_corpus(predictor.runner, corpus, labels, progress=progress),
        decode_corpus(other.runner, corpus, labels),
    )
    for both in zip(*runs):
        for name in names:
            one, two = (getattr(rows, name) for rows in both)
            if one is not None:
                differences[name] = float(np.maximum(differences[name], np.abs(one - two).max(initial=0)))
        for rows, its_classes, its_tags in zip(both, classes, tags):
            its_classes.append(rows.classes)
            its_tags.append(rows.tags)
    first, second = (
        score(
            corpus,
            labels,
            np.concatenate(its_classes) if labels.classes else None,
            np.concatenate(its_tags) if labels.types else None,
        )
        for its_classes, its_tags in zip(classes, tags)
    )
    return ExportComparison(differences, (first, second))


def comparison_table(found: ExportComparison) -> str:
    """A Comparison for a person to read."""
    lines = ["largest absolute difference from torch"]
    lines += [f"  {name:<16}{difference:10.2e}" for name, difference in found.differences.items()]
    both = [scores.headline() for scores in found.scores]
    if any(value is not None for value in both[0].values()):
        lines += ["score              torch  exported"]
    for name, value in both[0].items():
        if value is not None:
            lines += [f"  {name:<16}{value:6.4f}  {both[1][name]:8.4f}"]
    return "\n".join(lines)


def comparison_corpus(predictor: Predictor, dev: str | None, config: Path) -> EncodedCorpus | None:
    """The rows of the file `dev`, else of data.dev in a run's config.yml; None where that can't be read, and
    says so. Raises InputError for a `dev` that can't be used."""
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
            f"no dev set ({str(reason).splitlines()[0]}): compared on made-up texts; --dev FILE names one"
        )
        return None
    for line in [*split.skipped, *split.notices, *warn_unknown_labels(", ".join(paths), split, labels)]:
        logger.warning(line)
    return split.corpus(labels) if len(split) else None


def random_corpus(predictor: Predictor) -> EncodedCorpus:
    """Texts of 1 to max_length words, drawn from the vocabulary, the same ones each time."""
    random, config = np.random.default_rng(0), predictor.config
    words = sorted(predictor.tokenizer.get_vocab())
    lengths = np.linspace(1, config.max_length, _DRAWN).astype(int)
    examples = [Example(random.choice(words, length).tolist()) for length in lengths]
    return encode(examples, predictor.tokenizer, predictor.labels, config.max_length, config.stride)


def _files(predictor: Predictor, int8: bool) -> Iterator[tuple[str, list[bytes]]]:
    model, config = predictor.runner.model, predictor.config
    graph = export_graph(model)
    if int8:
        quantize(graph)
    yield from graph_files(graph)
    exported = ExportedConfig(
        classes=config.classes and list(config.classes),
        tags=[config.id2label[i] for i in range(config.num_labels)],
        tag_scheme=config.tag_scheme,
        pooling=config.pooling,
        max_length=config.max_length,
        stride=config.stride,
        temperature_task_a=config.temperature_task_a,
        temperature_task_b=config.temperature_task_b,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        weights="int8" if int8 else "float32",
    )
    yield LABELS, [(json.dumps(exported.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()]
    yield TOKENIZER, [predictor.tokenizer.to_str(pretty=True).encode()]
    yield README, [_readme(exported, predictor.labels).encode()]


def _readme(config: ExportedConfig, labels: LabelSpace) -> str:
    says = []
    if labels.classes:
        says.append('print(labels["classes"][sentence_logits[0].argmax()])')
    if labels.types:
        says.append('tags = [labels["tags"][i] for i in token_logits[0].argmax(-1)]')
        says.append("print(list(zip(encoded.tokens, tags)))  # a word's tag is that of its first subword")
    return _README.format(weights=config.weights, says="\n".join(says), max_length=config.max_length)


_README = """\
# An exported model

A BERT encoder with a head for the class of a sentence and one for entity tags, in {weights}. It needs numpy,
tokenizers and onnxruntime. `sha256sum -c SHA256SUMS` checks the files, labels.json holds the names and what
prediction repeats of training.

With the project that made it, whose folder is on PYTHONPATH (words, windows and entities as in training):

```python
from multitask.inference.predictor import Predictor

for prediction in Predictor.from_onnx(".").predict(["Marit Solheim won in Oslo."]):
    print(prediction.label, prediction.entities)
```

Without it, for texts of at most {max_length} tokens:

```python
import json
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

labels = json.load(open("labels.json", encoding="utf-8"))
tokenizer = Tokenizer.from_file("tokenizer.json")
session = onnxruntime.InferenceSession("model.onnx")
encoded = tokenizer.encode("Marit Solheim won in Oslo.")
input_ids = np.array([encoded.ids], np.int64)
inputs = {{"input_ids": input_ids, "attention_mask": np.ones_like(input_ids)}}
sentence_logits, token_logits, embeddings = session.run(None, inputs)
{says}
```
"""
