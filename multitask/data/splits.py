"""The files of a split → its encoded corpus, part by part. Large ones are cached on disk."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tokenizers

from multitask.common.array_cache import ArrayCache, check_disk_space, digest
from multitask.common.checksums import sha256_of
from multitask.common.errors import InputError
from multitask.data.corpus import EncodedCorpus, LabelNumbers, apply_labels, encode_rows
from multitask.data.examples import Example
from multitask.data.formats.files import source_files
from multitask.data.labels import LabelSpace, doubtful_types
from multitask.data.readers import ReadResult, iter_examples, retry_with_counted_tags
from multitask.data.tokenization import WordTokenizer, special_token_ids

_FORMAT = 4  # of cached entries; increase it when reading or encoding gives other arrays
CACHED_FROM_BYTES = 16 << 20  # of files; a smaller corpus is encoded in a second or two
WORDS_PER_PART = 1 << 16  # that are encoded together
_BYTES_PER_BYTE = 3  # of arrays per byte of text, at most; JSON Lines with tags need 1
_OFFSETS = ("word_rows", "window_rows", "window_words")  # one entry more than items, the first is 0
_POSITIONS = {  # arrays of positions, and the array whose items they count
    **dict.fromkeys(("word_rows", "window_words", "span_starts", "span_ends"), "word_first"),
    **dict.fromkeys(("word_first", "window_start", "window_end"), "ids"),
    "window_rows": "window_start",
}

Append = Callable[[str, np.ndarray], object]  # (name of an array, its next part), as EntryWriter.append


@dataclass(frozen=True)
class Split:
    """The content of a split's files: arrays as from `encode_rows`, and the messages about them."""

    arrays: dict[str, np.ndarray]
    special: tuple[int, int, int]
    class_names: list[str]  # of the numbers in row_classes
    type_names: list[str]  # of the numbers in span_types
    skipped: list[str]
    notices: list[str]

    def __len__(self) -> int:
        return len(self.arrays["row_classes"])

    @property
    def classes(self) -> Counter[str | None]:
        """The number of rows of each class, and without one (None)."""
        ids = np.maximum(self.arrays["row_classes"], -1)
        return _count([None, *self.class_names], ids + 1)

    @property
    def types(self) -> Counter[str]:
        """The number of entities of each type."""
        return _count(self.type_names, self.arrays["span_types"])

    @property
    def joined(self) -> int:
        """The number of entities right after one of their type, which IO tags join."""
        starts, ends, types = (self.arrays[f"span_{part}"] for part in ("starts", "ends", "types"))
        row = np.searchsorted(self.arrays["word_rows"], starts, side="right")
        adjacent = (starts[1:] == ends[:-1]) & (types[1:] == types[:-1]) & (row[1:] == row[:-1])
        return int(adjacent.sum())

    def corpus(self, labels: LabelSpace) -> EncodedCorpus:
        """The corpus as a model with these labels sees it."""
        return apply_labels(self.arrays, self.class_names, self.type_names, labels, self.special)


