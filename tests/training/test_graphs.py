"""Steps as CUDA graphs train the same model as plain steps. Without a GPU, padded steps run plainly."""

from functools import partial

import numpy as np
import pytest
import torch
from alike import ALIKE, assert_alike, result
from examples import EXAMPLES, LABELS
from resuming import SETTINGS, killed_everywhere

import task_4
from multitask.data.batching import collate
from multitask.data.corpus import encode
from multitask.data.labels import TASKS, UNLABELLED
from multitask.speedups.device_corpus import FILLER, DeviceCorpus, padded_length
from multitask.speedups.graph_cache import CaptureError, GraphCache
from multitask.speedups.graphed_step import GraphedStep
from multitask.speedups.host_corpus import HostCorpus
from multitask.training.graphs import graphed_step

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, NO_GPU])]
FINE_TUNED = ["model.freeze_backbone=false", "training.learning_rate=1e-3"]


@pytest.fixture
def corpus(tokenizer):
    return encode(EXAMPLES, tokenizer, LABELS, 10, 3)


@pytest.fixture(params=DEVICES)
def train(request, train_run, monkeypatch):
    """Train on a device, with graphs or without → the run's results."""

    def start(name, graphs, *settings):
        steps, step = [], GraphedStep.step

        def use(trainer, loss):
            trainer.graphs = graphed_step(trainer, loss) if graphs else None

        monkeypatch.setattr(task_4, "use_graphs", use)
        monkeypatch.setattr(GraphedStep, "step", lambda self: (steps.append(1), step(self)))
        try:
            return train_run(name, *settings, f"device={request.param}", "training.precision=fp32")
        finally:
            monkeypatch.setattr(GraphedStep, "step", step)
            assert bool(steps) == graphs

    return start


@pytest.mark.parametrize(
    "settings",
    [
        FINE_TUNED,
        ["training.task=task_b", *FINE_TUNED],
        ["model.freeze_backbone=true"],
        ["model.freeze_layers=2", *FINE_TUNED, "training.layer_decay=0.5"],
        [*FINE_TUNED, "training.loss_weighting=uncertainty", "model.max_length=8", "model.stride=2"],
        [*FINE_TUNED, "training.class_weights=balanced", "training.label_smoothing=0.1"],
        [*FINE_TUNED, "training.batch_size=3", "training.gradient_accumulation=2", "model.pooling=mean"],
    ],
    ids=["fine-tuned", "one task", "heads", "upper layers", "windows", "class weights", "accumulated"],
)
def test_graphs_train_the_same_model(train, settings):
    assert_alike(train("graphs", True, *ALIKE, *settings), train("plain", False, *ALIKE, *settings))


@pytest.mark.parametrize("room", [1 << 40, 0], ids=["on the device", "on the host"])
@pytest.mark.parametrize(
    "settings",
    [FINE_TUNED, ["training.task=task_b", "distillation.share=1", "model.max_length=8", "model.stride=2"]],
)
def test_graphs_train_the_same_student(train, trained, monkeypatch, room, settings):
    common = [*ALIKE, *settings, f"distillation.teacher={trained}"]
    plain = train("plain", False, *common)
    monkeypatch.setitem(globals(), "graphed_step", partial(graphed_step, room=room))
    assert_alike(train("graphs", True, *common), plain)


@pytest.mark.parametrize("tasks", [TASKS, ("task_a",), ("task_b",)])
def test_the_device_forms_the_batches_of_the_host(corpus, tasks):
    on_device = DeviceCorpus(corpus, tasks, torch.device("cpu"))
    windows = np.random.default_rng(0).permutation(len(corpus.window_start))
    expected = collate(corpus, windows)
    for task in set(TASKS) - set(tasks):
        expected[f"labels_{task}"].fill_(UNLABELLED)
    length, longest = expected["input_ids"].shape[1], 40
    batch = on_device.collate(torch.from_numpy(windows), longest)
    assert batch.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(batch[name][:, :length] if tensor.dim() == 2 else batch[name], tensor), name
    assert batch["attention_mask"][:, length:].sum() == 0
    assert set(batch["input_ids"][:, length:].unique().tolist()) <= {corpus.special[2]}
    assert set(batch["labels_task_b"][:, length:].unique().tolist()) <= {UNLABELLED}


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("tasks", [TASKS, ("task_b",)])
def test_batches_that_wait_on_the_host_are_those_of_the_device(corpus, tasks, ahead):
    cpu = torch.device("cpu")
    windows = np.random.default_rng(0).permutation(len(corpus.window_start))[:5]
    batches = []
    for source in (DeviceCorpus(corpus, tasks, cpu), HostCorpus(corpus, tasks, cpu)):
        inputs = source.inputs(7, 16)
        if ahead:
            source.prefetch(windows, 7, 16)
        source.fill(inputs, windows, 7, 16)
        batches.append(source.batch(inputs, 16))
        source.close()
    first, second = batches
    assert first.keys() == second.keys()
    first["weights_task_a"][5:] = 1  # of no effect: these rows have no labels
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("frozen", ["true", "false"])
def test_a_corpus_on_the_host_trains_the_same_model(train, monkeypatch, frozen):
    settings = [*ALIKE, "training.learning_rate=1e-3", f"model.freeze_backbone={frozen}"]
    plain = train("plain", False, *settings)
    monkeypatch.setitem(globals(), "graphed_step", partial(graphed_step, room=0))
    forms, fill = [], HostCorpus.fill
    monkeypatch.setattr(
        HostCorpus, "fill", lambda self, *batch: (forms.append(len(self.ahead)), fill(self, *batch))
    )
    assert_alike(train("host", True, *settings), plain)
    assert forms and any(forms), "batches are formed ahead"


