"""A smaller encoder from some layers of a larger one."""

import pytest
import torch
from conftest import ROOT
from family_folders import make_encoder

import task_1
import task_2
import task_4
from families import FAMILIES, part
from model import MultiTaskTransformer, SentenceTransformer
from multitask.common.errors import InputError
from multitask.encoders.layers import chosen_layers
from multitask.encoders.pretrained import load_model

BERT = {"model_type": "bert", "num_hidden_layers": 12}
TEXTS = ["anna won in paris", "the vote and the match", "a chip"] * 5


@pytest.mark.parametrize(
    ("keep", "layers"),
    [
        (None, (*range(1, 13),)),
        (1, (12,)),
        (3, (4, 8, 12)),
        (6, (2, 4, 6, 8, 10, 12)),
        (5, (3, 5, 8, 10, 12)),
        ([1, 2, 7], (1, 2, 7)),
    ],
)
def test_a_number_means_evenly_spaced_layers_with_the_last_one(keep, layers):
    assert chosen_layers(keep, BERT) == layers


@pytest.mark.parametrize("keep", [13, [13], [2, 1], [2, 2]])
def test_layers_that_are_not_there_or_not_in_order_are_refused(keep):
    with pytest.raises(InputError, match=r"model\.keep_layers is "):
        chosen_layers(keep, BERT)


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_student_computes_what_its_layers_do_in_the_whole_encoder(kind, tmp_path):
    folder = make_encoder(kind, tmp_path / kind, TEXTS)
    layer = 1 if kind == "modernbert" else 2
    student = load_model(SentenceTransformer, folder, layers=[layer]).eval()
    whole = load_model(SentenceTransformer, folder).eval()
    del part(whole.base_model, whole.config.family.layers)[2 - layer]  # the other one of two
    whole.config.num_hidden_layers = 1
    ids, mask = torch.randint(5, whole.config.vocab_size, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(student.encode(ids, mask), whole.encode(ids, mask))
    assert student.config.num_hidden_layers == 1


def test_a_run_trains_and_saves_the_smaller_encoder(shell, settings_for):
    ended = shell(task_4, *settings_for, "model.keep_layers=[1, 3]", "model.freeze_backbone=false")
    assert ended.status == 0, ended.err
    saved = load_model(MultiTaskTransformer, "run/model")
    assert saved.config.num_hidden_layers == 2
    with open("run/model/README.md", encoding="utf-8") as card:
        assert "BERT of 2 layers × 32" in card.read()


def test_the_other_tasks_read_the_setting(shell, tiny, put):
    fields = f"model: {{backbone: {tiny}, keep_layers: 2, stride: 8, max_length: 32}}\ndevice: cpu\n"
    config = put("small.yml", fields)
    whole = put("whole.yml", fields.replace("keep_layers: 2, ", ""))
    parameters = []
    for file in (config, whole):
        ended = shell(task_2, "--config", file)
        assert ended.status == 0, ended.err
        parameters.append(ended.out.partition("Parameters: ")[2].split()[0])
    assert parameters[0] != parameters[1]
    embeddings = [shell(task_1, "--config", file).out for file in (config, whole)]
    assert embeddings[0] != embeddings[1]
    assert shell(task_4, f"--config={ROOT / 'config.yml'}", "model.keep_layers=0").status == 2
