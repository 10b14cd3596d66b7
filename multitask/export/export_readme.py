"""The README.md of an exported folder, whose code blocks use the export with and without the project."""

from multitask.data.labels import LabelSpace
from multitask.encoders.thresholds import FILE
from multitask.inference.onnx_runner import ExportedConfig

_README = """\
# An exported model

A BERT encoder with one head for a sentence's class and one for entity tags, in {weights}. It runs with numpy,
tokenizers and onnxruntime. labels.json contains the names of classes and tags, and the settings of training
that prediction needs. `sha256sum -c SHA256SUMS` verifies the files.

With the project that trained the model on your PYTHONPATH, for texts of any length:

```python
from multitask import Predictor

for prediction in Predictor.from_pretrained(".").predict(["Marit Solheim won in Oslo."]):
    print(prediction.label, prediction.entities)
```

{thresholds}Without the project, for texts of at most {max_length} tokens:

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
{lines}
```
"""

_CHAIN = """\
# a word has the tag of its first subword; the best sequence of tags is that of the highest sum (Viterbi)
words, numbers = [], encoded.word_ids
for i, number in enumerate(numbers):
    if number is not None and number != numbers[i - 1]:
        words.append(i)
best, before = token_logits[0, words[0]], []
for i in words[1:]:
    sums = best[:, None] + np.array(labels["transitions"])
    before.append(sums.argmax(0))
    best = sums.max(0) + token_logits[0, i]
path = [best.argmax()]
for choices in reversed(before):
    path.insert(0, choices[path[0]])
print([(encoded.tokens[i], labels["tags"][tag]) for i, tag in zip(words, path)])"""

_THRESHOLDS = f"""\
{FILE} holds the probabilities from which on a wanted share of predictions is right on dev. With
`Predictor.answer_only_if(accuracy=0.95, precision=0.95)` a less probable class becomes None, and a less
probable entity is left out.

"""


def export_readme(config: ExportedConfig, labels: LabelSpace, thresholds: bool) -> str:
    """An export's configuration and labels, and whether it has thresholds → the text of its README.md."""
    lines = []
    if labels.classes:
        lines.append('print(labels["classes"][sentence_logits[0].argmax()])')
    if labels.types and config.transitions:
        lines.append(_CHAIN)
    elif labels.types:
        lines.append('tags = [labels["tags"][i] for i in token_logits[0].argmax(-1)]')
        lines.append("print(list(zip(encoded.tokens, tags)))  # a word has the tag of its first subword")
    return _README.format(
        weights=config.weights,
        lines="\n".join(lines),
        max_length=config.max_length,
        thresholds=_THRESHOLDS if thresholds else "",
    )
