"""A random model with two heads, and texts for it."""

import pytest
import torch

from model import MultiTaskTransformer
from multitask.data.labels import LabelSpace
from multitask.inference.predictor import Predictor
from token_heads import TOKEN_HEADS

LABELS = LabelSpace(("x", "y", "z"), ("LOC", "PER"), "BIO")
TEXTS = ["anna won in paris", "", "the vote", "a " * 90 + "end", "Paris, anna and the match!", "chip"]


@pytest.fixture(scope="session", params=TOKEN_HEADS)
def random_model(request, tiny):
    torch.manual_seed(4)
    sizes = {"num_classes_task_a": 3, "num_labels_task_b": 5, "max_length": 24, "stride": 6}
    sizes["token_head"] = request.param
    model = MultiTaskTransformer.from_pretrained(tiny, **sizes).eval()
    torch.nn.init.normal_(model.classifier.weight)  # untrained heads predict O everywhere
    torch.nn.init.normal_(model.sentence_classifier.weight)
    if model.token_convolution:  # else its vectors, and with them the differences between words, are small
        for parameter in model.token_convolution.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    if model.transitions:
        torch.nn.init.normal_(model.transitions.weight, std=0.2)
    return model


@pytest.fixture(scope="session")
def random_predictor(random_model, tokenizer):
    return Predictor(random_model, tokenizer, LABELS)
