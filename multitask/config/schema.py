"""Every setting of a run: its name, description, limits and default."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from multitask.common.device import device_name
from multitask.data.labels import TASKS


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true or false")
    return value


def _to_sequence(value: object) -> object:
    return () if value is None else (value,) if isinstance(value, str) else value


Whole = Annotated[int, BeforeValidator(_refuse_bool)]
Positive = Annotated[Whole, Field(ge=1)]
Real = Annotated[float, BeforeValidator(_refuse_bool), Field(allow_inf_nan=False)]
Paths = Annotated[tuple[str, ...], BeforeValidator(_to_sequence)]


def _check_class_weights(value: object) -> object:
    if value is None or value == "balanced":
        return value
    if isinstance(value, dict) and value:
        numbers = [w for w in value.values() if isinstance(w, int | float) and not isinstance(w, bool)]
        if len(numbers) == len(value) and all(0 < number < math.inf for number in numbers):
            return value
    raise ValueError("null, balanced or {name: weight, ...} with weights above 0 is expected")


ClassWeights = Annotated[Literal["balanced"] | dict[str, float] | None, BeforeValidator(_check_class_weights)]
Task = Literal["task_a", "task_b"]
LoraTarget = Literal["query", "key", "value", "attention_output", "intermediate", "output"]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True
    )


class LoraSettings(_Section):
    rank: Annotated[Whole, Field(ge=0)] = 0
    """Rank of the adapters. 0: no adapters. Otherwise the encoder's own weights are frozen."""
    alpha: Annotated[Real, Field(gt=0)] = 16.0
    """An adapter's output is multiplied by alpha / rank."""
    dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapters."""
    targets: Annotated[tuple[LoraTarget, ...], BeforeValidator(_to_sequence), Field(min_length=1)] = (
        "query",
        "value",
    )
    """Adapted parts of a layer: query, key, value, attention_output, intermediate, output."""


class ModelSettings(_Section):
    backbone: Annotated[str, Field(min_length=1)] = "bert-base-uncased"
    """The encoder: a hub name, a folder, or an earlier run's model folder (with its heads)."""
    revision: Annotated[str, Field(min_length=1)] | None = None
    """The commit (or a branch or tag) of a backbone from the hub. null: its newest."""
    offline_backbone: Literal["all-MiniLM-L6-v2"] | None = "all-MiniLM-L6-v2"
    """Used, with a warning, if the backbone is neither cached nor downloadable. null: an error instead."""
    num_classes_task_a: Annotated[Whole, Field(ge=1)] | None = 3
    """Number of sentence classes (task A). null: taken from the data."""
    num_labels_task_b: Annotated[Whole, Field(ge=1)] | None = 4
    """Number of word tags (task B), including O: 1 + types with data.tag_scheme IO, 1 + 2 × types with BIO.
    null: taken from the data."""
    keep_layers: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """Start from these layers of the encoder alone: a number of them, evenly spaced, or a list such as
    [2, 4, 6]. null: all."""
    freeze_backbone: bool = True
    """Train the heads only. false: fine-tune the encoder too."""
    freeze_layers: Annotated[Whole, Field(ge=0)] = 0
    """Freeze the embeddings and this many of the lowest layers; needs freeze_backbone: false."""
    freeze_task_a: bool = False
    """Do not train the sentence head."""
    freeze_task_b: bool = False
    """Do not train the token head."""
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """Attention in training: sdpa (torch's fused kernels) or eager (plain matrix multiplications). auto:
    sdpa, but eager in bf16 on a CPU."""
    lora: LoraSettings = LoraSettings()
    """Train low-rank adapters (LoRA) in the encoder instead of its weights; needs freeze_backbone: false and
    requirements-lora.txt. Saved models have them merged in."""
    pooling: Literal["auto", "cls", "mean"] = "auto"
    """The sentence's vector: cls ([CLS]) or mean (over its tokens). auto: that with which the encoder was
    trained, as its folder says (mean for all-MiniLM-L6-v2), else cls."""
    token_head: Literal["auto", "linear", "convolution", "window_crf", "convolution_crf"] = "auto"
    """What a word's tag is computed from. linear: the last layer; the model folder then also opens as
    transformers' AutoModelForTokenClassification. convolution: all layers of a token and of those around it.
    window_crf: the last layer of three tokens, and the tags of the words around. convolution_crf: as
    convolution, and these tags. auto: a starting model's own, else convolution_crf for a frozen backbone and
    window_crf for one that trains."""
    dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.1
    """Dropout in the encoder and before the heads, in the trained parts only."""
    attention_dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    """Dropout of attention weights. BERT's own value is 0.1."""
    max_length: Annotated[Whole, Field(ge=4)] | Literal["auto"] = "auto"
    """Tokens in a window, including [CLS] and [SEP]. A longer text has several windows. auto: a starting
    model's own, else 128, or all positions of a shorter encoder."""
    stride: Annotated[Whole, Field(ge=0)] | Literal["auto"] = "auto"
    """Tokens that two consecutive windows share. auto: a starting model's own, else 32, or a quarter of a
    max_length that leaves no room for 32."""
    new_heads: Annotated[tuple[Task, ...], BeforeValidator(_to_sequence)] = ()
    """Heads that are drawn anew although the starting model has them: task_a, task_b. null: none. Otherwise a
    known head stays; classes and types that it does not know are added to it."""


