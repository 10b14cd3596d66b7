"""transformers.Trainer on this project's model and encoded corpus, as a user of Trainer would run it.

    python -m benchmarks.trainer_run SPEC.json RESULT.json

trains once. train_speed.py and time_to_score.py start it in its own process."""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from benchmarks.comparison import ROOT
from benchmarks.run_observer import Observer
from model import MultiTaskTransformer
from multitask.common.device import choose_device
from multitask.common.shell import run_script
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.data.batching import annotated_windows, collate
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import TASKS
from multitask.encoders.pretrained import load_model
from multitask.evaluation.evaluate import evaluate
from multitask.training.preparation import Prepared, model_config_fields, prepare

WANTED = ("input_ids", "attention_mask", "labels_task_a", "labels_task_b")


class ModelWithLoss(nn.Module):
    """The model with its loss, as Trainer expects it: the sum of both mean cross-entropies."""

    def __init__(self, model: MultiTaskTransformer):
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels_task_a: Tensor, labels_task_b: Tensor
    ) -> dict[str, Tensor]:
        """input_ids, attention_mask and labels_task_b (B, T), labels_task_a (B,) → {"loss": scalar}."""
        a, b = self.model(input_ids, attention_mask)
        losses = (
            functional.cross_entropy(a, labels_task_a),
            functional.cross_entropy(b.flatten(0, 1), labels_task_b.flatten()),
        )
        return {"loss": sum(losses)}


def items(corpus: EncodedCorpus) -> list[dict]:
    """The training windows as a data set for Trainer, which groups them by the length of input_ids."""
    return [
        {"input_ids": corpus.ids[corpus.window_start[v] : corpus.window_end[v]], "window": v}
        for v in annotated_windows(corpus, TASKS)
    ]


class Collator:
    """Items → a batch for ModelWithLoss, padded to the longest. Counts its cells and its tokens."""

    def __init__(self, corpus: EncodedCorpus):
        self.corpus, self.cells, self.tokens = corpus, 0, 0

    def __call__(self, batch: Sequence[dict]) -> dict[str, Tensor]:
        windows = np.array([item["window"] for item in batch])
        tensors = collate(self.corpus, windows)
        self.cells += tensors["input_ids"].numel()
        self.tokens += int(self.corpus.window_lengths[windows].sum())
        return {name: tensors[name] for name in WANTED}


def trainer_model(settings: Settings, prepared: Prepared) -> MultiTaskTransformer:
    """The pretrained encoder with new heads."""
    set_seed(settings.training.seed)
    return load_model(
        MultiTaskTransformer,
        prepared.backbone.folder,
        new_heads=True,
        **model_config_fields(settings, prepared),
    )


def make_trainer(
    model: MultiTaskTransformer,
    corpus: EncodedCorpus,
    settings: Settings,
    folder: str,
    head_rate: float | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **arguments,
) -> Trainer:
    """A Trainer with its defaults except for `arguments`, without logging and progress bars.

    The learning rate, epochs, batch size and seed come from the settings. Nothing is saved unless `arguments`
    has a save_strategy. With `head_rate` the heads are a separate parameter group of Trainer's optimizer."""
    t, cuda = settings.training, choose_device(settings.device).type == "cuda"
    args = TrainingArguments(
        output_dir=folder,
        num_train_epochs=t.num_epochs,
        per_device_train_batch_size=t.batch_size,
        gradient_accumulation_steps=t.gradient_accumulation,
        learning_rate=t.learning_rate,
        seed=t.seed,
        logging_strategy="no",
        report_to=[],
        use_cpu=not cuda,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        **{"save_strategy": "no", **arguments},
    )
    joint = ModelWithLoss(model).to(args.device)
    optimizer = None
    if head_rate is not None:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(args, joint)
        encoder = [parameter for parameter in model.bert.parameters() if parameter.requires_grad]
        heads = [weight for name, weight in model.named_parameters() if not name.startswith("bert.")]
        groups = [{"params": encoder}, {"params": heads, "lr": head_rate}]
        optimizer = kind(groups, weight_decay=args.weight_decay, **options)
    return Trainer(
        model=joint,
        args=args,
        train_dataset=items(corpus),
        data_collator=Collator(corpus),
        callbacks=list(callbacks),
        optimizers=(optimizer, None),
    )


class EpochClock(TrainerCallback):
    """Seconds of each epoch, without start and end of the training."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_epoch_begin(self, *_, **__):
        self.started = time.perf_counter()

    def on_epoch_end(self, *_, **__):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.started)


def run_trainer(spec: dict) -> dict:
    """Train once → the seconds of the epochs, test scores, and the settings observed in the run.

    spec: overrides, attention, head_rate (None: the encoder's rate) and arguments for Trainer."""
    settings: Settings = load_settings(ROOT / "config.yml", spec["overrides"])
    prepared = prepare(settings)
    model = trainer_model(settings, prepared)
    model.freeze(backbone=settings.model.freeze_backbone, layers=settings.model.freeze_layers)
    model.set_attn_implementation(spec["attention"])
    clock = EpochClock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            model,
            prepared.corpora["train"],
            settings,
            folder,
            spec["head_rate"],
            [clock],
            **spec["arguments"],
        )
        observer = Observer(model)
        output = trainer.train()
    collator, args = trainer.data_collator, trainer.args
    facts = observer.facts | {
        "order": args.train_sampling_strategy,
        "padding": f"{1 - collator.tokens / collator.cells:.1%}",
        "clipping": f"{args.max_grad_norm:g}",
        "warm-up (share of the steps)": f"{args.warmup_steps:g}",
    }
    return {
        "seconds": clock.seconds,
        "train_runtime": output.metrics["train_runtime"],
        "test": evaluate(model, prepared.corpora["test"], prepared.labels).headline(),
        "settings": facts,
    }


def main() -> None:
    spec, result = map(Path, sys.argv[1:])
    result.write_text(json.dumps(run_trainer(json.loads(spec.read_text()))))


if __name__ == "__main__":
    run_script(main)
