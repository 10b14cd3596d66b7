import copy
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import MultiTaskTransformer, SentenceTransformer
from multitask.data.corpus import encode
from multitask.data.labels import LabelSpace
from multitask.data.rows import example_from_text
from multitask.inference import runner
from multitask.inference.decoding import predict_corpus
from multitask.inference.predictor import Predictor, embed
from multitask.inference.runner import run_model
from multitask.inference.torch_runner import TorchRunner

LABELS = LabelSpace(("x", "y", "z"), ("LOC", "PER"), "BIO")
TEXTS = ["anna won in paris", "", "the vote", "a " * 90 + "end", "Paris, anna and the match!", "chip"]


@pytest.fixture(scope="module")
def model(tiny):
    torch.manual_seed(4)
    sizes = {"num_classes_task_a": 3, "num_labels_task_b": 5, "max_length": 24, "stride": 6}
    model = MultiTaskTransformer.from_pretrained(tiny, **sizes).eval()
    torch.nn.init.normal_(model.classifier.weight)  # untrained heads say O to everything
    torch.nn.init.normal_(model.sentence_classifier.weight)
    return model


@pytest.fixture(scope="module")
def predictor(model, tokenizer):
    return Predictor(model, tokenizer, LABELS)


def test_a_short_text_gets_what_the_model_says_of_its_tokens(model, predictor, tokenizer):
    text = "anna won in paris"
    ids = torch.tensor([tokenizer.encode(text).ids])
    sentence_logits, token_logits = model(ids)
    (predicted,) = predictor.predict([text], embeddings=True)
    chances = sentence_logits.softmax(-1)[0].tolist()
    assert list(predicted.probabilities.values()) == pytest.approx(chances, abs=1e-6)
    assert predicted.label == LABELS.classes[int(sentence_logits.argmax())]
    np.testing.assert_allclose(
        predicted.embedding, model.encode(ids, torch.ones_like(ids))[0, 0].detach(), atol=1e-6
    )
    corpus = encode([example_from_text(text)], tokenizer, LABELS, 24, 6)
    (out,) = run_model(TorchRunner(model), corpus)
    first = corpus.word_first + 1
    np.testing.assert_allclose(out.word_logits, token_logits[0, first].detach(), atol=1e-5)


def test_a_long_text_gets_the_mean_of_its_windows_and_each_word_its_own(model, tokenizer):
    text = "anna won the match in paris and the vote in the chip winning match of annason and more " * 3
    corpus = encode([example_from_text(text)], tokenizer, LABELS, 24, 6)
    V = len(corpus.window_start)
    assert V > 3
    (out,) = run_model(TorchRunner(model), corpus)
    logits, vectors = [], []
    for v in range(V):
        inside = corpus.ids[corpus.window_start[v] : corpus.window_end[v]]
        ids = torch.tensor([[corpus.special[0], *inside, corpus.special[1]]])
        a, b = model(ids)
        logits.append(a[0].detach())
        vectors.append(model.encode(ids, torch.ones_like(ids))[0, 0].detach())
        words = slice(corpus.window_words[v], corpus.window_words[v + 1])
        positions = corpus.word_first[words] - corpus.window_start[v] + 1
        np.testing.assert_allclose(out.word_logits[words], b[0, positions].detach(), atol=1e-5)
    np.testing.assert_allclose(out.sentence_logits[0], torch.stack(logits).mean(0), atol=1e-5)
    np.testing.assert_allclose(out.embeddings[0], torch.stack(vectors).mean(0), atol=1e-5)


def test_windows_change_nothing_where_the_text_fits(model, tokenizer):
    texts = [text for text in TEXTS if len(text) < 60]
    roomy, narrow = (encode(list(map(example_from_text, texts)), tokenizer, LABELS, n, 6) for n in (64, 40))
    for a, b in zip(*(predict_corpus(model, corpus, LABELS) for corpus in (roomy, narrow))):
        assert (a == b).all()


