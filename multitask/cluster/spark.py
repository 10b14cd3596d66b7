"""The predictor as a function of Spark: DataFrame.mapInPandas calls it in Spark's Python workers."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from multitask.common.device import prepare_threads
from multitask.common.errors import InputError, require_packages
from multitask.data.examples import Example, unannotated_example
from multitask.data.rows import BadRow
from multitask.data.texts import MAX_CHARACTERS, Row, UnreadableRow
from multitask.inference.predictor import Predictor, check_folder
from multitask.inference.writers import row_fields

if TYPE_CHECKING:
    import pandas as pd

_ENTITY = "STRUCT<start: BIGINT, end: BIGINT, text: STRING, label: STRING, score: DOUBLE>"
COLUMNS = f"label STRING, probabilities MAP<STRING, DOUBLE>, entities ARRAY<{_ENTITY}>, error STRING"


def check_spark() -> None:
    """Raises InputError if Spark's packages or Java are missing, which Spark tells in pages."""
    require_packages(["pyspark", "pandas", "pyarrow"], "Spark", "requirements-spark.txt")
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin", "java") if home else shutil.which("java")
    if not java or not Path(java).exists():
        place = f"JAVA_HOME is {home}, which has no bin/java" if home else "there is no java on the PATH"
        raise InputError(f"Spark needs Java 17 or newer, and {place}")


def spark_predictor(
    model: str | Path, text: str = "text", device: str | None = "cpu"
) -> "Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]":
    """The function for `frame.mapInPandas(function, schema)`: it keeps all columns and adds those of COLUMNS.

    A row that can't be predicted (null, or too long) has the reason in `error`, and null in the others.
    Each Python worker loads the model once, and predicts the rows of one Arrow batch at a time.

    Args:
        model: a model folder that all workers see under this path.
        text: the column of the texts.
        device: as for Predictor."""
    check_folder(model)
    folder = str(Path(model).resolve())

    def predict(frames: "Iterable[pd.DataFrame]") -> "Iterator[pd.DataFrame]":
        import pandas as pd

        predictor = _predictor(folder, device)
        for frame in frames:
            found = _predicted(predictor, frame[text].tolist())
            # as objects: a column of texts would have NaN in place of null
            columns = {name: pd.Series(values, frame.index, object) for name, values in found.items()}
            yield frame.assign(**columns)

    return predict


_loaded: dict[tuple[str, str | None], Predictor] = {}


def _predictor(folder: str, device: str | None) -> Predictor:
    if (folder, device) not in _loaded:
        prepare_threads()
        _loaded[folder, device] = Predictor.from_pretrained(folder, device)
    return _loaded[folder, device]


def _row(text: object) -> Row:
    try:
        # pandas has NaN for null
        return unannotated_example({"text": text if isinstance(text, str) else None}, MAX_CHARACTERS)
    except BadRow as reason:
        return UnreadableRow(str(reason))


def _predicted(predictor: Predictor, texts: list) -> dict[str, list]:
    rows = list(map(_row, texts))
    examples = [row for row in rows if isinstance(row, Example)]
    in_order = iter(predictor.predict_examples(examples))
    fields = [row_fields(row, next(in_order) if isinstance(row, Example) else None) for row in rows]
    names = ("label", "probabilities", "entities", "error")
    return {name: [field.get(name) for field in fields] for name in names}
