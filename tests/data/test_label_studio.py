"""Label Studio's JSON, JSON_MIN and CSV: the rows are those of the same content in JSON Lines form."""

import csv
import json

import pytest
from corpus_files import content, lines, read, skipped

from multitask.data.formats.files import read_records
from multitask.data.texts import read_rows

TEXT = "Mina met Orbis"
PER = {"start": 0, "end": 4, "label": "PER", "text": "Mina"}
ORG = {"start": 9, "end": 14, "label": "ORG", "text": "Orbis"}
BOTH = {"text": TEXT, "label": "news", "entities": [PER, ORG]}


def region(entity: dict) -> dict:
    """An entity as a span of Label Studio."""
    return {**entity, "labels": [entity["label"]]}


def labels(*entities: dict) -> list[dict]:
    keys = {"type": "labels", "from_name": "ner", "to_name": "text"}
    return [{**keys, "id": "a", "value": {**region(entity), "label": None}} for entity in entities]


def choice(*names: str, control: str = "topic") -> dict:
    return {"type": "choices", "from_name": control, "to_name": "text", "value": {"choices": list(names)}}


def task(*results: list[dict], **keys) -> dict:
    """A task with one annotation for each list of results."""
    annotations = [{"id": n, "was_cancelled": False, "result": result} for n, result in enumerate(results)]
    metadata = {"id": 1, "meta": {}, "created_at": "2024-01-01", "predictions": [{"result": labels(ORG)}]}
    return {**metadata, "data": {"text": TEXT}, "annotations": annotations, **keys}


CANCELLED = {"was_cancelled": True, "result": [choice("sports")]}
TASKS = [
    (task([*labels(PER, ORG), choice("news")]), BOTH),
    (task([choice("news")]), {"text": TEXT, "label": "news", "entities": []}),
    (task([]), {"text": TEXT, "entities": []}),
    (task(), {"text": TEXT}),
    (task(annotations=[CANCELLED]), {"text": TEXT}),
    (task(data={"review": TEXT, "rating": 3}), {"text": TEXT}),
    (task(data={"text": TEXT, "source": "a.txt"}), {"text": TEXT}),
    ({"id": 2, "data": {"text": TEXT}, "completions": [{"result": labels(PER)}]},
     {"text": TEXT, "entities": [PER]}),
    (task(labels(PER, ORG), labels(ORG, PER)), {"text": TEXT, "entities": [PER, ORG, ORG, PER]}),
]  # fmt: skip
METADATA = {"id": 1, "annotator": 1, "annotation_id": 7, "created_at": "x", "updated_at": "y", "lead_time": 2}
MIN = [
    ({"text": TEXT, "label": [region(PER), region(ORG)], "sentiment": "news", **METADATA}, BOTH),
    ({"text": TEXT, "ner": [region(PER)], "topic": {"choices": ["news"]}, **METADATA},
     {"text": TEXT, "label": "news", "entities": [PER]}),
    ({"text": TEXT, "label": [region(PER)]}, {"text": TEXT, "entities": [PER]}),
    ({"text": TEXT, **METADATA}, {"text": TEXT, "entities": []}),
    ({"text": TEXT, "ner": [region(PER)], "label": "news", "source": "a.txt"},
     {"text": TEXT, "label": "news", "entities": [PER], "source": "a.txt"}),
]  # fmt: skip


def as_array(rows: list) -> str:
    return json.dumps(rows, indent=1)


@pytest.mark.parametrize("write", [lines, json.dumps, as_array])
@pytest.mark.parametrize(("tool", "cases"), [("JSON", TASKS), ("JSON_MIN or CSV", MIN)])
def test_rows_of_label_studio_equal_rows_in_json_lines_form(put, tool, cases, write):
    path = put("a.json", write([row for row, _ in cases]))
    assert [row for _, row in read_records(path)] == [same for _, same in cases]
    assert [row.text for row in read_rows(path)] == [TEXT] * len(cases)
    result = read(put("b.json", write([row for row, _ in cases[:3]])))
    own = read(put("own.jsonl", lines([same for _, same in cases[:3]])))
    assert content(result.examples) == content(own.examples)
    (notice,) = result.notices
    assert notice.endswith(f": read as Label Studio's {tool} (3 rows; this is the first)")


