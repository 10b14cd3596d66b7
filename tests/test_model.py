"""The model's configuration, encoder, embedding and heads."""

import math

import pytest
import torch
from transformers import AutoModel, AutoModelForTokenClassification, BertModel

from model import MultiTaskConfig, MultiTaskTransformer, SentenceTransformer

SIZES = {"num_classes_task_a": 3, "num_labels_task_b": 5}


@pytest.fixture
def model(tiny):
    torch.manual_seed(1)
    return MultiTaskTransformer.from_pretrained(tiny, **SIZES)


@pytest.fixture
def batch():
    torch.manual_seed(2)
    input_ids = torch.randint(5, 90, (3, 7))
    mask = torch.ones_like(input_ids)
    mask[1, 4:] = 0
    return input_ids, mask


def test_the_size_of_the_token_head_is_the_number_of_its_names(tiny):
    assert MultiTaskConfig(num_labels_task_b=4).num_labels == 4
    assert MultiTaskConfig(id2label={0: "O", 1: "A", 2: "B"}).num_labels_task_b == 3
    loaded = MultiTaskConfig.from_pretrained(tiny, **SIZES)
    assert len(loaded.id2label) == len(loaded.label2id) == loaded.num_labels_task_b == 5
    assert MultiTaskConfig(**loaded.to_dict()).num_labels_task_b == 5
    assert loaded.to_dict()["num_labels_task_b"] == 5


def test_temperatures_are_saved_and_default_to_1(tmp_path):
    MultiTaskConfig(temperature_task_a=0.5).save_pretrained(tmp_path)
    saved = MultiTaskConfig.from_pretrained(tmp_path)
    assert (saved.temperature_task_a, saved.temperature_task_b) == (0.5, 1.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_labels_task_b": 4, "id2label": {0: "O"}},
        {"num_classes_task_a": 3, "classes": ["a"]},
        {"pooling": "max"},
        {"temperature_task_a": 0.0},
        {"temperature_task_b": math.inf},
        {"temperature_task_a": math.nan},
    ],
)
def test_contradictory_configurations_are_refused(fields):
    with pytest.raises(ValueError):
        MultiTaskConfig(**fields)


def test_encoder_is_bert(tiny, model, batch):
    input_ids, mask = batch
    bert = BertModel.from_pretrained(tiny).eval()
    expected = bert(input_ids, attention_mask=mask).last_hidden_state
    assert torch.equal(model.eval().encode(input_ids, mask)[mask.bool()], expected[mask.bool()])


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_pass_can_start_above_the_lowest_layers(model, batch, depth):
    input_ids, mask = batch
    model.eval()
    lower = BertModel.from_pretrained(model.name_or_path).eval()
    hidden = lower(input_ids, attention_mask=mask, output_hidden_states=True).hidden_states[depth]
    whole, started = model(input_ids, mask), model(attention_mask=mask, hidden=hidden, depth=depth)
    torch.testing.assert_close(started.sentence_logits, whole.sentence_logits)
    torch.testing.assert_close(started.token_logits[mask.bool()], whole.token_logits[mask.bool()])


def test_padding_changes_nothing(model, batch):
    input_ids, mask = batch
    model.eval()
    alone = model(input_ids[1:2, :4])
    together = model(input_ids, mask)
    torch.testing.assert_close(alone.sentence_logits[0], together.sentence_logits[1])
    torch.testing.assert_close(alone.token_logits[0], together.token_logits[1, :4])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_embedding_is_the_cls_vector_or_the_mean_over_real_tokens(tiny, batch, pooling):
    input_ids, mask = batch
    model = SentenceTransformer.from_pretrained(tiny, pooling=pooling).eval()
    hidden = model.encode(input_ids, mask)
    expected = hidden[1, 0] if pooling == "cls" else hidden[1, :4].mean(0)
    torch.testing.assert_close(model(input_ids, mask)[1], expected)


def test_without_a_mask_all_tokens_are_real(tiny, batch):
    input_ids, mask = batch
    model = MultiTaskTransformer.from_pretrained(tiny, pooling="mean", **SIZES).eval()
    for one, two in zip(model(input_ids), model(input_ids, torch.ones_like(mask))):
        torch.testing.assert_close(one, two)
    hidden = model.encode(input_ids, torch.ones_like(mask))
    torch.testing.assert_close(model.pool(hidden), hidden.mean(1))
    with pytest.raises(ValueError, match="needs input_ids or hidden"):
        model()


def test_sentence_head_reads_the_pooled_vector(tiny, batch):
    input_ids, mask = batch
    model = MultiTaskTransformer.from_pretrained(tiny, pooling="mean", **SIZES).eval()
    pooled = model.pool(model.encode(input_ids, mask), mask)
    torch.testing.assert_close(model(input_ids, mask).sentence_logits, model.sentence_classifier(pooled))


def test_saved_folder_gives_the_same_numbers_here_and_in_transformers(model, batch, tmp_path):
    input_ids, mask = batch
    model.eval().save_pretrained(tmp_path)
    output = model(input_ids, mask)
    again = MultiTaskTransformer.from_pretrained(tmp_path)(input_ids, mask)
    assert torch.equal(again.sentence_logits, output.sentence_logits)
    assert torch.equal(again.token_logits, output.token_logits)
    tagger = AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert torch.equal(tagger(input_ids, attention_mask=mask).logits, output.token_logits)
    encoder = AutoModel.from_pretrained(tmp_path)
    hidden = encoder(input_ids, attention_mask=mask).last_hidden_state
    assert torch.equal(hidden[mask.bool()], model.encode(input_ids, mask)[mask.bool()])
    assert not list(tmp_path.glob("*.bin"))


def test_shapes_at_the_size_of_bert_base():
    with torch.device("meta"):
        model = MultiTaskTransformer(MultiTaskConfig(num_classes_task_a=3, num_labels_task_b=4))
        hidden = torch.empty(2, 9, 768)
    a, b = model.heads(hidden)
    assert (a.shape, b.shape, model.pool(hidden).shape) == ((2, 3), (2, 9, 4), (2, 768))
    assert sum(p.numel() for p in model.bert.parameters()) == 108_891_648
