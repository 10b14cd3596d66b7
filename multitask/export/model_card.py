"""The README.md of a model folder: what the model can say, from which data, how well, and how to load it."""

import re
from pathlib import Path

import yaml
from transformers import BertConfig

from multitask.config.help_text import render_config
from multitask.config.schema import Settings
from multitask.data.labels import LabelSpace
from multitask.data.splits import Split
from multitask.encoders.pretrained import BUNDLED, Backbone
from multitask.encoders.validation import read_config
from multitask.evaluation.metrics import Score, Scores

_COLUMNS = {
    "accuracy": "accuracy (A)",
    "macro_f1": "macro-F1 (A)",
    "entity_f1": "entity F1 (B)",
    "exact_match": "whole sentences right",
}
_LOADING = """
`MODEL` stands for this folder; all but the first of these know its name on the hub as well. Class,
probabilities and entities with their places in the text, however long it is, by the project that trained it:

```sh
python task_5.py predict "Anna won in Paris." --model MODEL
```

The logits of both heads, by its class for transformers:

```python
from transformers import AutoTokenizer

from model import MultiTaskTransformer

tokenizer = AutoTokenizer.from_pretrained("MODEL")
model = MultiTaskTransformer.from_pretrained("MODEL").eval()
batch = tokenizer(["Anna won in Paris."], return_tensors="pt")
sentence_logits, token_logits = model(batch["input_ids"], batch["attention_mask"])
```

The entity head alone, by transformers. A word's tag is the one of its first token:

```python
from transformers import AutoModelForTokenClassification, pipeline

tagger = AutoModelForTokenClassification.from_pretrained("MODEL")
print(pipeline("ner", model="MODEL", aggregation_strategy="first")("Anna won in Paris."))
```

The encoder alone (the report that it lacks a pooler can be ignored: it is not used):

```python
from transformers import AutoModel

hidden = AutoModel.from_pretrained("MODEL")(**batch).last_hidden_state
```

Sentence embeddings, which end where a window does:

```python
from sentence_transformers import SentenceTransformer

embeddings = SentenceTransformer("MODEL").encode(["Anna won in Paris."])
```

To put all of this folder on the hub: `hf upload NAME MODEL .`; weights and configuration alone:
`model.push_to_hub("NAME")`.
"""


def model_card(
    settings: Settings,
    backbone: Backbone,
    labels: LabelSpace,
    splits: dict[str, Split],
    dev: dict[str, float | None] | None,
    test: Scores | None = None,
    temperatures: tuple[float, float] | None = None,
) -> str:
    """A run's resolved settings, encoder, labels, data and scores → Markdown for the hub.

    None stands for what there is not, or not yet."""
    scores = {"dev": dev, "test": test and test.headline()}
    sections = [
        f"---\n{yaml.safe_dump(_front_matter(backbone), sort_keys=False)}---",
        "# A sentence's class and its entities",
        _summary(backbone, labels),
        "## Scores",
        _table(
            ["split", *_COLUMNS.values()],
            [[name, *map(_share, map(row.get, _COLUMNS))] for name, row in scores.items() if row],
        )
        if any(scores.values())
        else "None: the run had neither dev nor test.",
        *_per_label(test),
        _probabilities(temperatures),
        "## Labels",
        *_labels(labels, splits),
        "## Data",
        _files(settings, splits),
        "## Loading",
        _LOADING.strip(),
        "## Settings",
        _fenced(_without_comments(render_config(settings))),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(backbone: Backbone) -> dict:
    """What the hub reads. The licence depends on the data and on the encoder, so it is not known here."""
    known = {"library_name": "transformers", "pipeline_tag": "token-classification"}
    if name := _hub_name(backbone):
        known["base_model"] = name
    tags = ["bert", "text-classification", "token-classification", "sentence-transformers"]
    return {**known, "tags": tags}


def _hub_name(backbone: Backbone) -> str | None:
    if backbone.name == BUNDLED:
        return f"sentence-transformers/{BUNDLED}"
    return None if Path(backbone.name) == backbone.folder else backbone.name


def _summary(backbone: Backbone, labels: LabelSpace) -> str:
    classes, types = labels.classes, labels.types
    config = BertConfig.from_dict(read_config(backbone.folder))
    says = [f"one of {len(classes)} classes for a sentence (task A)"] * bool(classes)
    says += [f"entities of {len(types)} types in it (task B)"] * bool(types)
    return (
        f"A BERT of {config.num_hidden_layers} layers × {config.hidden_size} with two heads, trained from "
        f"{escaped(_hub_name(backbone) or backbone.folder.resolve().name)}. It gives {' and '.join(says)}, "
        "and the sentence's embedding."
    )


def _probabilities(temperatures: tuple[float, float] | None) -> str:
    if temperatures is None:
        return "Probabilities are the softmax of the logits: no temperatures were fitted."
    return (
        f"Before the softmax that gives probabilities, logits are divided by {temperatures[0]:.4g} (A) and "
        f"{temperatures[1]:.4g} (B), with which they fit the labels of dev best (Guo et al. 2017). task_5.py "
        "does that; for others the two numbers are in config.json."
    )


def _per_label(test: Scores | None) -> list[str]:
    """A table a task of the scores on test."""
    tables = []
    for title, found in (
        ("class", test and test.task_a and test.task_a.per_class),
        ("type", test and test.task_b and test.task_b.per_type),
    ):
        if found:
            head = [f"{title} (test)", "precision", "recall", "F1", "gold"]
            tables.append(_table(head, [_rates(name, score) for name, score in found.items()]))
    return tables


def _rates(name: str, score: Score) -> list[str]:
    return [escaped(name), *map(_share, (score.precision, score.recall, score.f1)), f"{score.gold:,}"]


def _labels(labels: LabelSpace, splits: dict[str, Split]) -> list[str]:
    """A table a task: how often each name occurs in each split."""
    counts = {"class": Split.classes.fget, "type": Split.types.fget}
    tables = []
    for what, names in (("class", labels.classes), ("type", labels.types)):
        found = {name: counts[what](split) for name, split in splits.items()}
        rows = [[escaped(name), *(f"{found[split][name]:,}" for split in splits)] for name in names]
        if rows:
            tables.append(_table([what, *splits], rows))
    scheme = [f"Tags are {labels.scheme}."] if labels.types else []
    return [*tables, *scheme]


def _files(settings: Settings, splits: dict[str, Split]) -> str:
    """The data files by their names, without where they lay."""
    rows = []
    for name, split in splits.items():
        file_rows = split.arrays["file_rows"]
        for path, first, last in zip(getattr(settings.data, name), file_rows, file_rows[1:]):
            rows.append([name, escaped(Path(path).name), f"{int(last - first):,}"])
    return _table(["split", "file", "rows"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def escaped(name: str) -> str:
    """A name as Markdown text: what could mean something to it, or ends a cell, as a character reference."""
    return re.sub(r"[^\w ,.:/'()-]|(?<![^\W_])_|_(?![^\W_])", lambda match: f"&#{ord(match[0])};", name)


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line and not line.lstrip().startswith("#"))


def _fenced(text: str) -> str:
    """A block of YAML, whatever is in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}yaml\n{text}\n{fence}"
