"""A trained model on texts: one pass gives class, entities and embedding. Needs no torch itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from multitask.data.corpus import EncodedCorpus, encode
from multitask.data.labels import TASKS, LabelSpace, labels_of, ragged
from multitask.data.rows import Example, text_example
from multitask.evaluation.metrics import Scores, score
from multitask.inference.predictions import Entity, Prediction, Word
from multitask.inference.runner import Outputs, Runner, outputs

_SURROGATE = re.compile("[\ud800-\udfff]")


class Predictor:
    """A model, its tokenizer and its labels: texts in, Predictions out.

    >>> Predictor(model, tokenizer, labels).predict(["Marit Solheim won in Oslo."])[0].entities

    `model` is a MultiTaskTransformer, or a Runner. Products of matrices are computed in bfloat16 where the
    device has it (a copy of the model is made), unless `precision` is "fp32"; "bf16" asks for it anywhere."""

    def __init__(self, model, tokenizer: Tokenizer, labels: LabelSpace, precision: str = "auto"):
        if not isinstance(model, Runner):
            from multitask.inference.torch_runner import (
                fast_runner,  # torch, which an exported model does without
            )

            model = fast_runner(model, precision)
        self.runner, self.tokenizer, self.labels, self.config = model, tokenizer, labels, model.config

    @classmethod
    def from_onnx(cls, folder: str | Path) -> Predictor:
        """Of a folder that task_5.py export made. Raises InputError as OnnxModel does."""
        from multitask.inference.onnx_runner import OnnxModel

        model = OnnxModel(folder)
        return cls(model, model.tokenizer(), labels_of(model.config))

    def predict(
        self,
        texts: Sequence[str],
        embeddings: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> list[Prediction]:
        """One Prediction a text, in order; an empty text has one too."""
        # no tokenizer takes half of a character; what stands in for it is as long, so that offsets stay
        examples = [text_example(_SURROGATE.sub("\ufffd", text)) for text in texts]
        predictions = self.predict_examples(examples, embeddings, progress)
        return [
            said if said.text == text else _with_text(said, text) for said, text in zip(predictions, texts)
        ]

    def predict_examples(
        self,
        examples: Sequence[Example],
        embeddings: bool = False,
        progress: Callable[[int], object] | None = None,
        words: bool = False,
    ) -> list[Prediction]:
        """The same of texts whose words are known, and with `words` the tag of each. Every Example has its
        text and offsets."""
        config = self.config
        corpus = encode(examples, self.tokenizer, self.labels, config.max_length, config.stride)
        return [
            prediction
            for out in outputs(self.runner, corpus, progress)
            for prediction in self._decode(out, corpus, examples[out.first : out.last], embeddings, words)
        ]

    def _decode(
        self, out: Outputs, corpus: EncodedCorpus, examples: Sequence[Example], embeddings: bool, words: bool
    ) -> Iterator[Prediction]:
        offsets = corpus.word_rows[out.first : out.last + 1] - corpus.word_rows[out.first]
        classes, best, chances = self.labels.classes, [], []
        if classes:
            found = softmax(out.sentence_logits / np.float32(self.config.temperature_task_a))
            best, chances = found.argmax(1).tolist(), found.tolist()
        entities = tagged = None
        if self.labels.types:
            tags = self.labels.decode(out.word_logits, offsets)
            entities = self._entities(out.word_logits, tags, offsets, examples)
            tagged = self._words(out.word_logits, tags, offsets, examples) if words else None
        for row, example in enumerate(examples):
            yield Prediction(
                example.text,
                classes[best[row]] if classes else None,
                dict(zip(classes, chances[row])) if classes else None,
                None if entities is None else entities[row],
                out.embeddings[row] if embeddings else None,
                None if tagged is None else tagged[row],
            )

    def _entities(
        self, logits: np.ndarray, tags: np.ndarray, offsets: np.ndarray, examples: Sequence[Example]
    ) -> list[list[Entity]]:
        starts, ends, types = self.labels.find_spans(tags, offsets)
        scores = entity_scores(logits, self.labels, starts, ends, types, self.config.temperature_task_b)
        rows = np.searchsorted(offsets, starts, side="right") - 1
        first, last = starts - offsets[rows], ends - 1 - offsets[rows]
        found: list[list[Entity]] = [[] for _ in examples]
        for row, begin, end, kind, chance in zip(*map(np.ndarray.tolist, (rows, first, last, types, scores))):
            text, words = examples[row].text, examples[row].offsets
            start, stop = words[begin][0], words[end][1]
            found[row].append(Entity(start, stop, text[start:stop], self.labels.types[kind], chance))
        return found

    def _words(
        self, logits: np.ndarray, tags: np.ndarray, offsets: np.ndarray, examples: Sequence[Example]
    ) -> list[list[Word]]:
        chances = softmax(logits / np.float32(self.config.temperature_task_b))[np.arange(len(tags)), tags]
        names, ids, scores = self.labels.tags, tags.tolist(), chances.tolist()
        return [
            [
                Word(start, end, names[ids[first + word]], scores[first + word])
                for word, (start, end) in enumerate(example.offsets)
            ]
            for first, example in zip(offsets.tolist(), examples)
        ]


def runner_of(model) -> Runner:
    """What runs a model: a Runner itself, or a torch model."""
    if isinstance(model, Runner):
        return model
    from multitask.inference.torch_runner import TorchRunner

    return TorchRunner(model)


def entity_scores(
    logits: np.ndarray,
    labels: LabelSpace,
    starts: np.ndarray,
    ends: np.ndarray,
    types: np.ndarray,
    temperature: float,
) -> np.ndarray:
    """Word logits (W, K), spans [starts, ends) of type ids (E,) → the mean probability of each one's type
    over its words (E,); under BIO that of both its tags."""
    if len(starts) == 0:
        return np.zeros(0)
    lengths = ends - starts
    chances = softmax(logits[ragged(starts, lengths)] / np.float32(temperature))
    word, kind = np.arange(len(chances)), np.repeat(types, lengths)
    if labels.scheme == "BIO":
        of_type = chances[word, 1 + 2 * kind] + chances[word, 2 + 2 * kind]
    else:
        of_type = chances[word, 1 + kind]
    means = np.add.reduceat(of_type.astype(np.float64), np.cumsum(lengths) - lengths) / lengths
    return np.minimum(means, 1.0)


def predict_corpus(
    model,
    corpus: EncodedCorpus,
    labels: LabelSpace,
    progress: Callable[[int], object] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Class ids (N,) and tag ids (W,) that a model, or a Runner, gives a corpus; tags are valid under the
    scheme.

    Several processes share the rows, each of which is read once, and all of them get the whole."""
    from multitask.common import distributed  # torch's, which an exported model does without

    runner = runner_of(model)
    classes, tags = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for out in outputs(runner, corpus, progress, distributed.share(len(corpus))):
        offsets = corpus.word_rows[out.first : out.last + 1] - corpus.word_rows[out.first]
        classes.append(out.sentence_logits.argmax(1))
        tags.append(labels.decode(out.word_logits, offsets))
    return distributed.joined(np.concatenate(classes)), distributed.joined(np.concatenate(tags))


