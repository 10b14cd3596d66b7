"""What the page shows of a result, as HTML: of one text in full, of a file's rows in short."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from multitask.common.html import Number, folded, heading, paragraph, plain, table, text
from multitask.data.texts import Row
from multitask.inference.predictions import Prediction
from multitask.serving.page.colours import looks_of
from multitask.serving.page.highlight import highlighted, legend
from multitask.serving.page.neighbours import Neighbour
from multitask.serving.page.results import ModelPredictions, Result, above_threshold, differ, entities_only_in

SHOWN = 200  # rows of a file
_BARS = 8  # classes that are not folded away


def view(result: Result, least: float) -> str:
    """The result with entities whose score is at least `least`."""
    typed = result.file_name is None
    pane = _text_pane if typed else _file_pane
    panes = "".join(pane(result, number, least) for number in range(len(result.models)))
    below = result.neighbours_html if typed else _rows(result, least)
    return f'<div class="result">{_difference(result, least)}<div class="panes">{panes}</div>{below}</div>'


def message(content: str) -> str:
    """One line to the person, which a screen reader says at once."""
    return f'<p class="notice" role="alert">{text(content)}</p>'


def nearest(neighbours: Sequence[Neighbour], done: int, total: int) -> str:
    """The sentences of the training corpus that are nearest to a text, best first."""
    title = heading("Nearest training sentences", 3)
    scope = f"Of the first {done:,} of {total:,} training sentences; more are being read."
    note = paragraph(scope, "quiet") if done < total else ""
    items = "".join(
        f'<li>{text(found.text)}<span class="facts">{_class_of(found.label)}'
        f'<span class="number">cosine {found.similarity:.3f}</span></span></li>'
        for found in neighbours
    )
    return f'<section class="near">{title}{note}<ol>{items}</ol></section>'


def _text_pane(result: Result, number: int, least: float) -> str:
    answers, whole = result.models[number], result.models[number].predictions[0]
    said, looks = above_threshold(whole, least), looks_of(answers.labels.types)
    others = [above_threshold(each.predictions[0], least) for each in result.models if each is not answers]
    alone = [entity for other in others for entity in entities_only_in(said, other)]
    parts = [_top(result, number, least), heading("Entities", 3)]
    if said.entities is None:
        parts += [paragraph("This model was not trained for entities.", "quiet")]
    parts += [highlighted(said.text, said.entities or (), looks, said.words or (), alone)]
    parts += [legend(said.entities or (), looks), _hidden([whole], least)]
    if said.words:
        rows = [[said.text[w.start : w.end], w.tag, Number(f"{w.score:.3f}")] for w in said.words]
        words = table("Each word's tag and its probability", ["word", "tag", "probability"], rows)
        parts += [
            folded(f"All {len(rows):,} words with tag and score" if len(rows) > 1 else "The word", words)
        ]
    parts += [heading("Class", 3), *_bars(said)]
    return f'<section class="pane" aria-label="{plain(answers.model)}">{"".join(parts)}</section>'


def _file_pane(result: Result, number: int, least: float) -> str:
    """What a model found in all of the rows."""
    answers = result.models[number]
    looks, read = looks_of(answers.labels.types), [said for said in answers.predictions if said]
    lost = len(answers.predictions) - len(read)
    counted = f"{_count(len(answers.predictions), 'row')} in {text(result.file_name)}"
    parts = [_top(result, number, least), f"<p>{counted}{f', {lost:,} can’t be read' if lost else ''}</p>"]
    parts += [heading("Classes", 3), _classes(read), heading("Entities", 3)]
    found = [entity for said in read for entity in above_threshold(said, least).entities or ()]
    parts += [legend(found, looks), _hidden(read, least)]
    return f'<section class="pane" aria-label="{plain(answers.model)}">{"".join(parts)}</section>'


def _rows(result: Result, least: float) -> str:
    """The first rows, with each model's answer."""
    looks = [looks_of(answers.labels.types) for answers in result.models]
    total = len(result.models[0].predictions)
    rows = islice(zip(*(zip(answers.rows, answers.predictions) for answers in result.models)), SHOWN)
    items = "".join(
        _row([(row, said and above_threshold(said, least)) for row, said in row], looks) for row in rows
    )
    first = f"The first {SHOWN} of {total:,} rows; the downloads hold all of them."
    note = paragraph(first, "quiet") if total > SHOWN else ""
    listed = f'{heading("Rows")}{note}<ol class="rows">{items}</ol>'
    return f'<section class="pane" aria-label="Rows">{listed}</section>'


