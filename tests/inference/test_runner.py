"""Outputs of a model for a corpus: windows, batches and threads change nothing."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from random_models import LABELS, TEXTS

from model import SentenceTransformer
from multitask.data.corpus import encode
from multitask.data.examples import example_from_text
from multitask.encoders.tag_chain import log_marginals
from multitask.inference.decoding import predict_corpus
from multitask.inference.predictor import embed
from multitask.inference.runner import run_model
from multitask.inference.torch_runner import TorchRunner


def test_texts_average_their_windows_and_words_use_one(random_model, tokenizer):
    text = "anna won the match in paris and the vote in the chip winning match of annason and more " * 3
    corpus = encode([example_from_text(text)], tokenizer, LABELS, 24, 6)
    V = len(corpus.window_start)
    assert V > 3
    (out,) = run_model(TorchRunner(random_model), corpus)
    logits, vectors, scores = [], [], []
    for v in range(V):
        inside = corpus.ids[corpus.window_start[v] : corpus.window_end[v]]
        ids = torch.tensor([[corpus.special[0], *inside, corpus.special[1]]])
        a, b = random_model(ids)
        logits.append(a[0].detach())
        vectors.append(random_model.encode(ids, torch.ones_like(ids))[0, 0].detach())
        words = slice(corpus.window_words[v], corpus.window_words[v + 1])
        positions = corpus.word_first[words] - corpus.window_start[v] + 1
        scores.append(b[0, positions].detach().numpy())
    expected = np.concatenate(scores)
    if random_model.transitions:  # the chain goes on from window to window
        transitions = random_model.transitions().detach().numpy()
        expected = log_marginals(expected, transitions, np.array([0, len(expected)]))
    np.testing.assert_allclose(out.word_logits, expected, atol=1e-5)
    np.testing.assert_allclose(out.sentence_logits[0], torch.stack(logits).mean(0), atol=1e-5)
    np.testing.assert_allclose(out.embeddings[0], torch.stack(vectors).mean(0), atol=1e-5)


def test_the_window_width_changes_nothing_if_the_text_fits(random_model, tokenizer):
    texts = [text for text in TEXTS if len(text) < 60]
    wide, narrow = (encode(list(map(example_from_text, texts)), tokenizer, LABELS, n, 6) for n in (64, 40))
    for a, b in zip(*(predict_corpus(random_model, corpus, LABELS) for corpus in (wide, narrow))):
        assert (a == b).all()


def test_threads_change_nothing_and_torch_keeps_its_number_of_threads(random_model, tokenizer, monkeypatch):
    corpus = encode(list(map(example_from_text, TEXTS * 5)), tokenizer, LABELS, 24, 6)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    runner = TorchRunner(random_model)
    monkeypatch.setattr(runner, "batch_tokens", 30)
    outputs = []
    for workers in (1, 3):
        monkeypatch.setattr(runner, "workers", workers)
        outputs.append(list(run_model(runner, corpus)))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
    torch.set_num_threads(before)
    for a, b in zip(*outputs, strict=True):
        for one, other in zip(a[2:], b[2:]):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_encoder_without_heads_gives_embeddings(tiny, tokenizer, pooling):
    model = SentenceTransformer.from_pretrained(tiny, pooling=pooling, max_length=40).train()
    vectors = embed(model, tokenizer, TEXTS)
    assert vectors.shape == (len(TEXTS), 32)
    assert model.training, "embed restores the mode"
    model.eval()
    for text, vector in zip(TEXTS[:3], vectors):
        ids = torch.tensor([tokenizer.encode(text).ids])
        np.testing.assert_allclose(model(ids)[0].detach(), vector, atol=1e-5)
    for text, vector in zip(TEXTS, vectors):
        np.testing.assert_allclose(embed(model, tokenizer, [text])[0], vector, atol=1e-5)
    assert embed(model, tokenizer, []).shape == (0, 32)
