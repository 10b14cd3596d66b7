"""The model card, README.md of a model folder: the model's labels, data and scores, and how to load it."""

import re
from pathlib import Path

from huggingface_hub import ModelCard

from multitask.config.help_text import render_config
from multitask.config.schema import Settings
from multitask.data.labels import LabelSpace
from multitask.data.splits import Split
from multitask.encoders.pretrained import Backbone, config_of
from multitask.encoders.thresholds import FILE, Thresholds
from multitask.evaluation.metrics import Scores
from multitask.evaluation.selective import LEVELS
from multitask.export.hub_metadata import Headline, encoder_name, hub_metadata
from token_heads import CRF_HEADS

_COLUMNS = {
    "accuracy": "accuracy (A)",
    "macro_f1": "macro-F1 (A)",
    "entity_f1": "entity F1 (B)",
    "exact_match": "exact match",
}
_LOADING = """
`MODEL` stands for this folder. All commands but the first also take the model's name on the hub.

With the project that trained the model: class, probabilities and entities of texts of any length.

```sh
python task_5.py predict "Anna won in Paris." --model MODEL
```

The logits of both heads, with the project's model class:

```python
from transformers import AutoTokenizer

from model import MultiTaskTransformer

tokenizer = AutoTokenizer.from_pretrained("MODEL")
model = MultiTaskTransformer.from_pretrained("MODEL").eval()
batch = tokenizer(["Anna won in Paris."], return_tensors="pt")
sentence_logits, token_logits = model(batch["input_ids"], batch["attention_mask"])
```

@TAGGER@

The encoder alone. Ignore the report on missing pooler weights: the pooler is not used.

```python
from transformers import AutoModel

hidden = AutoModel.from_pretrained("MODEL")(**batch).last_hidden_state
```

Sentence embeddings, of texts that fit one window (longer ones are truncated):

```python
from sentence_transformers import SentenceTransformer

embeddings = SentenceTransformer("MODEL").encode(["Anna won in Paris."])
```

To upload the whole folder to the hub: `hf upload NAME MODEL .`. To upload weights and configuration only:
`model.push_to_hub("NAME")`.
"""

_CRF = """
The token logits are the scores of a linear-chain CRF: the probabilities of a word's tags depend on those of
the words around it. `task_5.py` computes them, with `model.transitions()`.
"""

_TAGGER = """
The entity head alone, with transformers. A word has the tag of its first token:

```python
from transformers import AutoModelForTokenClassification, pipeline

tagger = AutoModelForTokenClassification.from_pretrained("MODEL")
print(pipeline("ner", model="MODEL", aggregation_strategy="first")("Anna won in Paris."))
```
"""

_NO_TAGGER = """
transformers' `AutoModelForTokenClassification` and `pipeline("ner")` refuse this folder: they know no token
head that reads neighbouring tokens. A model that is trained with `model.token_head: linear` opens there too.
"""


def model_card(
    settings: Settings,
    backbone: Backbone,
    labels: LabelSpace,
    splits: dict[str, Split],
    dev: Headline | None,
    test: Scores | None = None,
    temperatures: tuple[float, float] | None = None,
    thresholds: Thresholds | None = None,
    origins: tuple[str | None, str | None] = ("dev", "dev"),
) -> str:
    """A run's resolved settings, encoder, labels, data, scores, temperatures (task A, task B) and thresholds
    → its card: Markdown with a YAML header for the hub. None: there are no such scores, temperatures or
    thresholds, or not yet.

    Args:
        origins: where each temperature is from: "dev", "start" (the starting model), or None if it is 1
            because none was fitted."""
    scores = {"dev": dev, "test": test.headline() if test else None}
    sections = [
        "# A sentence's class and its entities",
        _summary(settings, backbone, labels),
        "## Scores",
        _table(
            ["split", *_COLUMNS.values()],
            [[name, *map(_share, map(row.get, _COLUMNS))] for name, row in scores.items() if row],
        )
        if any(scores.values())
        else "None: the run had neither dev nor test data.",
        *_per_label(test),
        _probabilities(temperatures, origins),
        *_thresholds(thresholds),
        "## Labels",
        *_labels(labels, splits),
        "## Data",
        _files(settings, splits),
        "## Loading",
        _loading(settings.model.token_head),
        "## Settings",
        _settings(settings),
    ]
    header = hub_metadata(settings, backbone, scores).to_yaml()
    # ModelCard parses the header again, and raises if the hub could not read it
    return str(ModelCard(f"---\n{header}\n---\n\n" + "\n\n".join(sections) + "\n"))