def read_split(
    paths: Sequence[str],
    subwords: WordTokenizer,
    max_length: int,
    stride: int,
    on_bad_row: str = "stop",
    hint: str = "",
    cache_dir: str | None = None,
    raw: bool = False,
) -> Split:
    """Read and encode files or JointBERT folders. The Split is the same with and without a cache.

    Args:
        max_length, stride: of the windows, as in `encode`.
        on_bad_row, hint, raw: as in `iter_examples`.
        cache_dir: keep a large corpus here, or read it from here, as memory maps. None: in memory.

    Raises:
        InputError: as `iter_examples` and `encode`, or the disk is too small."""

    def fill(append: Append, count_tags: bool) -> None:
        result = ReadResult()
        examples = iter_examples(paths, result, on_bad_row, hint, count_tags, raw)
        names = _encode_in_parts(examples, subwords, max_length, stride, append)
        append("file_rows", np.array(result.file_rows, np.int64))
        notices = [*result.notices, *(f"{', '.join(paths)}: {line}" for line in doubtful_types(names.types))]
        strings = [list(names.classes), list(names.types), result.skipped, notices]
        append("said", np.frombuffer(json.dumps(strings).encode(), np.uint8))

    files = [file for path in paths for file in source_files(path)]
    stamps = _stamps(files)
    size = sum(size for size, _ in stamps)
    if cache_dir is None or size <= CACHED_FROM_BYTES:
        return _split(retry_with_counted_tags(partial(_in_memory, fill)), subwords)
    settings = (tokenizers.__version__, subwords.tokenizer.to_str(), max_length, stride, on_bad_row, raw)
    key = digest(_FORMAT, *settings, *paths, *(f"{file} {sha256_of(file)}" for file in files))
    if (arrays := ArrayCache(cache_dir).load(key)) is None:
        names = ", ".join(paths)
        check_disk_space(cache_dir, _BYTES_PER_BYTE * size, f"{names}, encoded,")

        def fill_unchanged(append: Append, count_tags: bool) -> None:
            fill(append, count_tags)
            if _stamps(files) != stamps:
                raise InputError(f"{names}: changed while it was read")

        arrays = _write_to_cache(cache_dir, key, fill_unchanged)
    return _split(arrays, subwords)


def warn_unknown_labels(name: str, split: Split, labels: LabelSpace) -> list[str]:
    """One warning for each class and type of the split `name` that the labels of the model lack."""
    warnings = []
    kinds = (("class", split.classes, labels.class_ids), ("type", split.types, labels.type_ids))
    for kind, counts, known in kinds:
        for label, n in counts.items():
            if known and label is not None and label not in known:
                warnings.append(
                    f"warning: {name} has the {kind} {label!r} {n:,} times, train never: "
                    "each is scored as wrong"
                )
    return warnings


def _encode_in_parts(
    examples: Iterator[Example], subwords: WordTokenizer, max_length: int, stride: int, append: Append
) -> LabelNumbers:
    """Encode rows and append their arrays, a part at a time → the names of their classes and types."""
    names, totals = LabelNumbers(), Counter[str]()
    encode = partial(encode_rows, examples, subwords, names, max_length, stride, WORDS_PER_PART)
    _append(append, encode(), totals)  # at least once: without rows, there are empty arrays
    while len((part := encode())["row_classes"]):
        _append(append, part, totals)
    return names


def _append(append: Append, part: dict[str, np.ndarray], totals: Counter[str]) -> None:
    """Append a part. Its positions count from its own beginning; `totals` are the items before it."""
    for name, array in part.items():
        array = array[1:] if totals and name in _OFFSETS else array
        append(name, array + totals[_POSITIONS[name]] if name in _POSITIONS else array)
    totals.update({name: len(part[name]) for name in _POSITIONS.values()})


def _write_to_cache(cache_dir: str, key: str, fill: Callable[[Append, bool], None]) -> dict[str, np.ndarray]:
    def write(count_tags: bool) -> None:
        with cache.create(key) as writer:
            fill(writer.append, count_tags)

    cache = ArrayCache(cache_dir)
    retry_with_counted_tags(write)
    if (arrays := cache.load(key)) is None:
        raise InputError(f"{cache_dir}: an entry can't be read right after it was written")
    return arrays


def _in_memory(fill: Callable[[Append, bool], None], count_tags: bool) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    fill(lambda name, part: parts[name].append(part), count_tags)
    return {name: np.concatenate(parts.pop(name)) for name in list(parts)}  # pop: free each one's parts


def _split(arrays: dict[str, np.ndarray], subwords: WordTokenizer) -> Split:
    strings = json.loads(arrays.pop("said").tobytes())
    return Split(arrays, special_token_ids(subwords.tokenizer), *strings)


def _count(names: list, ids: np.ndarray) -> Counter:
    counts = np.bincount(ids, minlength=len(names))
    return Counter({name: int(n) for name, n in zip(names, counts) if n})


def _stamps(files: Sequence[Path]) -> list[tuple[int, int]]:
    """The size and the time of the last change of each file."""
    return [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