def _row(row: list[tuple[Row, Prediction | None]], looks: list[dict[str, str]]) -> str:
    said, cells = [one for _, one in row], []
    unlike = len(said) > 1 and None not in said and differ(*said)
    for number, (read, one) in enumerate(row):
        if one is None:
            cells.append(f'<p class="notice">{text(read.reason)}</p>')
            continue
        alone = entities_only_in(one, said[1 - number]) if unlike else ()
        shown = highlighted(one.text, one.entities or (), looks[number], alone=alone)
        facts = _class_of(one.label, one, unlike and said[0].label != said[1].label)
        cells.append(f'<div class="cell">{shown}<span class="facts">{facts}</span></div>')
    kind = ' class="differs"' if unlike else ""
    return f"<li{kind}>{''.join(cells)}</li>"


def _top(result: Result, number: int, least: float) -> str:
    """The model's name, and where its answers can be had as files."""
    answers, shown = result.models[number], "" if least <= 0 else f"?least={least:g}"
    name = f"{plain((result.file_name or 'text').rsplit('.', 1)[0])}.predictions"
    links = " ".join(
        f'<a href="results/{result.key}/{number}{suffix}{shown}" download="{name}{suffix}">{kind}</a>'
        for suffix, kind in ((".jsonl", "JSONL"), (".csv", "CSV"))
    )
    note = "" if least <= 0 else f' <span class="quiet">without entities below {least:.2f}</span>'
    top = f'<p class="files">Download: {links}{note}</p>'
    return f'<header class="top">{heading(answers.model)}{top}</header>'


def _bars(said: Prediction) -> Iterator[str]:
    if said.probabilities is None:
        yield paragraph("This model was not trained for classes.", "quiet")
        return
    ranked = sorted(said.probabilities.items(), key=lambda item: -item[1])
    items = [
        f'<li><span class="name">{text(name)}</span><span class="track"><span class="bar" '
        f'style="width: {100 * chance:.2f}%"></span></span><span class="number">{chance:.3f}</span></li>'
        for name, chance in ranked
    ]
    yield f'<ol class="bars">{"".join(items[:_BARS])}</ol>'
    if len(items) > _BARS:
        yield folded(f"{len(items) - _BARS} more classes", f'<ol class="bars">{"".join(items[_BARS:])}</ol>')


def _hidden(all_said: Sequence[Prediction], least: float) -> str:
    found = [entity for said in all_said for entity in said.entities or ()]
    hidden = sum(entity.score < least for entity in found)
    if hidden:
        count = "1 entity" if hidden == 1 else f"{hidden:,} entities"
        return paragraph(f"{count} below {least:.2f} not shown", "quiet")
    learned = any(said.entities is not None for said in all_said)
    return paragraph("No entities were found.", "quiet") if learned and not found else ""


def _difference(result: Result, least: float) -> str:
    """What two models say differently, in a sentence."""
    if len(result.models) == 1:
        return ""
    first, second = result.models
    pairs = [
        (above_threshold(a, least), above_threshold(b, least))
        for a, b in zip(first.predictions, second.predictions)
        if a and b
    ]
    unlike = sum(differ(*pair) for pair in pairs)
    if result.file_name is not None:
        said = f"The models differ in {unlike:,} of {_count(len(pairs), 'row')}."
        return f'<p class="lead">{said if unlike else "The models agree in every row."}</p>'
    return f'<p class="lead">{_sentence(*pairs[0], first, second) if unlike else "The models agree."}</p>'


def _sentence(one: Prediction, other: Prediction, first: ModelPredictions, second: ModelPredictions) -> str:
    parts = []
    if one.label != other.label:
        parts.append(f"class {_class_of(one.label)} or {_class_of(other.label)}")
    for found, answers in ((entities_only_in(one, other), first), (entities_only_in(other, one), second)):
        if found:
            count = "1 entity" if len(found) == 1 else f"{len(found):,} entities"
            parts.append(f"{count} only in {text(answers.model)}")
    return f"The models differ: {', '.join(parts)}."


def _classes(read: Sequence[Prediction]) -> str:
    counts = Counter(said.label for said in read if said.label is not None).most_common(_BARS)
    items = "".join(f"<li>{text(name)} <span class='count'>{count:,}</span></li>" for name, count in counts)
    return f'<ul class="legend" aria-label="Classes, the most frequent first">{items}</ul>' if items else ""


def _class_of(label: str | None, said: Prediction | None = None, differs: bool = False) -> str:
    if label is None:
        return '<span class="class quiet">no class</span>'
    chance = f' <span class="number">{said.probabilities[label]:.3f}</span>' if said else ""
    mark = ' <span class="only">differs</span>' if differs else ""
    return f'<span class="class">{text(label)}{chance}{mark}</span>'


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