def test_project_of_classes_alone_has_no_entities(put):
    rows = [task([choice("news")]), task([])]
    path = put("a.json", json.dumps(rows).replace('"labels"', '"brushlabels"'))
    assert [row for _, row in read_records(path)] == [{"text": TEXT, "label": "news"}, {"text": TEXT}]
    path = put("b.json", json.dumps([{"text": TEXT, "sentiment": "news", **METADATA}]))
    assert [row for _, row in read_records(path)] == [{"text": TEXT, "label": "news"}]


def test_cells_of_a_csv_file_are_spans_or_a_class(put, tmp_path):
    header = ["text", "id", "label", "sentiment", "annotator", "lead_time"]
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerow([TEXT, 1, json.dumps([region(PER), region(ORG)]), "news", 1, 2.5])
        table.writerow([TEXT, 2, "", '{"choices": ["news"]}', 1, 2.5])
        table.writerow([TEXT, 3, "", '{"choices": ["news", "sports"]}', 1, 2.5])
    result = read(str(tmp_path / "a.csv"))
    own = read(put("own.jsonl", lines([BOTH, {"text": TEXT, "label": "news", "entities": []}])))
    assert content(result.examples) == content(own.examples)
    path = tmp_path / "a.csv"
    assert result.skipped == [f"{path}:4: 'sentiment' has 2 classes; a row has one"]
    assert result.notices == [f"{path}:2: read as Label Studio's JSON_MIN or CSV (2 rows; this is the first)"]
    assert [row.text for row in read_rows(str(path))] == [TEXT] * 3


def test_other_tables_are_read_as_before(put):
    path = put("a.csv", 'text,label,note\nhello,"[1, 2]",{\n"[{""labels"": []}]",x,y\n')
    result = read(path)
    assert [(row.text, row.label) for row in result.examples] == [
        ("hello", "[1, 2]"),
        ('[{"labels": []}]', "x"),
    ]
    assert result.notices == [f"{path}: 'note' in 2 rows is not read"]


OTHER = {"start": 5, "end": 8, "label": "PER"}
DISAGREE = "2 annotations of this task disagree; keep one, or make them equal"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (task(labels(PER), labels(PER, ORG)), DISAGREE),
        (task(labels(PER), labels({**PER, "label": "LOC"})), DISAGREE),
        (task([choice("news")], [choice("sports")]), DISAGREE),
        (task([choice("news", "sports")]), "'topic' has 2 classes; a row has one"),
        (task([choice("a"), choice("b", control="mood")]),
         "'topic' and 'mood' may both be the class; keep one of them"),
        ({"text": TEXT, "label": [region(PER)], "sentiment": "a", "mood": "b"},
         "'sentiment' and 'mood' may both be the class; keep one of them"),
        (task(data={"title": TEXT, "body": TEXT}),
         "data has 2 strings, and none is called text; call the right one text"),
        (task(annotations=[3]), 'an annotation must be an object with a list "result"'),
        (task([3]), "a result is 3; it must be an object"),
        ({"text": TEXT, "ner": [region(PER), 3]},
         'a span of Label Studio must be {"start", "end", "labels": [...]}'),
        (task(labels({**PER, "end": 99})), 
         "the offsets 0 to 99 give 'Mina met Orbis', but the entity is 'Mina'"),
    ],
)  # fmt: skip
def test_bad_row_is_reported_with_its_line(put, row, reason):
    path = put("a.json", f'[\n{{"text": "a"}},\n{json.dumps(row, indent=1)}\n]')
    assert skipped(path) == [f"3: {reason}"]


def test_results_of_other_types_are_named(put):
    results = [{"type": "rating", "value": {"rating": 3}}, {"type": "relation"}, *labels(PER)]
    path = put("a.json", as_array([task(results), task(results)]))
    result = read(path)
    assert len(result.examples) == 2
    assert result.notices[:2] == [
        f"{path}:2: Label Studio's results of type '{kind}' are not read (2 rows; this is the first)"
        for kind in ("rating", "relation")
    ]
