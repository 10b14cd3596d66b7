"""Facts that a comparison needs before its first round, from a process that is not measured.

python -m benchmarks.comparison_facts SPEC.json RESULT.json"""

import json
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import BertConfig, BertModel

from benchmarks.comparison import ROOT
from benchmarks.run_observer import Observer, StopAfterFirstStep
from benchmarks.trainer_run import WANTED, ModelWithLoss, trainer_model
from model import MultiTaskTransformer, SentenceTransformer
from model_config import MultiTaskConfig
from multitask.common.device import choose_device, choose_precision, float32_products
from multitask.common.shell import run_script
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.data.batching import LengthGroupedSampler, annotated_windows, collate
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import TASKS
from multitask.encoders.pretrained import bundled_folder
from multitask.encoders.saving import save_model
from multitask.training.preparation import prepare

ATTENTIONS = ("sdpa", "eager")
_STEPS, _REPEATS = 6, 5


def survey(spec: dict) -> dict:
    """Sizes of encoder and corpus, rates of the machine, and the observed settings of this project's runs.

    spec: overrides of Trainer's runs, `ours` by name, and bert_base: a folder to create, or None."""
    if spec["bert_base"]:
        save_bert_base(Path(spec["bert_base"]))
    settings: Settings = load_settings(ROOT / "config.yml", spec["overrides"])
    device = choose_device(settings.device)
    prepared = prepare(settings)
    corpus, config = prepared.corpora["train"], BertConfig.from_pretrained(prepared.backbone.folder)
    windows = annotated_windows(corpus, TASKS)
    lengths = corpus.window_lengths[windows]
    sizes = (config.hidden_size, config.intermediate_size)
    bf16 = choose_precision("auto", device) == torch.bfloat16
    model = trainer_model(settings, prepared).to(device)
    with torch.device("meta"):
        default_attention = BertModel(config).config._attn_implementation
    return {
        "backbone": "bert-base with random weights" if spec["bert_base"] else prepared.backbone.name,
        "shape": [*sizes, config.num_hidden_layers, *prepared.sizes],
        "work": [len(windows), int(lengths.sum()), int((lengths**2).sum())],
        "rows": len(np.unique(corpus.row_of_window[windows])),
        "gflops": matrix_rates(round(settings.training.batch_size * lengths.mean()), *sizes, device),
        "bf16": bf16,
        "attention": default_attention,
        "attention_seconds": attention_seconds(model, corpus, settings, bf16),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "ours": {name: observed(overrides) for name, overrides in spec["ours"].items()},
    }


def save_bert_base(folder: Path) -> None:
    """Save an encoder with the sizes of bert-base and random weights: good for speed, not for scores."""
    torch.manual_seed(0)
    folder.mkdir()
    save_model(SentenceTransformer(MultiTaskConfig()), bundled_folder(), folder)


def matrix_rates(tokens: int, hidden: int, intermediate: int, device: torch.device) -> dict[str, float]:
    """The best GFLOP/s of the two matrix multiplications of a feed-forward layer, in each precision."""
    rates = {}
    precisions = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if device.type == "cuda":
        precisions["tf32"] = torch.float32
    for name, dtype in precisions.items():
        x, up = (torch.randn(n, hidden, device=device, dtype=dtype) for n in (tokens, intermediate))
        down = torch.randn(hidden, intermediate, device=device, dtype=dtype)

        def products(x=x, up=up, down=down) -> None:
            for _ in range(20):
                functional.linear(functional.linear(x, up), down)

        # the best, not the median: the rate without other load on the machine
        with float32_products(name == "tf32"):
            seconds = min(timed({name: products}, device)[name])
        rates[name] = round(20 * 4 * tokens * hidden * intermediate / seconds / 1e9, 1)
    return rates


def attention_seconds(
    model: MultiTaskTransformer, corpus: EncodedCorpus, settings: Settings, bf16: bool
) -> dict[str, float]:
    """Median seconds of a few forward and backward passes of the tuned Trainer, with each attention."""
    m, t, device = settings.model, settings.training, model.device
    model.freeze(backbone=m.freeze_backbone, layers=m.freeze_layers)
    joint = ModelWithLoss(model).train()
    windows = annotated_windows(corpus, TASKS)
    batches = LengthGroupedSampler(corpus.window_lengths[windows], t.batch_size, t.seed).batches(1)[:_STEPS]
    inputs = [collate(corpus, windows[batch]) for batch in batches]
    inputs = [{name: batch[name].to(device) for name in WANTED} for batch in inputs]

    def passes(name: str) -> Callable[[], None]:
        def run_once() -> None:
            model.set_attn_implementation(name)
            for batch in inputs:
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    loss = joint(**batch)["loss"]
                loss.backward()

        return run_once

    seconds = timed({name: passes(name) for name in ATTENTIONS}, device)
    return {name: statistics.median(values) for name, values in seconds.items()}


def timed(calls: dict[str, Callable[[], None]], device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call in each of _REPEATS rounds, after a warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(_REPEATS + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def observed(overrides: list[str]) -> dict[str, str]:
    """Run task_4.py until its first step → the settings observed there. Exits as task_4.py if it fails."""
    ordered: list[str] = []
    batches = LengthGroupedSampler.batches

    def recorded(sampler: LengthGroupedSampler, *arguments):
        formed = batches(sampler, *arguments)
        lengths = sampler.lengths
        cells = sum(len(batch) * int(lengths[batch].max()) for batch in formed)
        ordered[:] = [type(sampler).__name__, f"{1 - sum(int(lengths[b].sum()) for b in formed) / cells:.1%}"]
        return formed

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["task_4.py", f"--config={ROOT / 'config.yml'}", *overrides, f"output_dir={folder}/run"]
        LengthGroupedSampler.batches = recorded
        observer = Observer(stop=True)
        try:
            runpy.run_path(str(ROOT / "task_4.py"), run_name="__main__")
        except StopAfterFirstStep:
            pass
        finally:
            observer.close()
            LengthGroupedSampler.batches = batches
        settings: Settings = load_settings(Path(folder, "run/config.yml"))
    order, padding = ordered or ("not seen", "not seen")
    clipping = settings.training.max_grad_norm
    return observer.facts | {
        "order": order,
        "padding": padding,
        "clipping": "none" if clipping is None else f"{clipping:g}",
        "warm-up (share of the steps)": f"{settings.training.warmup:g}",
    }


def main() -> None:
    spec, result = map(Path, sys.argv[1:])
    result.write_text(json.dumps(survey(json.loads(spec.read_text()))))


if __name__ == "__main__":
    run_script(main)
