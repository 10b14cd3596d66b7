"""A stand-in for a trained model, in a module that another process can import."""

import os
import signal
import time

import numpy as np

from multitask.common.errors import InputError
from multitask.data.labels import LabelSpace
from multitask.inference.predictions import Entity, Prediction, Word


class Reader:
    """A Predictor that tags every "anna" as PER. The words dies, fails and slow make it do just that."""

    labels = LabelSpace(("calm", "loud"), ("PER",))

    def predict(self, texts):
        return [None] * len(texts)

    def predict_examples(self, examples, embeddings=False, progress=None, words=False):
        text = " ".join(example.text for example in examples)
        if "dies" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if "fails" in text:
            raise MemoryError("too large")
        if "slow" in text:
            time.sleep(0.3)
        return [self.read_one(example, embeddings, words) for example in examples]

    def read_one(self, example, embeddings, words):
        spans = [(s, e) for (s, e), word in zip(example.offsets, example.words) if word == "anna"]
        p_loud = 0.9 if "!" in example.text else 0.2
        return Prediction(
            example.text,
            self.labels.classes[p_loud > 0.5],
            {"calm": 1 - p_loud, "loud": p_loud},
            [Entity(s, e, "anna", "PER", 0.75) for s, e in spans],
            np.array([len(example.text), 1.0], np.float32) if embeddings else None,
            [Word(s, e, "PER" if (s, e) in spans else "O", 0.75) for s, e in example.offsets]
            if words
            else None,
        )


def reader():
    return Reader()


def no_reader():
    raise InputError("runs/none: no model.safetensors in it")
