"""A split's files → its encoded corpus, as they are read. A large one is kept on disk for the next run."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tokenizers

from multitask.common.array_cache import ArrayCache, check_disk_space, digest
from multitask.common.checksums import sha256_of
from multitask.common.errors import InputError
from multitask.data.corpus import EncodedCorpus, LabelNumbers, apply_labels, encode_rows, special_token_ids
from multitask.data.formats import source_files
from multitask.data.labels import LabelSpace
from multitask.data.readers import ReadResult, iter_examples, retry_with_counted_tags
from multitask.data.tokenization import WordTokenizer

_FORMAT = 3  # of what is kept: a change of what this module or the reading and encoding below it gives
CACHED_FROM_BYTES = 16 << 20  # of files; a smaller corpus is encoded in a second or two
_WORDS = 1 << 16  # that are encoded together
_ROOM = 3  # bytes of arrays that a byte of text becomes; 1 in JSON Lines with tags
_STARTS_AT_0 = ("word_rows", "window_rows", "window_words")  # offsets, which have one entry more than items


Append = Callable[[str, np.ndarray], object]  # (name, piece), as EntryWriter.append


@dataclass(frozen=True)
class Split:
    """What a split's files held: arrays as `encode_rows` gives them, and what a person should know of."""

    arrays: dict[str, np.ndarray]
    special: tuple[int, int, int]
    class_names: list[str]  # behind row_classes, in order of appearance
    type_names: list[str]  # behind span_types
    skipped: list[str]
    notices: list[str]

    def __len__(self) -> int:
        return len(self.arrays["row_classes"])

    @property
    def classes(self) -> Counter[str | None]:
        """Rows of each class, and of none."""
        ids = np.maximum(self.arrays["row_classes"], -1)
        return _counted([None, *self.class_names], ids + 1)

    @property
    def types(self) -> Counter[str]:
        """Entities of each type."""
        return _counted(self.type_names, self.arrays["span_types"])

    @property
    def joined(self) -> int:
        """Entities that follow right after one of their type."""
        starts, ends, types = (self.arrays[f"span_{part}"] for part in ("starts", "ends", "types"))
        row = np.searchsorted(self.arrays["word_rows"], starts, side="right")
        touch = (starts[1:] == ends[:-1]) & (types[1:] == types[:-1]) & (row[1:] == row[:-1])
        return int(touch.sum())

    def corpus(self, labels: LabelSpace) -> EncodedCorpus:
        """As a model of these labels sees it."""
        return apply_labels(self.arrays, self.class_names, self.type_names, labels, self.special)


def read_split(
    paths: Sequence[str],
    subwords: WordTokenizer,
    max_length: int,
    stride: int,
    on_bad_row: str = "stop",
    hint: str = "",
    cache_dir: str | None = None,
) -> Split:
    """Read and encode files or JointBERT folders; a large corpus comes from `cache_dir` if it is there.

    Kept or not, the Split is the same; the arrays of a large one are mapped, unless `cache_dir` is None.
    Raises InputError as `read_corpus` and `encode` do, and where the disk has no room."""

    def fill(append: Append, twice: bool) -> None:
        reading, names = ReadResult(), LabelNumbers()
        examples = iter_examples(paths, reading, on_bad_row, hint, twice)
        encode = partial(encode_rows, examples, subwords, names, max_length, stride, _WORDS)
        totals = {"words": 0, "subwords": 0, "windows": 0}
        _append(append, encode(), totals)  # without rows, too, there are arrays
        while len((part := encode())["row_classes"]):
            _append(append, part, totals)
        append("file_rows", np.array(reading.file_rows, np.int64))
        said = [list(names.classes), list(names.types), reading.skipped, reading.notices]
        append("said", np.frombuffer(json.dumps(said).encode(), np.uint8))

    files = [file for path in paths for file in source_files(path)]
    size = sum(file.stat().st_size for file in files)
    if cache_dir is None or size <= CACHED_FROM_BYTES:
        return _split(retry_with_counted_tags(lambda twice: _in_memory(fill, twice)), subwords)
    settings = (tokenizers.__version__, subwords.tokenizer.to_str(), max_length, stride, on_bad_row)
    stamps = _stamps(files)
    key = digest(_FORMAT, *settings, *paths, *(f"{file} {sha256_of(file)}" for file in files))
    store = ArrayCache(cache_dir)
    arrays = store.load(key)
    if arrays is None:
        check_disk_space(cache_dir, _ROOM * size, f"{', '.join(paths)}, encoded,")

        def keep(twice: bool) -> None:
            with store.create(key) as writer:
                fill(writer.append, twice)
                if _stamps(files) != stamps:
                    raise InputError(f"{', '.join(paths)}: changed while it was read")

        retry_with_counted_tags(keep)
        arrays = store.load(key)
    if arrays is None:
        raise InputError(f"{cache_dir}: what was written there can't be read back")
    return _split(arrays, subwords)


def warn_unknown_labels(what: str, split: Split, labels: LabelSpace) -> list[str]:
    """A warning for each class and type that rows to be scored have, but the model can't say."""
    kinds = (("class", split.classes, labels.class_ids), ("type", split.types, labels.type_ids))
    unknown = [
        (kind, name, n)
        for kind, counts, known in kinds
        for name, n in counts.items()
        if known and name is not None and name not in known
    ]
    return [
        f"warning: {what} has the {kind} {name!r} {n:,} times, train never: each is scored as wrong"
        for kind, name, n in unknown
    ]


def _append(append: Append, part: dict[str, np.ndarray], totals: dict) -> None:
    """Append a part, whose positions count from its own beginning, after `totals`, which go on."""
    words, subwords, windows = totals.values()
    shift = dict.fromkeys(("word_rows", "window_words", "span_starts", "span_ends"), words)
    shift |= {
        "window_rows": windows,
        "word_first": subwords,
        "window_start": subwords,
        "window_end": subwords,
    }
    for name, array in part.items():
        array = array[1:] if words and name in _STARTS_AT_0 else array
        append(name, array + shift[name] if name in shift else array)
    totals["words"] += len(part["word_first"])
    totals["subwords"] += len(part["ids"])
    totals["windows"] += len(part["window_start"])


def _in_memory(fill: Callable, twice: bool) -> dict[str, np.ndarray]:
    pieces: dict[str, list[np.ndarray]] = defaultdict(list)
    fill(lambda name, piece: pieces[name].append(piece), twice)
    return {name: np.concatenate(pieces.pop(name)) for name in list(pieces)}


def _split(arrays: dict[str, np.ndarray], subwords: WordTokenizer) -> Split:
    said = json.loads(arrays.pop("said").tobytes())
    return Split(arrays, special_token_ids(subwords.tokenizer), *said)


def _counted(names: list, ids: np.ndarray) -> Counter:
    counts = np.bincount(ids, minlength=len(names))
    return Counter({name: int(n) for name, n in zip(names, counts) if n})


def _stamps(files: Sequence[Path]) -> list[tuple[int, int]]:
    return [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
