"""The model's configuration, encoder, embedding and heads."""

import math

import pytest
import torch
from torch.nn.functional import gelu
from transformers import AutoModel, AutoModelForTokenClassification, BertModel, pipeline

from model import MultiTaskTransformer, SentenceTransformer
from model_config import MultiTaskConfig
from token_heads import TOKEN_HEADS, TokenConvolution

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
        {"token_head": "lstm"},
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


@pytest.fixture
def convolution(tiny):
    torch.manual_seed(1)
    model = MultiTaskTransformer.from_pretrained(tiny, token_head="convolution", **SIZES).eval()
    for weight in model.token_convolution.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


@torch.inference_mode()
def test_a_convolution_reads_all_layers_of_a_token_and_of_those_around_it(tiny, convolution, batch):
    input_ids, mask = batch
    oracle = BertModel.from_pretrained(tiny).eval()
    states = oracle(input_ids, mask, output_hidden_states=True).hidden_states
    head, logits = convolution.token_convolution, convolution(input_ids, mask).token_logits

    def around(vectors: list[torch.Tensor], place: int) -> torch.Tensor:
        places = range(place - 2, place + 3)
        inside = [vectors[i] if 0 <= i < len(vectors) else torch.zeros(head.size) for i in places]
        return torch.cat(inside)

    for row, length in enumerate(mask.sum(1).tolist()):
        layers = [torch.cat([hidden[row, place] for hidden in states]) for place in range(length)]
        low = [gelu(head.projection(token)) for token in layers]
        middle = [head.first(around(low, place)) for place in range(length)]
        active = [gelu(vector) for vector in middle]
        for place in range(length):
            top = gelu(middle[place] + head.second(around(active, place)))
            torch.testing.assert_close(logits[row, place], convolution.classifier(top))


@torch.inference_mode()
def test_a_window_reads_the_last_layer_of_three_tokens(tiny, batch):
    input_ids, mask = batch
    model = MultiTaskTransformer.from_pretrained(tiny, token_head="window_crf", **SIZES).eval()
    torch.nn.init.normal_(model.classifier.weight)
    last, logits = model.encode(input_ids, mask), model(input_ids, mask).token_logits
    nothing = torch.zeros(last.shape[-1])
    for row, length in enumerate(mask.sum(1).tolist()):
        tokens = [nothing, *last[row, :length], nothing]
        for place in range(length):
            expected = model.classifier(torch.cat(tokens[place : place + 3]))
            torch.testing.assert_close(logits[row, place], expected)


@pytest.mark.parametrize("depth", range(4))
@torch.inference_mode()
def test_stored_layers_take_the_place_of_those_below(convolution, batch, depth):
    input_ids, mask = batch
    states = convolution.states(input_ids, mask)
    assert torch.equal(states[-1], convolution.encode(input_ids, mask))
    stored = convolution.states(input_ids, mask, layers=convolution.stored_layers(depth))
    assert len(stored) == depth + 1
    from_stored = convolution(attention_mask=mask, hidden=torch.stack(stored, 2), depth=depth)
    for one, two in zip(from_stored, convolution(input_ids, mask)):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match="the heads read 4 layers; 1 are given"):
        convolution.heads(states[-1])


@pytest.mark.parametrize("kind", [kind for kind in TOKEN_HEADS if kind != "linear"])
@torch.inference_mode()
def test_a_folder_with_another_head_opens_with_the_right_numbers_or_not_at_all(tiny, batch, tmp_path, kind):
    input_ids, mask = batch
    model = MultiTaskTransformer.from_pretrained(tiny, token_head=kind, **SIZES).eval()
    if model.transitions:
        torch.nn.init.normal_(model.transitions.weight)
    model.save_pretrained(tmp_path)
    again = MultiTaskTransformer.from_pretrained(tmp_path).eval()
    for one, two in zip(again(input_ids, mask), model(input_ids, mask)):
        assert torch.equal(one, two)
    assert not model.transitions or torch.equal(again.transitions(), model.transitions())
    hidden = AutoModel.from_pretrained(tmp_path).eval()(input_ids, attention_mask=mask).last_hidden_state
    assert torch.equal(hidden[mask.bool()], model.encode(input_ids, mask)[mask.bool()])
    with pytest.raises(RuntimeError, match="mismatched"):
        AutoModelForTokenClassification.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Could not load model"):
        pipeline("ner", model=str(tmp_path))


@pytest.mark.parametrize("size", [2, 3, 48, 768])
def test_a_convolution_is_never_as_wide_as_the_encoder(size):
    # then AutoModelForTokenClassification would take its last layer for a head of its own
    assert 1 <= TokenConvolution(2, size, 0.1).size < size


def test_shapes_at_the_size_of_bert_base():
    with torch.device("meta"):
        model = MultiTaskTransformer(MultiTaskConfig(num_classes_task_a=3, num_labels_task_b=4))
        hidden = torch.empty(2, 9, 768)
    a, b = model.heads(hidden)
    assert (a.shape, b.shape, model.pool(hidden).shape) == ((2, 3), (2, 9, 4), (2, 768))
    assert sum(p.numel() for p in model.bert.parameters()) == 108_891_648
