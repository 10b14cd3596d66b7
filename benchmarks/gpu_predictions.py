"""Predictions per second on a GPU, for gpu.py."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)
from transformers import logging as transformers_logging

from multitask.inference.predictor import Predictor, embed

_REPEATS, _ROUNDS = 8, 5


def predictions_per_second(model: str, texts: Sequence[str]) -> dict[str, float]:
    """Texts per second of each contender with the model in a folder."""
    speeds = {}
    for name, function in contenders(model).items():
        slow = "pipelines" in name
        speeds[name] = speed(
            function, list(texts) if slow else list(texts) * _REPEATS, 1 if slow else _ROUNDS
        )
    return speeds


def contenders(model: str) -> dict[str, Callable]:
    """Name → a function of texts."""
    transformers_logging.set_verbosity_error()
    fast, exact = (Predictor.from_pretrained(model, "cuda", precision) for precision in ("bf16", "fp32"))
    functions: dict[str, Callable] = {"Predictor, bf16": fast.predict, "Predictor, fp32": exact.predict}
    functions["embed, bf16"] = partial(embed, fast.runner, fast.tokenizer)
    functions["embed, fp32"] = partial(embed, exact.runner, exact.tokenizer)
    for precision, size in (("fp32", 32), ("bf16", 256)):
        functions[f"both pipelines, {precision}, batches of {size}"] = pipelines(model, precision, size)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return functions
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        sentences = SentenceTransformer(model, device="cuda", model_kwargs={"dtype": dtype})
        functions[f"sentence-transformers, {precision}, batches of 256"] = partial(
            sentences.encode, batch_size=256, show_progress_bar=False
        )
    return functions


def pipelines(model: str, precision: str, size: int) -> Callable:
    """The two pipelines that together give class, probabilities and entities."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    # transformers cannot load the class head: a new one of the same size costs as much
    classes = Predictor.from_pretrained(model, "cpu", "fp32").labels.classes
    shared = {"tokenizer": AutoTokenizer.from_pretrained(model), "batch_size": size, "device": 0}
    of_classes = AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=len(classes), ignore_mismatched_sizes=True, dtype=dtype
    )
    of_tags = AutoModelForTokenClassification.from_pretrained(model, dtype=dtype)
    parts = (
        pipeline("text-classification", of_classes, top_k=None, **shared),
        pipeline("ner", of_tags, aggregation_strategy="simple", **shared),
    )
    return lambda texts: [part(texts) for part in parts]


def speed(function: Callable, texts: list[str], rounds: int) -> float:
    """Texts per second: the median of the rounds, after a warm-up."""
    function(texts[: max(64, len(texts) // 2)])
    seconds = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        started = time.perf_counter()
        function(texts)
        seconds.append(time.perf_counter() - started)
    return len(texts) / statistics.median(seconds)
