"""What an audit found: a table for people, and rows to correct, as given and as suggested."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from multitask.common.shell import printable
from multitask.data.labels import UNLABELLED
from multitask.data.notices import truncate
from multitask.evaluation.mistakes import read_source_rows
from multitask.inference.predictions import Entity, Prediction
from multitask.labelling.audit import Audit, ClassIssue
from multitask.labelling.entity_issues import EntityIssue, SpanIds
from multitask.labelling.formats import label_studio_task
from multitask.plan.duplicates import place_of_row

SHOWN = 20  # findings of a kind in the table
CONFLICT = 0.5  # quality of an annotation that another row of the same words contradicts


class Finding(NamedTuple):
    """A row with something wrong. `quality` is the lowest of its annotations that look wrong, from 0 to 1;
    None if only its text stands elsewhere too."""

    place: str  # file:line
    quality: float | None
    problems: list[str]
    given: Prediction
    suggested: Prediction


class Report:
    """The findings of an audit. Reads the files again for their texts; raises InputError if one of them has
    changed since."""

    def __init__(self, audit: Audit):
        self.audit = audit
        self.corpus, self.labels = audit.prepared.corpora["train"], audit.prepared.labels
        pairs = [row for found in audit.conflicts.values() for pair in found for row in pair]
        near = [row for pair in audit.near for row in (pair.row, pair.earlier)]
        self.issues: list[ClassIssue | EntityIssue] = [*audit.classes, *audit.entities]
        rows = {issue.row for issue in self.issues} | {*pairs, *near}
        self.examples = read_source_rows(audit.paths, rows, self.corpus, False)

    def table(self) -> str:
        """All that was found, as text: the worst ones of each kind, and how many there are."""
        audit, corpus, parts = self.audit, self.corpus, []
        if audit.wrong_classes is not None:
            annotated = int((corpus.row_classes != UNLABELLED).sum())
            title = f"{len(audit.classes):,} of {annotated:,} classes look wrong; "
            title += f"{audit.wrong_classes:,.0f} are, by the joint distribution of given and true classes"
            parts.append(_section(title, self._lines(audit.classes), len(audit.classes)))
        if audit.unjudged:
            parts.append(f"Classes of a single text, which can't be judged: {', '.join(audit.unjudged)}")
        if audit.predictions.tags is not None:
            rows = int(corpus.row_tagged.sum())
            title = f"{len(audit.entities):,} places where entities look wrong, in {rows:,} annotated rows"
            parts.append(_section(title, self._lines(audit.entities), len(audit.entities)))
        for what, pairs in audit.conflicts.items():
            lines = [f"{self.place(first)} and {self.place(second)}" for first, second in pairs[:SHOWN]]
            title = f"{len(pairs):,} pairs of equal texts have other {what}"
            parts += [_section(title, lines, len(pairs))] if pairs else []
        near = [
            f"{p.cosine:.3f}  {self.place(p.row)} and {self.place(p.earlier)}" for p in audit.near[:SHOWN]
        ]
        title = f"{len(audit.near):,} rows have a near duplicate in an earlier file"
        parts += [_section(title, near, len(audit.near))] if near else []
        return "\n\n".join(parts)

    def findings(self) -> list[Finding]:
        """One finding for each row with something wrong, the lowest quality first."""
        qualities: dict[int, list[float]] = defaultdict(list)
        problems: dict[int, list[str]] = defaultdict(list)
        classes = {issue.row: issue for issue in self.audit.classes}
        entities: dict[int, list[EntityIssue]] = defaultdict(list)
        for issue in self.issues:
            qualities[issue.row].append(issue.quality)
            problems[issue.row].append(self.describe(issue))
            if isinstance(issue, EntityIssue):
                entities[issue.row].append(issue)
        for what, pairs in self.audit.conflicts.items():
            for row, other in (pair for one, two in pairs for pair in ((one, two), (two, one))):
                qualities[row].append(CONFLICT)
                problems[row].append(f"other {what} than the same words at {self.place(other)}")
        for pair in self.audit.near:
            problems[pair.row].append(f"nearly the text of {self.place(pair.earlier)} ({pair.cosine:.3f})")
        found = []
        for row, listed in problems.items():
            given = self._given(row)
            suggested = self._suggested(row, given, classes.get(row), entities[row])
            found.append(
                Finding(self.place(row), min(qualities[row], default=None), listed, given, suggested)
            )
        return sorted(found, key=lambda one: (one.quality is None, one.quality or 0.0))

    def place(self, row: int) -> str:
        """file:line of a row."""
        return place_of_row(self.audit.prepared.splits["train"], self.audit.paths, row)

    def describe(self, issue: ClassIssue | EntityIssue) -> str:
        """What is given, and what is suggested."""
        if isinstance(issue, ClassIssue):
            names = self.labels.classes
            return f"class {names[issue.given]} → {names[issue.suggested]}"
        sides = (self._marked(issue.row, spans) for spans in (issue.given, issue.suggested))
        return f"{issue.kind}: {' → '.join(sides)}"

    def _lines(self, issues: Sequence[ClassIssue | EntityIssue]) -> list[str]:
        return [
            f"{issue.quality:.3f}  {self.place(issue.row)}  {self.describe(issue)}  | "
            f"{truncate(self.examples[issue.row].text or '', 60)}"
            for issue in issues[:SHOWN]
        ]

    def _marked(self, row: int, spans: Sequence[SpanIds]) -> str:
        found = [self._entity(row, span) for span in spans]
        return " ".join(f"[{truncate(entity.text, 40)}]({entity.label})" for entity in found) or "no entity"

    def _entity(self, row: int, span: SpanIds) -> Entity:
        """Words of the corpus as an entity, whose score is the mean probability of its type."""
        example, (start, end, kind) = self.examples[row], span
        assert example.text is not None and example.offsets is not None
        assert self.audit.predictions.type_probabilities is not None
        before = int(self.corpus.word_rows[row])
        first, last = example.offsets[start - before][0], example.offsets[end - before - 1][1]
        score = float(self.audit.predictions.type_probabilities[start:end, 1 + kind].mean())
        return Entity(first, last, example.text[first:last], self.labels.types[kind], min(score, 1.0))

    def _given(self, row: int) -> Prediction:
        """The annotation of a row, with the probabilities that a model gives it which has not seen it."""
        example, found = self.examples[row], self.audit.predictions
        assert example.text is not None
        entities: list[Entity] = []
        for span in example.spans or ():
            first, last = example.characters(span)
            score = math.nan  # entities were not audited
            if found.type_probabilities is not None:
                start, end = (int(self.corpus.word_rows[row]) + word for word in span[:2])
                kind = self.labels.type_ids[span.label]
                score = self._entity(row, (start, end, kind)).score
            entities.append(Entity(first, last, example.text[first:last], span.label, score))
        probabilities = None
        if example.label is not None and found.class_probabilities is not None:
            probabilities = dict(zip(self.labels.classes, found.class_probabilities[row].tolist()))
        return Prediction(
            example.text, example.label, probabilities, None if example.spans is None else entities
        )

    def _suggested(
        self, row: int, given: Prediction, issue: ClassIssue | None, issues: Sequence[EntityIssue]
    ) -> Prediction:
        """The annotation with what is suggested in place of what looks wrong."""
        label = given.label if issue is None else self.labels.classes[issue.suggested]
        if given.entities is None:
            return given._replace(label=label)
        spans, before = self.examples[row].spans or [], int(self.corpus.word_rows[row])
        wrong = {span[:2] for one in issues for span in one.given}
        kept = [
            entity
            for entity, span in zip(given.entities, spans)
            if (before + span.start, before + span.end) not in wrong
        ]
        new = [self._entity(row, span) for one in issues for span in one.suggested]
        return given._replace(label=label, entities=sorted([*kept, *new]))


def _section(title: str, lines: Sequence[str], count: int) -> str:
    more = [f"  … and {count - len(lines):,} more; --output lists them"] if count > len(lines) else []
    return "\n".join([title, *(f"  {printable(line)}" for line in lines), *more])


def json_row(finding: Finding) -> dict[str, Any]:
    """A row of JSON Lines: the annotation, to be corrected, and beside it what is suggested."""
    given, suggested = (_annotation(side) for side in (finding.given, finding.suggested))
    quality = None if finding.quality is None else round(finding.quality, 6)
    about = {"score": quality, "problems": finding.problems, "place": finding.place}
    return {"text": finding.given.text, **given, "suggested": suggested, **about}


def task(finding: Finding) -> dict[str, Any]:
    """A task of Label Studio with two predictions, `given` and `suggested`: a person accepts one of them."""
    quality = None if finding.quality is None else round(finding.quality, 6)
    named = [("suggested", finding.suggested), ("given", finding.given)]
    about = {"place": finding.place, "problems": "; ".join(finding.problems)}
    return label_studio_task(finding.given.text, named, score=quality, **about)


def _annotation(prediction: Prediction) -> dict[str, Any]:
    """Class and entities as a row has them, without those that are not annotated."""
    row: dict[str, Any] = {} if prediction.label is None else {"label": prediction.label}
    if prediction.entities is not None:
        keys = ("start", "end", "text", "label")
        row["entities"] = [dict(zip(keys, entity[:4])) for entity in prediction.entities]
    return row
