"""How often a text has other subwords than its encoder's own tokenizer gives the whole text.

    python benchmarks/subwords.py --corpus FOLDER... [--output FILE.json]

A tokenizer of each kind is trained on the texts of train, with 8,000 entries, and put together as the
published ones of its family are; MiniLM's is the published one of BERT, uncased. Words are split one by one,
and a tokenizer may join what stands in several words of this project. Rows of tokens become raw text by
multitask/data/detokenizer.py. The last line is JSON."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from family_folders import make_tokenizer
from tokenizers import Tokenizer

from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import markdown
from multitask.common.shell import run_script
from multitask.data.examples import raw_example
from multitask.data.readers import ReadResult, iter_examples
from multitask.data.tokenization import WordTokenizer
from multitask.data.words import split_texts
from multitask.encoders.pretrained import bundled_folder, load_tokenizer

SIZE = 8000
PUBLISHED = "MiniLM (WordPiece, published)"
KINDS = {
    "bert": "BERT, ELECTRA, DistilBERT (WordPiece)",
    "roberta": "RoBERTa, ModernBERT (BPE over bytes)",
    "eurobert": "EuroBERT (BPE over bytes, Llama's words)",
    "xlm-roberta": "XLM-R, CamemBERT, DeBERTa-v3 (Unigram)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Count differences from the tokenizers of encoders.")
    parser.add_argument("--corpus", nargs="+", required=True, help="folders with train, dev and test.jsonl")
    arguments = parse(parser)
    corpora = {}
    for folder in map(Path, arguments.corpus):
        texts = {split: list(read(folder / f"{split}.jsonl")) for split in ("train", "dev", "test")}
        every = list(dict.fromkeys(text for part in texts.values() for text in part))
        results = {PUBLISHED: differing(load_tokenizer(bundled_folder()), every)}
        for kind, name in KINDS.items():
            results[name] = differing(make_tokenizer(kind, texts["train"], SIZE).backend_tokenizer, every)
        corpora[folder.name] = results
    record = {**provenance([], 1, ("tokenizers", "transformers")), "corpora": corpora}
    print(table(record))
    finish(record, arguments.output)


def read(path: Path) -> list[str]:
    """The raw texts of a corpus file."""
    return [raw_example(example).text or "" for example in iter_examples([str(path)], ReadResult(), "stop")]


def differing(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, int]:
    """Texts and words, and how many of them differ; a word differs if its subwords are not among those of the
    whole text at its place."""
    subwords = WordTokenizer(tokenizer)
    found = split_texts(texts)
    spaces = found.spaces(subwords.first_has_space) if subwords.sees_spaces else None
    ids, first = subwords.split(subwords.number(found.words, spaces))
    ends = [*first[1:].tolist(), len(ids)]
    counts = {"texts": len(texts), "words": len(found.words), "texts_differ": 0, "words_differ": 0}
    for row, encoding in enumerate(tokenizer.encode_batch(list(texts), add_special_tokens=False)):
        words = range(found.rows[row], found.rows[row + 1])
        ours = [ids[first[word] : ends[word]].tolist() for word in words]
        if encoding.ids == [number for word in ours for number in word]:
            continue
        counts["texts_differ"] += 1
        pieces: dict[int, list[int]] = {}
        for number, (start, end) in zip(encoding.ids, encoding.offsets):
            inside = [
                i for i, word in enumerate(words) if found.starts[word] < end and found.ends[word] > start
            ]
            after = [i for i, w in enumerate(words) if found.starts[w] == end]  # a blank as a piece
            for i in inside or after:
                pieces.setdefault(i, []).append(number)
        counts["words_differ"] += sum(pieces.get(i, []) != word for i, word in enumerate(ours))
    return counts


def table(record: dict) -> str:
    """The share of texts and of words that differ, by tokenizer and corpus."""
    corpora = record["corpora"]
    rows = [["tokenizer", *(f"{name}: texts, words" for name in corpora)]]
    for name in next(iter(corpora.values())):
        cells = []
        for results in corpora.values():
            n = results[name]
            cells.append(f"{n['texts_differ'] / n['texts']:.1%}, {n['words_differ'] / n['words']:.2%}")
        rows.append([name, *cells])
    return markdown(rows)


if __name__ == "__main__":
    run_script(main)