def test_neighbours_chunks_and_batches_change_nothing(predictor, monkeypatch):
    together = predictor.predict(TEXTS * 3, embeddings=True)
    monkeypatch.setattr(runner, "_ROWS", 2)
    monkeypatch.setattr(runner, "_WORDS", 20)
    monkeypatch.setattr(predictor.runner, "batch_tokens", 30)
    seen = []
    again = predictor.predict(TEXTS * 3, embeddings=True, progress=seen.append)
    assert sum(seen) == len(TEXTS) * 3
    for text, a, b in zip(TEXTS * 3, together, again):
        alone = predictor.predict([text], embeddings=True)[0]
        for other in (b, alone):
            assert (a.text, a.label) == (other.text, other.label) == (text, other.label)
            assert [e[:4] for e in a.entities] == [e[:4] for e in other.entities]
            np.testing.assert_allclose(a.embedding, other.embedding, atol=1e-5)


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=4))
def test_every_text_is_answered_and_entities_lie_in_it(predictor, texts):
    predictions = predictor.predict(texts)
    assert [p.text for p in predictions] == texts
    for p in predictions:
        assert sum(p.probabilities.values()) == pytest.approx(1)
        assert p.label == max(p.probabilities, key=p.probabilities.get)
        for entity in p.entities:
            assert p.text[entity.start : entity.end] == entity.text != ""
            assert entity.label in LABELS.types
            assert 0 < entity.score <= 1
        assert all(a.end <= b.start for a, b in pairwise(p.entities))


def test_scores_are_the_mean_probability_of_the_type(predictor):
    (p,) = predictor.predict(["anna won in paris and annason"])
    corpus = encode([example_from_text(p.text)], predictor.tokenizer, LABELS, 24, 6)
    (out,) = run_model(predictor.runner, corpus)
    chances = torch.tensor(out.word_logits).softmax(-1)
    assert p.entities
    offsets = example_from_text(p.text).offsets
    for entity in p.entities:
        words = [i for i, (start, end) in enumerate(offsets) if entity.start <= start < entity.end]
        tags = [LABELS.tags.index(f"{prefix}-{entity.label}") for prefix in "BI"]
        assert entity.score == pytest.approx(chances[words][:, tags].sum(1).mean().item(), abs=1e-5)


def test_a_task_that_was_never_learned_has_no_answer(model, tokenizer):
    (p,) = Predictor(model, tokenizer, LabelSpace((), ())).predict(["anna"])
    assert (p.label, p.probabilities, p.entities) == (None, None, None)


def test_a_prediction_is_a_row_of_json(predictor):
    (p,) = predictor.predict(
        ["anna \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")], embeddings=True
    )
    row = json.loads(json.dumps(p.to_dict()))
    assert list(row) == ["text", "label", "probabilities", "entities", "embedding"]
    assert len(row["embedding"]) == 32


def test_a_bfloat16_copy_says_nearly_the_same(model, tokenizer):
    exact, rough = (Predictor(model, tokenizer, LABELS, precision) for precision in ("fp32", "bf16"))
    assert rough.runner.model.dtype == torch.bfloat16
    assert model.dtype == torch.float32, "the caller's model stays as it is"
    for a, b in zip(*(each.predict(TEXTS, embeddings=True) for each in (exact, rough))):
        assert a.probabilities == pytest.approx(b.probabilities, abs=0.05)
        np.testing.assert_allclose(a.embedding, b.embedding, atol=0.1)
        assert b.embedding.dtype == np.float32


def test_a_lone_surrogate_is_read_as_one_unknown_character(predictor):
    text = "anna \ud800 won in paris\udfff"
    (said,) = predictor.predict([text], embeddings=True)
    (other,) = predictor.predict(
        [text.replace("\ud800", "\ufffd").replace("\udfff", "\ufffd")], embeddings=True
    )
    assert said.text == text
    assert said.probabilities == other.probabilities
    assert [e[:2] + e[3:] for e in said.entities] == [e[:2] + e[3:] for e in other.entities]
    assert all(text[e.start : e.end] == e.text for e in said.entities)