def evaluate(
    model,
    corpus: EncodedCorpus,
    labels: LabelSpace,
    tasks: Sequence[str] = TASKS,
    progress: Callable[[int], object] | None = None,
) -> Scores:
    """Scores of the named tasks, of those that the model has names for."""
    classes, tags = predict_corpus(model, corpus, labels, progress)
    return score(
        corpus,
        labels,
        classes if "task_a" in tasks and labels.classes else None,
        tags if "task_b" in tasks and labels.types else None,
    )


def embed(
    model, tokenizer: Tokenizer, texts: Sequence[str], progress: Callable[[int], object] | None = None
) -> np.ndarray:
    """Texts → embeddings (N, D), float32, pooled as the model's configuration says."""
    runner = runner_of(model).without_heads()
    examples, config = list(map(text_example, texts)), runner.config
    corpus = encode(examples, tokenizer, LabelSpace((), ()), config.max_length, config.stride)
    parts = [out.embeddings for out in outputs(runner, corpus, progress)]
    return np.concatenate(parts) if parts else np.zeros((0, config.hidden_size), np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _with_text(said: Prediction, text: str) -> Prediction:
    entities = said.entities and [e._replace(text=text[e.start : e.end]) for e in said.entities]
    return said._replace(text=text, entities=entities)
