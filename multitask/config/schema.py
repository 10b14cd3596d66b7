"""Every setting of a run: its name, meaning, limits and default, in this one place."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from multitask.common.device import device_name
from multitask.data.labels import TASKS


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


def _several(value: Any) -> Any:
    return () if value is None else (value,) if isinstance(value, str) else value


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Paths = Annotated[tuple[str, ...], BeforeValidator(_several)]
LoraTarget = Literal["query", "key", "value", "attention_output", "intermediate", "output"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class LoraSettings(_Section):
    rank: Annotated[Whole, Field(ge=0)] = Field(
        0, description="Rank of the adapters. 0: none. Else the encoder's own weights stay as they are."
    )
    alpha: Annotated[Real, Field(gt=0)] = Field(16.0, description="An adapter's output counts alpha / rank.")
    dropout: Annotated[Real, Field(ge=0, lt=1)] = Field(0.0, description="Dropout before the adapters.")
    targets: Annotated[tuple[LoraTarget, ...], BeforeValidator(_several)] = Field(
        ("query", "value"),
        min_length=1,
        description="Where in a layer: query, key, value, attention_output, intermediate, output.",
    )


class ModelSettings(_Section):
    backbone: str = Field(
        "bert-base-uncased",
        min_length=1,
        description="The encoder: a hub name, a folder, or an earlier run's model folder (its heads go on).",
    )
    offline_backbone: Literal["all-MiniLM-L6-v2"] | None = Field(
        "all-MiniLM-L6-v2",
        description="Used, and said so, where the backbone is neither cached nor can be downloaded. "
        "null: an error instead.",
    )
    num_classes_task_a: Annotated[Whole, Field(ge=1)] | None = Field(
        3, description="Classes of a sentence (task A). null: taken from the data."
    )
    num_labels_task_b: Annotated[Whole, Field(ge=1)] | None = Field(
        4,
        description="Tags of a word (task B), O counted: 1 + types with data.tag_scheme IO, 1 + 2 × types "
        "with BIO. null: taken from the data.",
    )
    freeze_backbone: bool = Field(True, description="Train the heads only. false: fine-tune the encoder too.")
    freeze_layers: Annotated[Whole, Field(ge=0)] = Field(
        0,
        description="Freeze the embeddings and this many of the lowest layers; needs freeze_backbone: false.",
    )
    freeze_task_a: bool = Field(False, description="Leave the sentence head as it is.")
    freeze_task_b: bool = Field(False, description="Leave the token head as it is.")
    attention: Literal["auto", "eager", "sdpa"] = Field(
        "auto",
        description="Attention in training: sdpa, torch's fused one, or eager, plain products. auto: sdpa, "
        "but eager in bf16 on a CPU.",
    )
    lora: LoraSettings = Field(
        LoraSettings(),
        description="Train low-rank adapters (LoRA) in the encoder instead of its weights; "
        "needs freeze_backbone: false and requirements-lora.txt. Saved models have them merged in.",
    )
    pooling: Literal["cls", "mean"] = Field(
        "cls", description="The sentence's vector: [CLS], or the mean over its tokens."
    )
    dropout: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.1, description="Dropout in the encoder and before the heads, in what is trained."
    )
    attention_dropout: Annotated[Real, Field(ge=0, lt=1)] = Field(
        0.0, description="Dropout of attention weights. BERT's own value is 0.1."
    )
    max_length: Annotated[Whole, Field(ge=4)] = Field(
        128,
        description="Tokens of a window, [CLS] and [SEP] counted. A longer text is read in several windows.",
    )
    stride: Annotated[Whole, Field(ge=0)] = Field(
        32, description="Tokens by which two windows of a text overlap."
    )


class DataSettings(_Section):
    train: Paths = Field(
        ("corpus/train.jsonl",),
        min_length=1,
        description="A file or a list of files: .jsonl, .conll, .csv, .tsv or a JointBERT folder.",
    )
    dev: Paths = Field(
        ("corpus/dev.jsonl",),
        description="Scored after every epoch; the best model by it is kept. null: none.",
    )
    test: Paths = Field(
        ("corpus/test.jsonl",), description="Scored once, with the model that is kept. null: none."
    )
    sampling_temperature: Annotated[Real, Field(ge=1)] | None = Field(
        None,
        description="Mix the files of train: one of n windows has a share of n ** (1 / this) in an epoch, so "
        "small files count more. null: every window once an epoch.",
    )
    tag_scheme: Literal["IO", "BIO"] = Field(
        "IO",
        description="Tags that the model learns, whatever the files have. BIO parts neighbours of a type.",
    )
    on_bad_row: Literal["stop", "skip"] = Field(
        "stop", description="What a row that can't be used does: stop the run, or be reported and left out."
    )


class LossWeights(_Section):
    task_a: Annotated[Real, Field(gt=0)] = Field(1.0, description="Factor of the sentence loss.")
    task_b: Annotated[Real, Field(gt=0)] = Field(1.0, description="Factor of the token loss.")


class TrainingSettings(_Section):
    task: Literal["both", "task_a", "task_b"] = Field("both", description="both, task_a or task_b.")
    learning_rate: Annotated[Real, Field(gt=0)] = Field(2e-5, description="AdamW's rate for the encoder.")
    head_learning_rate: Annotated[Real, Field(gt=0)] = Field(1e-3, description="And for the heads.")
    layer_decay: Annotated[Real, Field(gt=0, le=1)] = Field(
        1.0, description="The rate of each encoder layer is this times that of the layer above it. 1: alike."
    )
    num_epochs: Annotated[Whole, Field(ge=1)] = Field(10, description="Passes over the training data.")
    batch_size: Annotated[Whole, Field(ge=1)] = Field(16, description="Sentences in a forward pass.")
    gradient_accumulation: Annotated[Whole, Field(ge=1)] = Field(
        1, description="Forward passes in a step: a step has batch_size × this many sentences."
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Compute a layer's activations again in the backward pass instead of keeping them.",
    )
    loss_weights: LossWeights = Field(
        LossWeights(), description="The loss is the weighted sum of the tasks' losses."
    )
    loss_weighting: Literal["fixed", "uncertainty", "dwa"] = Field(
        "fixed",
        description="fixed: by loss_weights. uncertainty: weights are learned (Kendall et al. 2018). "
        "dwa: the task whose loss fell less in the last epoch weighs more (Liu et al. 2019).",
    )
    dwa_temperature: Annotated[Real, Field(gt=0)] = Field(
        2.0, description="Of dwa: the higher, the more alike the weights."
    )
    gradient_cosine: bool = Field(
        False,
        description="Log the cosine between the tasks' gradients over the encoder; costs a second and a "
        "third backward pass.",
    )
    weight_decay: Annotated[Real, Field(ge=0)] = Field(
        0.01, description="On the weights of linear layers, not on embeddings, norms or biases."
    )
    warmup: Annotated[Real, Field(ge=0, le=1)] = Field(
        0.1, description="Share of the steps in which the rate grows; after that it falls linearly to 0."
    )
    max_grad_norm: Annotated[Real, Field(gt=0)] | None = Field(
        1.0, description="Gradients are scaled down to this norm. null: never."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Of products of matrices. auto: bf16 where the device has it (a CPU with AMX or "
        "AVX512-BF16, CUDA from capability 8.0), else fp32.",
    )
    cache_features: bool = Field(
        True, description="Compute the output of frozen layers once, not in every epoch."
    )
    feature_memory: Annotated[Real, Field(ge=0, le=1)] = Field(
        0.25,
        description="Share of the machine's memory for that output; what is larger goes to cache_dir.",
    )
    occurring_rows: bool = Field(
        True, description="Train only the word embeddings that occur in data.train; no other would move."
    )
    fast_dropout: bool = Field(
        True, description="On the CPU, draw dropout's random numbers with 16 bits instead of 64."
    )
    checkpoint_every: Annotated[Whole, Field(ge=1)] | None = Field(
        500,
        description="Steps between two checkpoints, of which --resume takes the newest. null: none but the "
        "one at the end, and where a signal stops the run.",
    )
    early_stopping: Annotated[Whole, Field(ge=1)] | None = Field(
        None, description="Stop after this many epochs without a better dev score. null: never."
    )
    tracker: Literal["tensorboard"] | None = Field(
        None,
        description="tensorboard: also write the metrics as its event files; needs "
        "requirements-tensorboard.txt. null: none.",
    )
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = Field(
        0, description="New heads, dropout and the order of the sentences depend on it."
    )


class Settings(_Section):
    """A run's settings. Where one is missing from config.yml, the default here holds."""

    model: ModelSettings = Field(ModelSettings(), description="The encoder and its heads.")
    data: DataSettings = Field(
        DataSettings(), description="Files, relative to the folder the command runs in."
    )
    training: TrainingSettings = Field(TrainingSettings(), description="The loop.")
    device: Annotated[str, BeforeValidator(device_name)] = Field(
        "cuda", description="cuda, cuda:1 or cpu. Without CUDA the run goes on on the CPU, and says so."
    )
    cache_dir: str | None = Field(
        "cache",
        min_length=1,
        description="Folder of encoded corpora and frozen features, kept for the next run. null: none.",
    )
    output_dir: str | None = Field(
        None, min_length=1, description="The run's folder. null: a new one under runs/, named by the time."
    )


def trained_tasks(settings: Settings) -> tuple[str, ...]:
    """The tasks whose loss is trained on."""
    return TASKS if settings.training.task == "both" else (settings.training.task,)
