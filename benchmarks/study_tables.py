"""The tables of the studies in task_3.md and docs/labelling.md, made from their records for write_up.py."""

from statistics import fmean

from benchmarks import audit, epochs, freezing, joint, near_duplicates, pooling, search, suggest, token_heads
from benchmarks.names import JOINT, TWO
from benchmarks.records import Results
from benchmarks.tables import figure, markdown, scores

CORPORA = {"EWT": "uner_ewt", "SNIPS": "snips"}


def of(results: Results, study: str) -> dict[str, dict]:
    """Corpus → the record of a study."""
    return {name: results[f"{study}_{file}"] for name, file in CORPORA.items()}


def what_to_freeze(results: Results) -> str:
    """Scores and CPU seconds of each choice, on both corpora."""
    records = of(results, "freezing")
    head = ["frozen", f"trainable ({next(iter(records))})"]
    for corpus in records:
        head += [f"{corpus}: task A accuracy", "task B F1", "CPU s"]
    rows = [head]
    for name, first in next(iter(records.values()))["results"].items():
        rows.append([name, f"{first['trainable']:,}"])
        for record in records.values():
            r = record["results"][name]
            seconds = f"{fmean(r['cpu_seconds']):,.0f}" if r["epochs"] else "–"
            rows[-1] += [scores(r["accuracy"]), scores(r["entity_f1"]), seconds]
    return markdown(rows)


def freezing_corpus(results: Results) -> str:
    """The same for corpus/, with all costs."""
    return freezing.table(results["freezing_corpus"])


def by_epochs(results: Results, study: str = "epochs") -> str:
    """Scores of one model and of two by the epochs of training."""
    return _stacked({name: epochs.curves_rows(record) for name, record in of(results, study).items()})


def one_or_two(results: Results, study: str = "epochs") -> str:
    """The differences between one model and two models, with intervals."""
    return _stacked({name: epochs.differences_rows(record) for name, record in of(results, study).items()})


def corpus_by_epochs(results: Results) -> str:
    """The same as `by_epochs` for corpus/, at two rates."""
    rates = {"1e-4, heads 1e-3": "epochs_corpus", "2e-4, heads 2e-3": "epochs_corpus_higher_rate"}
    return _stacked({rate: epochs.curves_rows(results[name]) for rate, name in rates.items()}, corner="rates")


def costs(results: Results) -> str:
    """Time and memory of training and prediction, for one model and for two."""
    rows = [["", "", "training CPU s", "peak MiB", "answers/s", "MiB to answer"]]
    for corpus, record in of(results, "joint").items():
        for name in (JOINT, TWO):
            r = record["results"]["kinds"][name]
            rows.append([corpus, name, f"{fmean(r['cpu_seconds']):,.0f}", f"{fmean(r['peak_mib']):,.0f}"])
            answers = r["answering"] or {}
            rows[-1] += [figure(answers.get(key), ",.0f") for key in ("rows_per_second", "peak_mib")]
    return markdown(rows, left=2)


def weightings(results: Results) -> str:
    """Scores by loss weights, on both corpora."""
    records = of(results, "epochs")
    return _stacked({name: epochs.weightings_rows(record) for name, record in records.items()})


def cosines(results: Results) -> str:
    """The mean cosine between the tasks' gradients, by epoch."""
    by_corpus = {name: record["results"]["gradient_cosine"] for name, record in of(results, "joint").items()}
    head = ["epoch", *map(str, range(1, 1 + max(map(len, by_corpus.values()))))]
    return markdown(
        [head, *([name, *(f"{cosine:+.3f}" for cosine in row)] for name, row in by_corpus.items())]
    )


def curves(results: Results) -> str:
    """Scores by the number of training sentences."""
    return _stacked({name: joint.curves_rows(record) for name, record in of(results, "joint").items()})


def poolings(results: Results) -> str:
    """[CLS] and mean pooling: scores and similarity within classes."""
    tables = {name: pooling.rows_of(record) for name, record in of(results, "pooling").items()}
    return _stacked(tables, left=3)


def tag_heads(results: Results) -> str:
    """Scores and CPU seconds of each kind of token head, on three corpora."""
    records = of(results, "token_heads") | {"corpus/": results["token_heads_corpus"]}
    return _stacked({name: token_heads.rows_of(record) for name, record in records.items()}, left=3)


def searches(results: Results) -> str:
    """What a search for settings had found after parts of its time, on both corpora."""
    return _stacked({name: search.found_rows(record) for name, record in of(results, "search").items()})


def searched_settings(results: Results) -> str:
    """The settings that it began with, and those of the best trial."""
    records = of(results, "search")
    return _stacked({name: search.settings_rows(record) for name, record in records.items()})


def searches_tested(results: Results) -> str:
    """Test scores of these settings."""
    return _stacked({name: search.test_rows(record) for name, record in of(results, "search").items()})


def texts_to_label(results: Results) -> str:
    """Scores by the order in which texts are labelled, on dev of both corpora."""
    return suggest.table(_named(of(results, "suggest")))


def texts_to_label_test(results: Results) -> str:
    """The same on test, for what task_5.py suggest offers."""
    return suggest.table(_named(of(results, "suggest_test")))


def planted_errors(results: Results) -> str:
    """Precision and recall of the rules by which labels look wrong."""
    return audit.table(_named({"corpus/": results["audit_corpus"]} | of(results, "audit")))


def near_duplicate_texts(results: Results) -> str:
    """The share of edited sentences that is found at each cosine."""
    record = results["near_duplicates"]
    names = {file: name for name, file in CORPORA.items()} | {"corpus": "corpus/"}
    found = {names[corpus]: seeds for corpus, seeds in record["found"].items()}
    return near_duplicates.table(record | {"found": found})


def _named(records: dict[str, dict]) -> list[dict]:
    """The records, each with its name as that of its corpus."""
    return [record | {"corpus": name} for name, record in records.items()]


def _stacked(tables: dict[str, list[list[str]]], left: int = 2, corner: str = "") -> str:
    """One table from tables with the same head; each row begins with the name of its table."""
    head = next(iter(tables.values()))[0]
    rows = [[name, *row] for name, (_, *table) in tables.items() for row in table]
    return markdown([[corner, *head], *rows], left=left)
