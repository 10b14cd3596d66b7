"""Predict classes, entities and embeddings of texts with a trained model, in one pass.

Imports torch only to load a model that needs it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from multitask.common.errors import InputError
from multitask.data.corpus import EncodedCorpus, encode_words
from multitask.data.examples import Example, words_of_examples
from multitask.data.labels import LabelSpace, labels_from_config
from multitask.data.tokenization import WordTokenizer, special_token_ids
from multitask.data.words import TextWords, split_texts
from multitask.encoders.thresholds import Thresholds, lowest_threshold, read_thresholds
from multitask.inference.decoding import decode_rows
from multitask.inference.predictions import Prediction, collection_paused, make_predictions
from multitask.inference.runner import Runner, in_chunks, one_ahead, runner_of, start_rows

logger = logging.getLogger(__name__)

LATEST_MODEL = str(Path("runs") / "latest" / "model")  # the model of the newest run

_SURROGATE = re.compile("[\ud800-\udfff]")

Progress = Callable[[int], object]  # called with the number of rows done since the last call


class Predictor:
    """A trained model with its tokenizer and labels.

    >>> from multitask import Predictor
    >>> predictions = Predictor.from_pretrained("runs/latest/model").predict(["Marit Solheim won in Oslo."])
    >>> predictions[0].label, predictions[0].probabilities, predictions[0].entities

    Args:
        model: a MultiTaskTransformer, or a Runner.
        tokenizer, labels: those that the model was trained with.
        precision: of matrix multiplications. "auto": bfloat16 where the device supports it (on a copy of the
            model), else float32. "bf16", "fp16" or "fp32" chooses one. A Runner has its own precision."""

    def __init__(self, model: Any, tokenizer: Tokenizer, labels: LabelSpace, precision: str = "auto"):
        if not isinstance(model, Runner):
            from multitask.inference.torch_runner import fast_runner

            model = fast_runner(model, precision)
        self.runner, self.tokenizer, self.labels, self.config = model, tokenizer, labels, model.config
        self.folder: Path | None = None  # that it was loaded from
        self.thresholds: Thresholds | None = None  # that its folder holds
        self._lowest = 0.0, 0.0  # class probability and entity score that are kept

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: Any = None, precision: str = "auto", share_rows: bool = False
    ) -> Predictor:
        """Load a model folder that training saved, or an export.

        Args:
            folder: the folder; an export holds model.onnx.
            device: "cpu", "cuda", "cuda:1", "mps" or "auto" (the first of CUDA, MPS and CPU that is there);
                None: CUDA where available, else the CPU. An export: the CPU. A torch.device is one of a
                process that has joined others.
            precision: "auto", "bf16", "fp16" or "fp32", as for `Predictor`. An export has its own.
            share_rows: join the processes that a launcher started, which then share the rows of a corpus.

        Raises:
            InputError: the folder holds no trained model or a damaged one, or the device is not available."""
        check_folder(folder)
        folder = Path(folder)
        if (folder / "model.onnx").exists():
            if share_rows and os.environ.get("WORLD_SIZE", "1") != "1":
                from multitask.common import distributed

                distributed.init_processes("cpu")
            return cls.from_onnx(folder, str(device or "cpu"))
        thresholds = read_thresholds(folder)
        import torch

        from model import MultiTaskTransformer
        from model_config import MultiTaskConfig
        from multitask.common import distributed
        from multitask.common.device import choose_device
        from multitask.encoders.pretrained import load_model, load_tokenizer
        from multitask.encoders.validation import read_config

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        chosen = device
        if isinstance(device, str):
            chosen = distributed.init_processes(device) if share_rows else choose_device(device)
        labels = labels_from_config(MultiTaskConfig.from_dict(read_config(folder)))
        if not (labels.classes or labels.types):
            raise InputError(f"{folder}: an encoder without trained heads; python task_4.py trains them")
        model = load_model(MultiTaskTransformer, folder).to(chosen)
        return cls(model, load_tokenizer(folder), labels, precision)._of_folder(folder, thresholds)

    @classmethod
    def from_onnx(cls, folder: str | Path, device: str = "cpu") -> Predictor:
        """Load an export. Needs no torch. Raises InputError as OnnxModel does."""
        from multitask.inference.onnx_runner import OnnxModel

        model = OnnxModel(folder, device=device)
        predictor = cls(model, model.tokenizer(), labels_from_config(model.config))
        return predictor._of_folder(Path(folder), read_thresholds(folder))

    def answer_only_if(self, accuracy: float | None = None, precision: float | None = None) -> None:
        """From now on, answer only what is right often enough: a less confident class becomes None, and a
        less confident entity is left out. The thresholds are those that dev gave in training.

        Args:
            accuracy: wanted share of right classes among those that are given, such as 0.95; None: all are
                given.
            precision: wanted share of right entities among those that are given; None: likewise.

        Logs the thresholds and what they did on dev. Raises InputError if no threshold reaches a wanted share
        on dev, or if the model has none."""
        model = self.folder or "the model"
        a = lowest_threshold(self.thresholds, "task_a", accuracy, "accuracy", model)
        b = lowest_threshold(self.thresholds, "task_b", precision, "precision", model)
        for step, what in ((a, "a class"), (b, "an entity")):
            if step:
                logger.info(
                    f"{what} below {step.threshold:.4f} is left out: on dev {step.share_kept:.1%} were kept, "
                    f"and at least {step.share_correct:.1%} of these were right"
                )
        self._lowest = a.threshold if a else 0.0, b.threshold if b else 0.0

    def _of_folder(self, folder: Path, thresholds: Thresholds | None) -> Predictor:
        self.folder, self.thresholds = folder, thresholds
        return self

    def predict(
        self, texts: Sequence[str], embeddings: bool = False, progress: Progress | None = None
    ) -> list[Prediction]:
        """Predict class, entities and, if wanted, the embedding of each text, of any length.

        Args:
            texts: N texts. A blank one has neither class nor entities, but an embedding. A lone surrogate is
                an unknown character.
            embeddings: whether to add each text's embedding (D,), float32.
            progress: called with the number of texts done since the last call.

        Returns:
            N predictions, in the order of the texts. Entities have character offsets, end exclusive;
            probabilities and scores lie in [0, 1]."""
        # no tokenizer takes half of a character; its replacement has the same length, which keeps the offsets
        with collection_paused():
            readable = [text if text.isascii() else _SURROGATE.sub("\ufffd", text) for text in texts]
            chunks = ((part, split_texts(part)) for part in _chunks(readable))
            predictions = self._predict(chunks, embeddings, progress)
            if readable == list(texts):
                return predictions
            return [prediction.with_text(text) for prediction, text in zip(predictions, texts)]

    def predict_examples(
        self,
        examples: Sequence[Example],
        embeddings: bool = False,
        progress: Progress | None = None,
        words: bool = False,
        tag_probabilities: bool = False,
    ) -> list[Prediction]:
        """Predict rows whose words are known, such as those of a corpus.

        Args:
            examples: N rows with text and the character offsets of the words; annotation is ignored.
            embeddings, progress: as for `predict`.
            words, tag_probabilities: whether to add each word's tag and score, and those of all its tags.

        Returns:
            N predictions, in the order of the examples."""
        chunks = (
            ([example.text or "" for example in part], words_of_examples(part))
            for part in in_chunks(examples, lambda example: len(example.words))
        )
        with collection_paused():
            return self._predict(chunks, embeddings, progress, words, tag_probabilities)

    def _predict(
        self,
        chunks: Iterable[tuple[list[str], TextWords]],
        embeddings: bool,
        progress: Progress | None,
        *of_words: bool,
    ) -> list[Prediction]:
        encode, predictions = TextEncoder(self.tokenizer, self.config), []

        def begin(texts: list[str], found: TextWords) -> Callable[[], list[Prediction]]:
            corpus = encode(found)
            finish, labels = start_rows(self.runner, corpus, 0, len(corpus)), self.labels
            options = labels, self.config, embeddings, *of_words
            return lambda: make_predictions(decode_rows(finish(), corpus, labels), texts, found, *options)

        with self.runner.ready():
            for part in one_ahead(begin(*chunk) for chunk in chunks):
                predictions += part
                if progress:
                    progress(len(part))
        if any(self._lowest):
            return [prediction.if_confident(*self._lowest) for prediction in predictions]
        return predictions


class TextEncoder:
    """Encodes chunks of texts for a model, each distinct word once."""

    def __init__(self, tokenizer: Tokenizer, config: Any):
        self.subwords, self.special = WordTokenizer(tokenizer), special_token_ids(tokenizer)
        self.windows = config.max_length, config.stride

    def __call__(self, words: TextWords) -> EncodedCorpus:
        return encode_words(words, self.subwords, self.special, *self.windows)


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    return in_chunks(texts, lambda text: len(text) // 4)  # about one word


def check_folder(name: str | Path) -> None:
    """Raises InputError if there is no folder of that name."""
    if not Path(name).is_dir():
        hint = "; python task_4.py trains one" if str(name) == LATEST_MODEL else ""
        raise InputError(f"no folder {Path(name)}{hint}")


def embed(
    model: Any, tokenizer: Tokenizer, texts: Sequence[str], progress: Progress | None = None
) -> np.ndarray:
    """Embeddings (N, D) of N texts, float32, with the pooling of the model's configuration.

    `model` is a SentenceTransformer, a MultiTaskTransformer or a Runner."""
    runner = runner_of(model).without_heads()
    encode, parts = TextEncoder(tokenizer, runner.config), []
    with runner.ready():
        chunks = ((encode(split_texts(chunk)), len(chunk)) for chunk in _chunks(texts))
        for out in one_ahead(start_rows(runner, corpus, 0, count) for corpus, count in chunks):
            parts.append(out.embeddings)
            if progress:
                progress(out.last)
    return np.concatenate(parts) if parts else np.zeros((0, runner.config.hidden_size), np.float32)