def test_temperatures_soften_what_is_said_and_change_no_answer(model, tokenizer):
    config = copy.deepcopy(model.config)
    plain = Predictor(model, tokenizer, LABELS).predict(TEXTS)
    warm = Predictor(model, tokenizer, LABELS)
    warm.config = config
    config.temperature_task_a, config.temperature_task_b = 3.0, 5.0
    corpus = encode(list(map(example_from_text, TEXTS)), tokenizer, LABELS, 24, 6)
    (out,) = run_model(warm.runner, corpus)
    chances = torch.tensor(out.sentence_logits / 3).softmax(-1).numpy()
    words = torch.tensor(out.word_logits / 5).softmax(-1).numpy()
    first = 0
    for said, before, row, start in zip(warm.predict(TEXTS), plain, chances, corpus.word_rows):
        assert [e[:4] for e in said.entities] == [e[:4] for e in before.entities]
        assert said.label == before.label
        np.testing.assert_allclose(list(said.probabilities.values()), row, atol=1e-6)
        for entity in said.entities:
            offsets = example_from_text(said.text).offsets
            inside = [start + i for i, (a, _) in enumerate(offsets) if entity.start <= a < entity.end]
            tags = [LABELS.tags.index(f"{prefix}-{entity.label}") for prefix in "BI"]
            assert entity.score == pytest.approx(words[inside][:, tags].sum(1).mean(), abs=1e-6)
            first += 1
    assert first


def test_threads_change_nothing_and_leave_torch_as_it_was(model, tokenizer, monkeypatch):
    corpus = encode(list(map(example_from_text, TEXTS * 5)), tokenizer, LABELS, 24, 6)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    runner = TorchRunner(model)
    monkeypatch.setattr(runner, "batch_tokens", 30)
    found = []
    for workers in (1, 3):
        monkeypatch.setattr(runner, "workers", workers)
        found.append(list(run_model(runner, corpus)))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
    torch.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        for one, other in zip(a[2:], b[2:]):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_embeddings_come_from_an_encoder_without_heads_too(tiny, tokenizer, pooling):
    model = SentenceTransformer.from_pretrained(tiny, pooling=pooling, max_length=40).train()
    vectors = embed(model, tokenizer, TEXTS)
    assert vectors.shape == (len(TEXTS), 32)
    assert model.training, "the mode that it had"
    model.eval()
    for text, vector in zip(TEXTS[:3], vectors):
        ids = torch.tensor([tokenizer.encode(text).ids])
        np.testing.assert_allclose(model(ids)[0].detach(), vector, atol=1e-5)
    for text, vector in zip(TEXTS, vectors):
        np.testing.assert_allclose(embed(model, tokenizer, [text])[0], vector, atol=1e-5)
    assert embed(model, tokenizer, []).shape == (0, 32)


@pytest.mark.parametrize("scheme", ["IO", "BIO"])
def test_words_have_the_tag_of_the_best_sequence_and_its_probability(model, tokenizer, scheme):
    model = copy.deepcopy(model)
    model.config.temperature_task_b = 0.5
    types = ("A", "B") if scheme == "BIO" else ("A", "B", "C", "D")
    predictor = Predictor(model, tokenizer, LabelSpace(("x", "y", "z"), types, scheme))
    examples = [example_from_text(text) for text in ("Anna won in Paris.", "", "the vote " * 40)]
    found = predictor.predict_examples(examples, words=True)
    assert [said._replace(words=None) for said in found] == predictor.predict_examples(examples)
    corpus = encode(examples, tokenizer, predictor.labels, model.config.max_length, model.config.stride)
    logits = np.concatenate([out.word_logits for out in run_model(predictor.runner, corpus)])
    tags = predictor.labels.decode(logits, corpus.word_rows)
    words = [word for said in found for word in said.words]
    assert [word.tag for word in words] == [predictor.labels.tags[tag] for tag in tags]
    chances = torch.tensor(logits / 0.5).softmax(1)[torch.arange(len(tags)), torch.tensor(tags)]
    np.testing.assert_allclose([word.score for word in words], chances, rtol=1e-5)
    for example, said in zip(examples, found):
        assert [(word.start, word.end) for word in said.words] == list(example.offsets)
