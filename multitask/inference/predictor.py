"""A trained model that predicts: texts in, classes, entities and embeddings out, in one pass.

Nothing here imports torch until a model that needs it is loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from multitask.common.errors import InputError
from multitask.data.corpus import encode
from multitask.data.labels import LabelSpace, labels_from_config
from multitask.data.rows import Example, example_from_text
from multitask.inference.decoding import DecodedRows, decode_corpus, entity_scores, softmax
from multitask.inference.predictions import Entity, Prediction, Word
from multitask.inference.runner import Runner, run_model, runner_of

LATEST_MODEL = str(Path("runs") / "latest" / "model")  # the model of the newest run

_SURROGATE = re.compile("[\ud800-\udfff]")

Progress = Callable[[int], object]  # called with the number of rows done since the last call


class Predictor:
    """A model, its tokenizer and its labels.

    >>> Predictor.from_pretrained("runs/latest/model").predict(["Marit Solheim won in Oslo."])[0].entities

    Args:
        model: a MultiTaskTransformer, or a Runner.
        tokenizer, labels: those that the model was trained with.
        precision: of matrix multiplications. "auto": bfloat16 where the device supports it (on a copy of the
            model), else float32. "bf16" or "fp32" chooses one."""

    def __init__(self, model: Any, tokenizer: Tokenizer, labels: LabelSpace, precision: str = "auto"):
        if not isinstance(model, Runner):
            from multitask.inference.torch_runner import fast_runner

            model = fast_runner(model, precision)
        self.runner, self.tokenizer, self.labels, self.config = model, tokenizer, labels, model.config

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | None = None,
        precision: str = "auto",
        share_rows: bool = False,
    ) -> Predictor:
        """Load a folder that training saved or that task_5.py export wrote.

        Args:
            folder: the model folder.
            device: "cpu", "cuda" or "cuda:1"; None: CUDA where available. An export runs on the CPU.
            precision: as for `Predictor`; an export has its own.
            share_rows: whether processes that a launcher has started share the rows of each call.

        Raises InputError for a folder that holds no trained model, a damaged one, or another device."""
        check_folder(folder)
        if (Path(folder) / "model.onnx").exists():
            if device not in (None, "cpu"):
                raise InputError(f"--device {device}: an exported model runs on the CPU")
            if share_rows and os.environ.get("WORLD_SIZE", "1") != "1":
                from multitask.common import distributed

                distributed.init_processes("cpu")
            return cls.from_onnx(folder)
        return cls._from_torch(Path(folder), device, precision, share_rows)

    @classmethod
    def from_onnx(cls, folder: str | Path) -> Predictor:
        """Load a folder that task_5.py export wrote. Needs no torch. Raises InputError as OnnxModel does."""
        from multitask.inference.onnx_runner import OnnxModel

        model = OnnxModel(folder)
        return cls(model, model.tokenizer(), labels_from_config(model.config))

    @classmethod
    def _from_torch(cls, folder: Path, device: str | None, precision: str, share_rows: bool) -> Predictor:
        import torch

        from model import MultiTaskConfig, MultiTaskTransformer
        from multitask.common import distributed
        from multitask.common.device import choose_device
        from multitask.encoders.pretrained import load_model, load_tokenizer
        from multitask.encoders.validation import read_config

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        chosen = distributed.init_processes(device) if share_rows else choose_device(device)
        labels = labels_from_config(MultiTaskConfig.from_dict(read_config(folder)))
        if not (labels.classes or labels.types):
            raise InputError(f"{folder}: an encoder without trained heads; python task_4.py trains them")
        model = load_model(MultiTaskTransformer, folder).to(chosen)
        return cls(model, load_tokenizer(folder), labels, precision)

    def predict(
        self, texts: Sequence[str], embeddings: bool = False, progress: Progress | None = None
    ) -> list[Prediction]:
        """One Prediction per text, in order; an empty text has one too."""
        # no tokenizer takes half of a character; its replacement has the same length, so offsets stay
        examples = [example_from_text(_SURROGATE.sub("\ufffd", text)) for text in texts]
        predictions = self.predict_examples(examples, embeddings, progress)
        return [
            prediction if prediction.text == text else _with_text(prediction, text)
            for prediction, text in zip(predictions, texts)
        ]

    def predict_examples(
        self,
        examples: Sequence[Example],
        embeddings: bool = False,
        progress: Progress | None = None,
        words: bool = False,
    ) -> list[Prediction]:
        """One Prediction per Example; each must have its text and the offsets of its words.

        `embeddings` and `words` add the embedding and each word's tag."""
        config = self.config
        corpus = encode(examples, self.tokenizer, self.labels, config.max_length, config.stride)
        return [
            prediction
            for rows in decode_corpus(self.runner, corpus, self.labels, progress=progress)
            for prediction in self._predictions(rows, examples[rows.first : rows.last], embeddings, words)
        ]

    def _predictions(
        self, rows: DecodedRows, examples: Sequence[Example], embeddings: bool, words: bool
    ) -> Iterator[Prediction]:
        names = self.labels.classes
        classes = probabilities = entities = tagged = None
        if rows.classes is not None:
            assert rows.sentence_logits is not None  # None together
            classes = rows.classes.tolist()
            probabilities = softmax(
                rows.sentence_logits / np.float32(self.config.temperature_task_a)
            ).tolist()
        if rows.tags is not None:
            entities = self._entities(rows, examples)
            tagged = self._words(rows, examples) if words else None
        for row, example in enumerate(examples):
            assert example.text is not None  # as `predict_examples` requires
            yield Prediction(
                example.text,
                None if classes is None else names[classes[row]],
                None if probabilities is None else dict(zip(names, probabilities[row])),
                None if entities is None else entities[row],
                rows.embeddings[row] if embeddings else None,
                None if tagged is None else tagged[row],
            )

    def _entities(self, decoded: DecodedRows, examples: Sequence[Example]) -> list[list[Entity]]:
        assert decoded.tags is not None and decoded.word_logits is not None  # None together
        offsets, labels = decoded.offsets, self.labels
        starts, ends, types = labels.find_spans(decoded.tags, offsets)
        temperature = self.config.temperature_task_b
        scores = entity_scores(decoded.word_logits, labels, starts, ends, types, temperature)
        rows = np.searchsorted(offsets, starts, side="right") - 1
        first, last = starts - offsets[rows], ends - 1 - offsets[rows]
        entities: list[list[Entity]] = [[] for _ in examples]
        for row, begin, end, kind, score in zip(*map(np.ndarray.tolist, (rows, first, last, types, scores))):
            text, words = examples[row].text, examples[row].offsets
            assert text is not None and words is not None  # as `predict_examples` requires
            start, stop = words[begin][0], words[end][1]
            entities[row].append(Entity(start, stop, text[start:stop], labels.types[kind], score))
        return entities

    def _words(self, decoded: DecodedRows, examples: Sequence[Example]) -> list[list[Word]]:
        assert decoded.tags is not None and decoded.word_logits is not None  # None together
        tags, temperature = decoded.tags, np.float32(self.config.temperature_task_b)
        scores = softmax(decoded.word_logits / temperature)[np.arange(len(tags)), tags].tolist()
        names, ids = self.labels.tags, tags.tolist()
        return [
            [
                Word(start, end, names[ids[first + word]], scores[first + word])
                for word, (start, end) in enumerate(example.offsets or ())
            ]
            for first, example in zip(decoded.offsets.tolist(), examples)
        ]


def check_folder(name: str | Path) -> None:
    """Raises InputError if there is no folder of that name."""
    if not Path(name).is_dir():
        hint = "; python task_4.py trains one" if str(name) == LATEST_MODEL else ""
        raise InputError(f"no folder {Path(name)}{hint}")


def embed(
    model: Any, tokenizer: Tokenizer, texts: Sequence[str], progress: Progress | None = None
) -> np.ndarray:
    """Texts → embeddings (N, D), float32, pooled as the model's configuration says."""
    runner = runner_of(model).without_heads()
    examples, config = list(map(example_from_text, texts)), runner.config
    corpus = encode(examples, tokenizer, LabelSpace((), ()), config.max_length, config.stride)
    parts = [out.embeddings for out in run_model(runner, corpus, progress)]
    return np.concatenate(parts) if parts else np.zeros((0, config.hidden_size), np.float32)


def _with_text(prediction: Prediction, text: str) -> Prediction:
    entities = prediction.entities and [e._replace(text=text[e.start : e.end]) for e in prediction.entities]
    return prediction._replace(text=text, entities=entities)
