"""The predictor as a function of Spark."""

import shutil
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from conftest import ROOT

from multitask.cluster.spark import COLUMNS, check_spark, spark_predictor
from multitask.common.errors import InputError
from multitask.inference.predictor import Predictor

TEXTS = ["anna won in paris", None, "", "the vote", "a" * 1_000_001]


def test_frames_keep_their_columns_and_get_predictions(trained):
    pd = pytest.importorskip("pandas")

    frames = [
        pd.DataFrame({"id": [3, 1, 2, 9, 8], "body": TEXTS}),
        pd.DataFrame({"id": [7], "body": ["anna"]}),
    ]
    first, second = spark_predictor(trained, "body")(iter(frames))
    expected = [
        p.to_dict() for p in Predictor.from_pretrained(trained, "cpu").predict([TEXTS[0], "", TEXTS[3]])
    ]
    for row, wanted in zip((0, 2, 3), expected):
        found = first.iloc[row]
        assert {key: found[key] for key in ("label", "probabilities", "entities")} == {
            key: wanted[key] for key in ("label", "probabilities", "entities")
        }
    assert list(first["id"]) == [3, 1, 2, 9, 8] and list(second["id"]) == [7]
    assert [bool(reason) for reason in first["error"]] == [False, True, False, False, True]
    assert "1,000,001 characters" in first["error"][4] and first["label"][1] is None


def test_without_java_there_is_one_line(monkeypatch, tmp_path):
    for name in ("pyspark", "pandas", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__spec__=SimpleNamespace(name=name)))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as error:
        check_spark()
    assert str(error.value) == "Spark needs Java 17 or newer, and there is no java on the PATH"
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(InputError, match="JAVA_HOME is .*, which has no bin/java"):
        check_spark()


def test_without_spark_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(InputError, match="Spark needs pyspark.*: pip install -r requirements-spark.txt"):
        check_spark()
    assert (ROOT / "requirements-spark.txt").exists()


@pytest.mark.skipif(find_spec("pyspark") is None, reason="Spark: pip install -r requirements-spark.txt")
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java, and there is none")
def test_spark_calls_it(trained, monkeypatch, tmp_path):
    from importlib import import_module

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    check_spark()
    builder = import_module("pyspark.sql").SparkSession.builder.master("local[2]")
    spark = (
        builder.config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", 2).getOrCreate()
    )
    try:
        texts = [*TEXTS[:4], *(f"anna won vote {i}" for i in range(16))]
        frame = spark.createDataFrame(list(enumerate(texts)), "id BIGINT, text STRING").repartition(3)
        out = frame.mapInPandas(spark_predictor(trained), f"id BIGINT, text STRING, {COLUMNS}")
        rows = sorted((row.asDict(recursive=True) for row in out.collect()), key=lambda row: row["id"])
    finally:
        spark.stop()
    assert [(row["id"], row["text"]) for row in rows] == list(enumerate(texts))
    readable = [text for text in texts if text is not None]
    expected = iter(Predictor.from_pretrained(trained, "cpu").predict(readable))
    for row in rows:
        if row["text"] is None:
            assert row["error"] and row["label"] is None and row["entities"] is None
            continue
        wanted = next(expected).to_dict()
        # in other batches, sums are rounded otherwise
        assert row["error"] is None and row["label"] == wanted["label"]
        assert (row["probabilities"] or {}) == pytest.approx(wanted["probabilities"] or {}, abs=1e-5)
        places = [(e["start"], e["end"], e["text"], e["label"]) for e in row["entities"]]
        assert places == [(e["start"], e["end"], e["text"], e["label"]) for e in wanted["entities"]]
