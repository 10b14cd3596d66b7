"""Every family of encoders: trained, killed, resumed, used, exported, and opened by its neighbours."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from family_folders import LAYERS, make_encoder
from reading import read_corpus
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForTokenClassification, AutoTokenizer, pipeline

import task_5
from families import FAMILIES
from model import MultiTaskTransformer
from multitask.config.schema import LoraSettings, TrainingSettings
from multitask.data.labels import labels_from_config
from multitask.data.tokenization import WordTokenizer
from multitask.data.words import split_texts
from multitask.encoders.lora import add_lora, merge_lora
from multitask.encoders.pretrained import config_of, load_model, load_tokenizer
from multitask.inference.predictor import Predictor
from multitask.training.optimizer import parameter_groups
from token_heads import TOKEN_HEADS

CORPUS = ROOT / "corpus"
SETTINGS = [
    f"--config={ROOT / 'config.yml'}",
    "model.freeze_backbone=false",
    "model.token_head=linear",  # which the family's own classifier opens
    "data.train=train.jsonl",
    f"data.dev={CORPUS / 'dev.jsonl'}",
    "data.test=null",
    "training.num_epochs=2",
    "training.learning_rate=1e-3",
    "training.checkpoint_every=4",
    "device=cpu",
    "output_dir=run",
]
TEXTS = ["Anna won in Paris.", "the vote", "the match, and  the chip (in Paris)", "a b c d e f g " * 12]


@pytest.fixture(scope="module")
def texts():
    return [row.text or " ".join(row.words) for row in read_corpus([str(CORPUS / "train.jsonl")]).examples]


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request, texts, tmp_path_factory):
    return make_encoder(request.param, tmp_path_factory.mktemp(request.param) / "encoder", texts)


def random_model(encoder, token_head="linear", **fields) -> MultiTaskTransformer:
    torch.manual_seed(1)
    labels = {"classes": ["a", "b", "c"], "num_classes_task_a": 3, "tag_scheme": "IO"}
    labels |= {"id2label": {0: "O", 1: "X"}, "label2id": {"O": 0, "X": 1}, "token_head": token_head}
    return load_model(MultiTaskTransformer, encoder, new_heads=True, **labels, **fields).eval()


def batch_of(folder, texts=TEXTS):
    batch = AutoTokenizer.from_pretrained(folder)(texts[:3], padding=True, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


@pytest.fixture(scope="module")
def run(encoder, runs, tmp_path_factory):
    """The folder of two runs of the same settings: "run" goes through, "killed" is killed and resumed."""
    folder = tmp_path_factory.mktemp("runs")
    rows = (CORPUS / "train.jsonl").read_text().splitlines(keepends=True)[::4]
    (folder / "train.jsonl").write_text("".join(rows))
    arguments = [*SETTINGS, f"model.backbone={encoder}"]
    assert (whole := runs(folder, *arguments)).status == 0, whole.err
    half = next(i for i, (_, path) in enumerate(whole.changes, 1) if "checkpoints" in path) + 20
    assert runs(folder, *arguments, "output_dir=killed", kill_at=half).status == -9
    assert (again := runs(folder, "--resume=killed")).status == 0, again.err
    assert "Resuming killed after step" in again.out
    return folder


def test_a_killed_run_ends_with_the_same_bits(run):
    for name in ("model.safetensors", "tokenizer.json"):
        assert (run / "run/model" / name).read_bytes() == (run / "killed/model" / name).read_bytes()


@torch.inference_mode()
def test_a_trained_folder_opens_in_its_neighbours_with_the_same_numbers(run, encoder):
    folder = run / "run/model"
    model = load_model(MultiTaskTransformer, folder).eval()
    ids, mask = batch_of(folder)
    output, inside = model(ids, mask), mask.bool()
    again = MultiTaskTransformer.from_pretrained(folder).eval()
    assert again.config.model_type == config_of(encoder).model_type
    assert torch.equal(again(ids, mask).token_logits, output.token_logits)
    tagger = AutoModelForTokenClassification.from_pretrained(folder).eval()
    assert torch.equal(tagger(ids, attention_mask=mask).logits[inside], output.token_logits[inside])
    hidden = AutoModel.from_pretrained(folder).eval()(ids, attention_mask=mask).last_hidden_state
    assert torch.equal(hidden[inside], model.encode(ids, mask)[inside])
    embeddings = SentenceTransformer(str(folder), device="cpu").encode(TEXTS[:3])
    assert np.array_equal(embeddings, model.pool(model.encode(ids, mask), mask).numpy())
    ner = pipeline("ner", model=str(folder), device="cpu")
    logits = ner.forward(next(ner.preprocess(TEXTS[0], **ner._preprocess_params)))["logits"]
    assert torch.equal(logits, model(*batch_of(folder, TEXTS[:1])).token_logits)


def test_commands_use_a_trained_folder_and_its_export(run, shell):
    folder = run / "run/model"
    assert (ended := shell(task_5, "predict", *TEXTS, "--model", folder)).status == 0, ended.err
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    scored = shell(task_5, "evaluate", CORPUS / "dev.jsonl", "--model", folder, "--json")
    epochs = [json.loads(line) for line in (run / "run/metrics.jsonl").read_text().splitlines()]
    best = max(epoch["dev"]["accuracy"] for epoch in epochs if "dev" in epoch)
    assert json.loads(scored.out)["accuracy"] == pytest.approx(best, abs=0.02)
    for options, close in (((), 1e-4), (("--int8",), 0.1)):
        target = f"exported{len(options)}"
        ended = shell(task_5, "export", target, "--model", folder, "--dev", CORPUS / "dev.jsonl", *options)
        assert ended.status == 0, ended.err
        exported = Predictor.from_pretrained(target).predict(TEXTS)
        for ours, row in zip(exported, rows):
            assert ours.probabilities == pytest.approx(row["probabilities"], abs=close)


@pytest.mark.parametrize("token_head", TOKEN_HEADS)
@torch.inference_mode()
def test_the_layers_above_stored_states_give_the_same_logits(encoder, token_head):
    model = random_model(encoder, token_head)
    ids, mask = batch_of(encoder)
    whole, inside = model(ids, mask), mask.bool()
    for depth in range(LAYERS + 1):
        layers = model.stored_layers(depth)
        stored = torch.stack(model.states(ids, mask, layers=layers), 2)
        part = model(attention_mask=mask, hidden=stored if len(layers) > 1 else stored[:, :, 0], depth=depth)
        assert torch.equal(part.sentence_logits, whole.sentence_logits)
        assert torch.equal(part.token_logits[inside], whole.token_logits[inside])


@pytest.mark.parametrize("token_head", [kind for kind in TOKEN_HEADS if kind != "linear"])
def test_the_familys_own_classifier_refuses_the_other_token_heads(encoder, token_head, tmp_path):
    random_model(encoder, token_head).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatched"):
        AutoModelForTokenClassification.from_pretrained(tmp_path)


@torch.inference_mode()
def test_a_batch_gives_what_each_text_gives_alone(encoder):
    model = random_model(encoder, max_length=20, stride=4)
    predictor = Predictor(model, load_tokenizer(encoder), labels_from_config(model.config), "fp32")
    together = predictor.predict(TEXTS * 8, embeddings=True)
    for text, row in zip(TEXTS * 8, together):
        (alone,) = predictor.predict([text], embeddings=True)
        assert row.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert np.allclose(row.embedding, alone.embedding, atol=1e-5)
        assert [entity.label for entity in row.entities] == [entity.label for entity in alone.entities]


def test_all_of_the_encoder_is_frozen_and_has_its_rate(encoder):
    model = random_model(encoder)
    weights = dict(model.base_model.named_parameters())
    for layers in range(1, LAYERS + 1):
        model.freeze(layers=layers)
        assert model.frozen_depth == layers
    assert not any(weight.requires_grad for weight in weights.values())
    model.freeze()
    settings = TrainingSettings(learning_rate=1e-3, head_learning_rate=0.5, layer_decay=0.5)
    groups = parameter_groups(model, settings)
    rates = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    assert all(rates[id(weight)] in (1e-3, 5e-4, 2.5e-4) for weight in weights.values())
    assert {rates[id(weight)] for weight in weights.values()} == {1e-3, 5e-4, 2.5e-4}


@torch.inference_mode()
def test_adapters_reach_every_named_matrix(encoder):
    model = random_model(encoder)
    ids, mask = batch_of(encoder)
    before = model(ids, mask)
    targets = ("query", "key", "value", "attention_output", "intermediate", "output")
    model.freeze(layers=1)
    add_lora(model, LoraSettings(rank=2, targets=targets))
    assert torch.equal(model(ids, mask).sentence_logits, before.sentence_logits)
    adapted = [name for name, weight in model.named_parameters() if "lora_B" in name and weight.requires_grad]
    paths = {path for names in model.config.family.lora.values() for path in names}
    assert len(adapted) == len(paths) * (LAYERS - 1)
    for name in adapted:
        torch.nn.init.normal_(model.get_parameter(name))
    merged = merge_lora(model)
    assert torch.allclose(merged(ids, mask).token_logits, model(ids, mask).token_logits, atol=1e-4)
    assert not torch.allclose(merged(ids, mask).token_logits, before.token_logits, atol=1e-2)


def test_a_text_has_the_subwords_of_its_own_tokenizer_where_these_stay_in_words(encoder, texts):
    """Compared word by word, but for words that the tokenizer joins with others: a piece crosses a border, or
    goes on from the word before. Where two paths of a Unigram tokenizer are equally probable, their order may
    differ."""
    tokenizer, whole = WordTokenizer(load_tokenizer(encoder)), AutoTokenizer.from_pretrained(encoder)
    compared = joined = 0
    for text in [*TEXTS, *texts]:
        found = split_texts([text])
        ids, first = tokenizer.split(tokenizer.number(found.words, found.spaces(tokenizer.first_has_space)))
        encoded = whole(text, add_special_tokens=False, return_offsets_mapping=True)
        pieces = list(zip(encoded["input_ids"], encoded["offset_mapping"], encoded.tokens()))
        for word, start, end in zip(np.split(ids, first[1:]), found.starts.tolist(), found.ends.tolist()):
            before = start if text[start - 1 : start] != " " else start - 1  # a blank may be a piece
            own = [piece for piece in pieces if piece[1][0] < end and piece[1][1] > before]
            outside = any(b > end or text[a:start].strip() for _, (a, b), _ in own)
            if outside or not own or own[0][2].startswith("##"):
                joined += 1
                continue
            assert sorted(number for number, *_ in own) == sorted(word.tolist()), (text, text[start:end])
            compared += 1
    assert compared > 20 * joined


def test_a_family_that_is_not_known_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    with pytest.raises(ValueError, match="model_type is 'albert'; known are roberta"):
        MultiTaskTransformer.from_pretrained(tmp_path)
