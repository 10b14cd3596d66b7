"""Every setting of a run: its name, meaning, limits and default, in this one place."""

import re
import textwrap
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from multitask import yaml_input


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


def device_name(value: Any) -> str:
    """The name of a device, as given. Raises ValueError for any other."""
    if not isinstance(value, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        raise ValueError("a device is cpu, cuda or cuda:1")
    return value


def _paths(value: Any) -> Any:
    return () if value is None else (value,) if isinstance(value, str) else value


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Paths = Annotated[tuple[str, ...], BeforeValidator(_paths)]


TASKS = ("task_a", "task_b")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


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
    num_epochs: Annotated[Whole, Field(ge=1)] = Field(10, description="Passes over the training data.")
    batch_size: Annotated[Whole, Field(ge=1)] = Field(16, description="Sentences in a forward pass.")
    gradient_accumulation: Annotated[Whole, Field(ge=1)] = Field(
        1, description="Forward passes in a step: a step has batch_size × this many sentences."
    )
    loss_weights: LossWeights = Field(
        LossWeights(), description="The loss is the weighted sum of the tasks' losses."
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
    early_stopping: Annotated[Whole, Field(ge=1)] | None = Field(
        None, description="Stop after this many epochs without a better dev score. null: never."
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
    output_dir: str | None = Field(
        None, min_length=1, description="The run's folder. null: a new one under runs/, named by the time."
    )
    cache_dir: Annotated[str, Field(min_length=1)] | None = Field(
        "cache",
        description="Encoded corpora and frozen features that are kept for the next run; "
        "null: nothing is kept.",
    )


def keys(section: type[BaseModel] = Settings, prefix: str = "") -> dict[str, Any]:
    """Every key, dotted, in order → its pydantic field; a section's own key stands before its keys."""
    found = {}
    for name, field in section.model_fields.items():
        found[prefix + name] = field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= keys(field.annotation, f"{prefix}{name}.")
    return found


def help_text() -> str:
    """A line for every key: its default and meaning."""
    lines = []
    for key, field in keys().items():
        default = "" if isinstance(field.default, BaseModel) else f" = {yaml_input.scalar(field.default)}"
        lines.append(f"  {key}{default}\n      {field.description}")
    return "\n".join(lines)


def render(settings: Settings) -> str:
    """Settings → the text of a config.yml that gives the same, each key with its comment."""
    lines = []
    for key, field in keys().items():
        *sections, name = key.split(".")
        value: Any = settings
        for part in key.split("."):
            value = getattr(value, part)
        indent = "  " * len(sections)
        is_section = isinstance(value, BaseModel)
        lines += [""] if not sections else []
        lines += [f"{indent}# {line}" for line in textwrap.wrap(field.description, 100)]
        lines += [f"{indent}{name}:" if is_section else f"{indent}{name}: {yaml_input.scalar(value)}"]
    return "\n".join(lines[1:]) + "\n"


def trained_tasks(settings: Settings) -> tuple[str, ...]:
    """The tasks whose loss is trained on."""
    return TASKS if settings.training.task == "both" else (settings.training.task,)