def _loading(token_head: str) -> str:
    parts = [_CRF] if token_head in CRF_HEADS else []
    parts.append(_TAGGER if token_head == "linear" else _NO_TAGGER)
    return _LOADING.strip().replace("@TAGGER@", "\n\n".join(part.strip() for part in parts))


def _summary(settings: Settings, backbone: Backbone, labels: LabelSpace) -> str:
    classes, types = labels.classes, labels.types
    config = config_of(backbone.folder, settings.model.keep_layers)
    outputs = [f"a sentence's class, one of {len(classes)} (task A)"] * bool(classes)
    outputs += [f"its entities, of {len(types)} types (task B)"] * bool(types)
    return (
        f"{config.family.name} of {config.num_hidden_layers} layers × {config.hidden_size} with two heads, "
        f"trained from {escaped(encoder_name(backbone))}. It predicts {' and '.join(outputs)}, and gives the "
        "sentence's embedding."
    )


def _probabilities(temperatures: tuple[float, float] | None, origins: tuple[str | None, str | None]) -> str:
    if temperatures is None or origins == (None, None):
        return "Probabilities are the softmax of the logits: no temperatures were fitted."
    sources = {
        "dev": "fits the labels of dev best (Guo et al. 2017)",
        "start": "is that of the starting model, whose head was not trained",
        None: "is 1: none was fitted",
    }
    a, b = map(sources.__getitem__, origins)
    source = f"Each temperature {a}." if a == b else f"The temperature of A {a}; that of B {b}."
    return (
        f"For probabilities, logits are divided by {temperatures[0]:.4g} (A) and {temperatures[1]:.4g} (B) "
        f"before the softmax. {source} task_5.py applies them; for other programs they are in config.json."
    )


def _thresholds(thresholds: Thresholds | None) -> list[str]:
    """A table: from which probability or score on a wanted share of predictions is right on dev."""
    rows = []
    for what, of_task in zip(("classes", "entities"), thresholds or ()):
        for wanted in LEVELS if of_task else ():
            assert of_task is not None
            if step := of_task.lowest_for(wanted):
                rows.append([what, f"{wanted:g}", *map(_share, (step.threshold, step.share_kept))])
    if not rows:
        return []
    return [
        f"{FILE} holds the thresholds of these probabilities from which on a wanted share of predictions is "
        "right on dev. `task_5.py predict` and `task_6.py` leave out what is below them with "
        "`--accuracy SHARE` (classes) and `--precision SHARE` (entities).",
        _table(["predictions", "right, wanted", "threshold", "kept on dev"], rows),
    ]


def _per_label(test: Scores | None) -> list[str]:
    """One table per task: the scores of each label on test."""
    tables = []
    for title, task in (("class", test and test.task_a), ("type", test and test.task_b)):
        if task and task.per_label:
            head = [f"{title} (test)", "precision", "recall", "F1", "gold"]
            rows = [
                [escaped(name), *map(_share, (s.precision, s.recall, s.f1)), f"{s.gold:,}"]
                for name, s in task.per_label.items()
            ]
            tables.append(_table(head, rows))
    return tables


def _labels(labels: LabelSpace, splits: dict[str, Split]) -> list[str]:
    """One table per task: how often each label occurs in each split."""
    tables = []
    for title, names, counts in (
        ("class", labels.classes, [split.classes for split in splits.values()]),
        ("type", labels.types, [split.types for split in splits.values()]),
    ):
        if names:
            rows = [[escaped(name), *(f"{count[name]:,}" for count in counts)] for name in names]
            tables.append(_table([title, *splits], rows))
    scheme = [f"Tags are {labels.scheme}."] if labels.types else []
    return [*tables, *scheme]


def _files(settings: Settings, splits: dict[str, Split]) -> str:
    """The data files by name, without their folders."""
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
    """A name as Markdown text: characters that could be markup or end a cell become character references."""
    return re.sub(r"[^\w ,.:/'()-]|(?<![^\W_])_|_(?![^\W_])", lambda match: f"&#{ord(match[0])};", name)


def _settings(settings: Settings) -> str:
    """config.yml without its comments, in a code block whose fence is longer than any in the text."""
    lines = render_config(settings).splitlines()
    text = "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}yaml\n{text}\n{fence}"