class DataSettings(_Section):
    train: Annotated[Paths, Field(min_length=1)] = ("corpus/train.jsonl",)
    """A file or a list of files: .jsonl, .conll, .csv, .tsv or a JointBERT folder."""
    dev: Paths = ("corpus/dev.jsonl",)
    """Scored after every epoch; the model with the best score is kept. null: none."""
    test: Paths = ("corpus/test.jsonl",)
    """Scored once, with the best model. null: none."""
    sampling_temperature: Annotated[Real, Field(ge=1)] | None = None
    """Mix the files of train: a file of n windows gets a share proportional to n ** (1 / this) of an epoch.
    Higher: small files get more. null: every window once per epoch."""
    tag_scheme: Literal["IO", "BIO"] = "IO"
    """Tags that the model learns, whatever the files use. BIO can separate adjacent entities."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """If a row can't be used: stop the run, or skip the row and report it."""


class LossWeights(_Section):
    task_a: Annotated[Real, Field(gt=0)] = 1.0
    """Weight of the sentence loss."""
    task_b: Annotated[Real, Field(gt=0)] = 5.0
    """Weight of the token loss, a mean over words: a sentence has many, but one class. With 1, entities lose
    by sharing the encoder with the other task."""


class TrainingSettings(_Section):
    task: Literal["both", "task_a", "task_b"] = "both"
    """Tasks to train: both, task_a or task_b."""
    learning_rate: Annotated[Real, Field(gt=0)] = 2e-5
    """AdamW's learning rate for the encoder."""
    head_learning_rate: Annotated[Real, Field(gt=0)] = 1e-3
    """AdamW's learning rate for the heads."""
    layer_decay: Annotated[Real, Field(gt=0, le=1)] = 1.0
    """Each encoder layer's learning rate is this times that of the layer above it. 1: equal rates."""
    num_epochs: Annotated[Whole, Field(ge=1)] = 10
    """Passes over the training data."""
    batch_size: Annotated[Whole, Field(ge=1)] = 16
    """Sentences in a forward pass."""
    gradient_accumulation: Annotated[Whole, Field(ge=1)] = 1
    """Forward passes per step: a step has batch_size × this many sentences."""
    gradient_checkpointing: bool = False
    """Recompute a layer's activations in the backward pass instead of storing them."""
    loss_weights: LossWeights = LossWeights()
    """The loss of both tasks is the weighted sum of their losses."""
    class_weights: ClassWeights = None
    """Weights of classes and tags in the losses. balanced: each class, and each tag, gets the same share of
    its task's loss. {name: weight, ...}: of classes, entity types and O; others have 1. null: all have 1."""
    label_smoothing: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    """Share of a label's probability that the losses spread over all labels (Szegedy et al. 2016)."""
    loss_weighting: Literal["fixed", "uncertainty", "dwa"] = "fixed"
    """fixed: by loss_weights. uncertainty: the weights are learned (Kendall et al. 2018). dwa: the task whose
    loss fell less in the last epoch gets more weight (Liu et al. 2019)."""
    dwa_temperature: Annotated[Real, Field(gt=0)] = 2.0
    """Temperature of dwa. Higher: more equal weights."""
    gradient_cosine: bool = False
    """Log the cosine similarity of the tasks' gradients in the encoder; costs two more backward passes."""
    weight_decay: Annotated[Real, Field(ge=0)] = 0.01
    """Applies to the weights of linear layers, not to embeddings, norms or biases."""
    warmup: Annotated[Real, Field(ge=0, le=1)] = 0.1
    """Share of the steps in which the learning rate rises; then it falls linearly to 0."""
    max_grad_norm: Annotated[Real, Field(gt=0)] | None = 1.0
    """Gradients with a larger norm are scaled down to this one. null: never."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Of matrix multiplications. auto: bf16 where the device supports it (a CPU with AMX or AVX512-BF16, CUDA
    from compute capability 8.0), else fp32. fp16: with loss scaling, for older GPUs. tf32: fp32 whose factors
    CUDA rounds."""
    cuda_graphs: Literal["auto", False] = "auto"
    """On a GPU, launch a step's work as one recorded CUDA graph: several times as fast for short sentences.
    auto: where that is possible. false: never."""
    cache_features: bool = True
    """Compute the output of frozen layers once, not in every epoch."""
    feature_memory: Annotated[Real, Field(ge=0, le=1)] = 0.25
    """Share of the machine's memory for that output, and for the probabilities of a teacher. What is larger
    goes to cache_dir."""
    occurring_rows: bool = True
    """Train only the word embeddings that occur in data.train; the others would not change."""
    fast_dropout: bool = True
    """On a CPU, draw dropout's random numbers with 16 bits instead of 64."""
    checkpoint_every: Annotated[Whole, Field(ge=1)] | None = 500
    """Steps between two checkpoints; --resume uses the newest. null: only one at the end, and one if a signal
    stops the run."""
    select_by: Literal["auto", "accuracy", "macro_f1", "entity_f1", "exact_match", "loss"] = "auto"
    """Dev score that chooses the best epoch: accuracy, macro_f1 (of classes), entity_f1, exact_match, or loss
    (the lowest). auto: the mean of accuracy and entity_f1. Of equal epochs the earlier one is kept."""
    early_stopping: Annotated[Whole, Field(ge=1)] | None = None
    """Stop after this many epochs without a better dev score. null: never."""
    tracker: Literal["tensorboard", "wandb", "mlflow"] | None = None
    """Also send the metrics to TensorBoard, Weights & Biases or MLflow: tensorboard, wandb, mlflow, each with
    its requirements-NAME.txt. null: none."""
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0
    """Determines the new heads, dropout and the order of the sentences."""