def test_a_filler_is_a_blank_row_without_labels(corpus):
    on_device = DeviceCorpus(corpus, TASKS, torch.device("cpu"))
    batch = on_device.collate(torch.tensor([FILLER, 0]), 8)
    cls, sep, pad = corpus.special
    assert batch["input_ids"][0].tolist() == [cls, sep, *[pad] * 6]
    assert batch["attention_mask"][0].tolist() == [1, 1, *[0] * 6]
    assert batch["labels_task_a"][0] == UNLABELLED
    assert set(batch["labels_task_b"][0].tolist()) == {UNLABELLED}


def test_batches_have_few_lengths_and_little_padding():
    lengths = [padded_length(length, 512) for length in range(1, 513)]
    assert len(set(lengths)) == 20
    assert all(length <= padded < max(length + 8, 1.25 * length) for length, padded in enumerate(lengths, 1))
    assert padded_length(498, 500) == padded_length(500, 500) == 500


def test_dropout_differs_from_step_to_step_and_not_from_run_to_run(train):
    settings = ["training.num_epochs=2", *FINE_TUNED, "model.dropout=0.3"]
    (rows, first), (_, second) = (train(name, True, *settings) for name in ("one", "two"))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    assert_differs(first, train("none", True, *settings, "model.dropout=0")[1])


def assert_differs(first, second):
    assert any(not torch.equal(weight, second[name]) for name, weight in first.items())


def test_micro_batches_become_smaller_where_memory_is_short(train, monkeypatch):
    settings = [*ALIKE, *FINE_TUNED]
    small = train("small", True, *settings, "training.batch_size=2", "training.gradient_accumulation=4")
    real = task_4.loss_of

    def scarce(trainer, batch, counts, share):
        if len(batch["attention_mask"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(trainer, batch, counts, share)

    monkeypatch.setattr(task_4, "loss_of", scarce)
    large = train("large", True, *settings, "training.batch_size=8")
    assert_alike(small, large)


def test_what_cuda_cannot_record_runs_plainly(train_run, shell, settings_for, monkeypatch, tmp_path):
    settings = [*ALIKE, *FINE_TUNED, "training.gradient_accumulation=2"]
    plain = train_run("plain", *settings)
    get, asked = GraphCache.get, []

    def refuse(self, key, work, warm_up):
        asked.append(key)
        if len(asked) == 4:
            raise CaptureError("operation not permitted when stream is capturing")
        return get(self, key, work, warm_up)

    monkeypatch.setattr(GraphCache, "get", refuse)
    monkeypatch.setattr(
        task_4, "use_graphs", lambda trainer, loss: setattr(trainer, "graphs", graphed_step(trainer, loss))
    )
    ended = shell(task_4, *settings_for, *settings, "output_dir=refused")
    assert ended.status == 0
    assert ended.err.count("training continues without CUDA graphs: operation not permitted") == 1
    assert len(asked) == 4
    assert_alike(plain, result(tmp_path / "refused"))


def test_a_step_that_is_not_finite_is_refused_in_a_graph(shell, settings_for, monkeypatch):
    monkeypatch.setattr(
        task_4, "use_graphs", lambda trainer, loss: setattr(trainer, "graphs", graphed_step(trainer, loss))
    )
    words = [*FINE_TUNED, "training.learning_rate=1e30", "training.max_grad_norm=null", "training.warmup=0"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ended = shell(task_4, *settings_for, *words, f"device={device}", "training.precision=fp32")
    assert ended.status == 2
    assert "step 2: the loss or a gradient is not finite; the step was skipped" in ended.err


@pytest.mark.cuda
@NO_GPU
def test_a_run_on_a_gpu_that_was_killed_resumes_to_the_same_bits(runs, fresh):
    def ten(last):
        return sorted({1 + (last - 1) * point // 9 for point in range(10)})

    killed_everywhere(runs, fresh, [*SETTINGS, "device=cuda"], ten)
