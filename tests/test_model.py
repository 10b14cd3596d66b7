import math

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, AutoModelForTokenClassification, BertModel

from model import MultiTaskConfig, MultiTaskOutput, MultiTaskTransformer, SentenceTransformer, multitask_loss

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


def test_config_keeps_names_and_size_of_the_token_head_together(tiny):
    assert MultiTaskConfig(num_labels_task_b=4).num_labels == 4
    assert MultiTaskConfig(id2label={0: "O", 1: "A", 2: "B"}).num_labels_task_b == 3
    loaded = MultiTaskConfig.from_pretrained(tiny, **SIZES)
    assert len(loaded.id2label) == len(loaded.label2id) == loaded.num_labels_task_b == 5
    assert MultiTaskConfig(**loaded.to_dict()).num_labels_task_b == 5
    assert loaded.to_dict()["num_labels_task_b"] == 5


def test_temperatures_are_saved_and_are_1_where_none_was_fitted(tmp_path):
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
def test_config_that_contradicts_itself_is_refused(fields):
    with pytest.raises(ValueError):
        MultiTaskConfig(**fields)


def test_encoder_is_bert(tiny, model, batch):
    input_ids, mask = batch
    bert = BertModel.from_pretrained(tiny).eval()
    expected = bert(input_ids, attention_mask=mask).last_hidden_state
    assert torch.equal(model.eval().encode(input_ids, mask)[mask.bool()], expected[mask.bool()])


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_the_pass_can_start_above_the_lowest_layers(model, batch, depth):
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


@pytest.mark.parametrize(
    ("choice", "frozen"),
    [
        ({}, []),
        ({"backbone": True}, ["bert."]),
        ({"layers": 2}, ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1"]),
        ({"task_a": True}, ["sentence_classifier"]),
        ({"backbone": True, "task_b": True}, ["bert.", "classifier."]),
    ],
)
def test_freeze_excludes_what_it_names_and_nothing_else(model, choice, frozen):
    model.freeze(backbone=True, task_a=True)  # an earlier choice must leave no trace
    model.freeze(**choice)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != any(name.startswith(prefix) for prefix in frozen), name


def test_a_frozen_part_runs_without_dropout_in_training(model, batch):
    model.train()
    model.freeze(backbone=True)
    assert torch.equal(model.encode(*batch), model.encode(*batch))
    assert not torch.equal(model(*batch).token_logits, model(*batch).token_logits), (
        "the heads train with dropout"
    )
    model.freeze(backbone=True, task_a=True)
    assert torch.equal(model(*batch).sentence_logits, model(*batch).sentence_logits)
    model.freeze()
    assert not torch.equal(model.encode(*batch), model.encode(*batch))


def test_freezing_more_layers_than_there_are_is_refused(model):
    with pytest.raises(ValueError, match="4 layers.*has 3"):
        model.freeze(layers=4)


def gradients(model, batch, seed=5) -> dict[str, torch.Tensor]:
    """Of a step with dropout in training, and its loss."""
    model.train()
    model.zero_grad()
    torch.manual_seed(seed)
    loss = sum(logits.square().sum() for logits in model(*batch))
    loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **grads}


@pytest.mark.parametrize("layers", [0, 2])
def test_recomputed_activations_give_the_same_gradients_and_run_only_what_trains_twice(model, batch, layers):
    model.freeze(layers=layers)
    kept = gradients(model, batch)
    assert not torch.equal(gradients(model, batch, seed=6)["loss"], kept["loss"]), "dropout is at work"
    model.recompute_activations()
    runs = [0, 0, 0]
    for number, layer in enumerate(model.bert.encoder.layer):

        def count(*_, number=number):
            runs[number] += 1

        # transformers checkpoints a layer's forward inside its hooks, so a part of the layer is watched
        layer.intermediate.register_forward_hook(count)
    recomputed = gradients(model, batch)
    assert runs == [1] * layers + [2] * (3 - layers)
    assert recomputed.keys() == kept.keys()
    for name, value in kept.items():
        assert torch.equal(recomputed[name], value), name
    model.eval()
    model(*batch)
    assert runs == [2] * layers + [3] * (3 - layers), "nothing is recomputed outside training"


def test_recomputing_carries_no_gradient_through_frozen_layers(model, batch):
    model.freeze(layers=2)
    model.recompute_activations()
    needs_gradient = []
    model.bert.encoder.layer[1].register_forward_hook(lambda *a: needs_gradient.append(a[2].requires_grad))
    model.train()(*batch)
    assert needs_gradient == [False]


def test_reset_renews_one_head_only(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset(task_b=True)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight"}


def random_output(B=4, T=6, C=3, K=5) -> MultiTaskOutput:
    torch.manual_seed(3)
    return MultiTaskOutput(torch.randn(B, C, requires_grad=True), torch.randn(B, T, K, requires_grad=True))


def test_loss_is_the_sum_over_labelled_items_by_the_count_given():
    output = random_output()
    a = torch.tensor([0, -100, 2, 1])
    b = torch.randint(0, 5, (4, 6))
    b[2], b[0, 3:] = -100, -100
    weights = torch.tensor([1.0, 1.0, 0.5, 1.0])
    loss_a, loss_b = multitask_loss(output, a, b, 5.0, 30.0, weights)
    by_hand = [functional.cross_entropy(output.sentence_logits[i], a[i]) * weights[i] for i in (0, 2, 3)]
    torch.testing.assert_close(loss_a, sum(by_hand) / 5)
    kept = b != -100
    torch.testing.assert_close(
        loss_b, functional.cross_entropy(output.token_logits[kept], b[kept], reduction="sum") / 30
    )


def test_micro_batches_add_up_to_the_whole_batch():
    output, a, b = random_output(), torch.tensor([0, -100, 2, 1]), torch.randint(0, 5, (4, 6))
    whole = multitask_loss(output, a, b, 3, 24)
    parts = [
        multitask_loss(
            MultiTaskOutput(output[0][i : i + 2], output[1][i : i + 2]), a[i : i + 2], b[i : i + 2], 3, 24
        )
        for i in (0, 2)
    ]
    for task in (0, 1):
        torch.testing.assert_close(parts[0][task] + parts[1][task], whole[task])


@pytest.mark.parametrize("count", [0, 7])
def test_a_batch_without_labels_adds_exactly_nothing(count):
    output = random_output()
    nothing = multitask_loss(output, torch.full((4,), -100), torch.full((4, 6), -100), count, count)
    assert [loss.item() for loss in nothing] == [0.0, 0.0]
    sum(nothing).backward()
    assert not output.sentence_logits.grad.any()
    assert not output.token_logits.grad.any()


def test_shapes_at_the_size_of_bert_base():
    with torch.device("meta"):
        model = MultiTaskTransformer(MultiTaskConfig(num_classes_task_a=3, num_labels_task_b=4))
        hidden = torch.empty(2, 9, 768)
    a, b = model.heads(hidden)
    assert (a.shape, b.shape, model.pool(hidden).shape) == ((2, 3), (2, 9, 4), (2, 768))
    assert sum(p.numel() for p in model.bert.parameters()) == 108_891_648