class DistillationSettings(_Section):
    teacher: Annotated[str, Field(min_length=1)] | None = None
    """Learn the probabilities of a teacher too (Hinton et al. 2015): a model folder or an export, or rows, if
    they stand in the rows of data.train. null: learn from labels alone."""
    temperature: Annotated[Real, Field(gt=0)] = 2.0
    """Divides the logits of teacher and student in their comparison. Higher: improbable labels count more."""
    share: Annotated[Real, Field(ge=0, le=1)] = 0.5
    """Share of the teacher in the loss of a text or word; its label has the rest."""


class Settings(_Section):
    """A run's settings. The defaults here apply to settings that config.yml does not name."""

    model: ModelSettings = ModelSettings()
    """The encoder and its heads."""
    data: DataSettings = DataSettings()
    """Files; paths are relative to the working directory."""
    training: TrainingSettings = TrainingSettings()
    """The training loop."""
    distillation: DistillationSettings = DistillationSettings()
    """Learning from a larger model, the teacher."""
    device: Annotated[str, BeforeValidator(device_name)] = "cuda"
    """cuda, cuda:1, mps or cpu; without that GPU, the CPU is used, with a warning. auto: cuda, else mps, else
    cpu."""
    cache_dir: Annotated[str, Field(min_length=1)] | None = "cache"
    """Folder for encoded corpora and frozen features, reused by later runs. null: none."""
    output_dir: Annotated[str, Field(min_length=1)] | None = None
    """The run's folder. null: a new one under runs/, named by the date and time."""


SCORED_TASK = {"accuracy": "task_a", "macro_f1": "task_a", "entity_f1": "task_b"}
"""A value of `training.select_by` → the task that it scores; those that are missing score both."""


def trained_tasks(settings: Settings) -> tuple[str, ...]:
    """The names of the tasks that are trained."""
    return TASKS if settings.training.task == "both" else (settings.training.task,)
