"""Column files of other projects and tools: read as they are meant, or refused, and never another reading."""

import pytest
from corpus_files import content, corpus_refusal, read, skipped

from multitask.data.labels import Span

MINA = ["Mina", "met", "Orbis"]
PERSON, FIRM = Span(0, 1, "PER"), Span(2, 3, "ORG")
UNER = "# sent_id = a-1\n1\tMina\tB-PER\t-\tanna\n2\tmet\tO\n3\tOrbis\tB-ORG\t-\tanna\n\n"
CONLL_U = (
    "# text = Mina met Orbis\n"
    "1\tMina\tMina\tPROPN\tNNP\t_\t2\tnsubj\t_\tNER=B-PER\n"
    "2\tmet\tmeet\tVERB\tVBD\t_\t0\troot\t_\tNER=O\n"
    "3\tOrbis\tOrbis\tPROPN\tNNP\t_\t2\tobj\t_\tNER=B-ORG|SpaceAfter=No\n\n"
)
GERMEVAL = (
    "#\thttp://de.wikipedia.org/wiki/Mina [2009-10-17]\n"
    "1\tMina\tB-PER\tO\n2\tmet\tO\tO\n3\tOrbis\tB-ORG\tB-LOC\n\n"
)
LABEL_STUDIO = (
    "-DOCSTART- -X- O\nI -X- _ B-Titre 1\nLetters -X- _ I-Titre 1\nOld -X- _ B-Job title\n-X- -X- _ O\n\n"
)


@pytest.mark.parametrize(
    ("name", "text", "notice"),
    [
        ("a.iob2", UNER, "read as UNER .iob2: words in column 2, tags in column 3"),
        ("a.conllu", CONLL_U, "read as CoNLL-U: words in column 2, tags from NER= in column 10"),
        (
            "a.tsv.conll",
            GERMEVAL,
            "read as GermEval: words in column 2, tags in column 3; the inner tags in column 4 are not read",
        ),
        ("a.conll", "Mina\tB-PER\t\nmet\tO\t\nOrbis\tB-ORG\t\n", ""),
        ("a.conll", "Mina\tB-PER \r\nmet\tO\r\nOrbis\t B-ORG\r\n", ""),
        (
            "a.conll",
            "# id 5c2a-11\tdomain=train\nMina _ _ B-PER\nmet _ _ O\nOrbis _ _ B-ORG\n",
            "words are read from column 1, tags from column 4",
        ),
        (
            "a.conll",
            "-DOCSTART- -X- -X- O\n\nMina NNP B-NP B-PER\nmet VBD B-VP O\nOrbis NNP B-NP B-ORG\n",
            "words are read from column 1, tags from column 4",
        ),
        ("a.bio", "B-PER\tMina\nO\tmet\nB-ORG\tOrbis\n", "words are read from column 2, tags from column 1"),
        (
            "a.bio",
            "0 Mina B-PER\n1 met O\n2 Orbis B-ORG\n",
            "words are read from column 2, tags from column 3",
        ),
        (
            "a.bio",
            "Mina\tB-PER\tanna\nmet\tO\tanna\nOrbis\tB-ORG\tanna\n",
            "words are read from column 1, tags from column 2",
        ),
        ("a.txt", "Mina PER\nmet O\nOrbis ORG\n", ""),
    ],
)
def test_words_and_tags_are_found(put, name, text, notice):
    path = put(name, text)
    result = read(path)
    assert content(result.examples) == [(MINA, [PERSON, FIRM], None)]
    line = result.examples[0].line
    assert result.notices == ([f"{path}:{line}: {notice}"] if notice else [])


def test_types_of_label_studio_may_have_blanks(put):
    result = read(put("a.conll", LABEL_STUDIO))
    spans = [Span(0, 2, "Titre 1"), Span(2, 3, "Job title")]
    assert content(result.examples) == [(["I", "Letters", "Old", "-X-"], spans, None)]
    assert "Label Studio" in result.notices[0]
    broken = LABEL_STUDIO + "a -X- _ O\nb -X- O\n\nc -X- _ none\n\nd -X- _ B-x\n"
    reason = "not a word, -X-, _ and a tag such as O or B-PERSON, as the other lines are"
    assert skipped(put("b.conll", broken)) == [f"8: {reason}", f"10: {reason}"]


def test_classes_and_other_sentences_of_conll_u(put):
    contraction = (
        "# newdoc id = 7\n# label = x\n# a free comment\n"
        "1-2\tdel\t_\t_\t_\t_\t_\t_\t_\t_\n"
        "1\tde\t_\t_\t_\t_\t_\t_\t_\tNER=O\n2\tel\t_\t_\t_\t_\t_\t_\t_\tNER=O\n"
        "2.1\tnone\t_\t_\t_\t_\t_\t_\t_\t_\n3\tNew York\t_\t_\t_\t_\t_\t_\t_\tNER=B-LOC\n"
    )
    rows = [(MINA, [PERSON, FIRM], None), (["de", "el", "New York"], [Span(2, 3, "LOC")], "x")]
    assert content(read(put("a.conllu", CONLL_U + contraction)).examples) == rows
    untagged = (CONLL_U + contraction).replace("NER=", "Gloss=")
    result = read(put("b.conllu", untagged))
    assert content(result.examples) == [(words, None, label) for words, _, label in rows]
    assert result.notices[0].endswith("words in column 2, no tags, as column 10 has no NER=")


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (UNER, "1\tOslo\n", "6: 2 columns, where line 2 has 5"),
        (UNER, "1\tOslo\tO\n3\tOslo\tO\n", "7: column 1 is '3', but this is word 2"),
        (UNER, "1 Oslo O\n", "6: no tab between the columns, where line 2 has tabs"),
        (UNER, "1\tOslo\t_\n", "6: the tag is _; write O for a word in no entity"),
        (GERMEVAL, "1\tOslo\tO\n", "6: 3 columns, where line 2 has 4"),
        (CONLL_U, "1\tOslo\tB-LOC\n", "6: 3 columns, where CoNLL-U has 10"),
        (
            CONLL_U,
            "1\tOslo" + 8 * "\t_" + "\n",
            "6: no NER= in column 10; write NER=O for a word in no entity",
        ),
        (
            CONLL_U,
            "1-2\tdel" + 7 * "\t_" + "\tNER=B-X\n",
            "6: '1-2' is not a word; it can't have the tag B-X",
        ),
        (CONLL_U, "1\tOslo" + 7 * "\t_" + "\tNER=O|NER=B-X\n", "6: the tag is empty; write O for a word"),
        (
            CONLL_U.replace("NER", "N") * 200,
            "1\ta" + 7 * "\t_" + "\tNER=O\n",
            "1001: NER= in column 10; the first sentences lack it",
        ),
        (
            "is O\nin O\n\n",
            "New York B-LOC\nis O\n",
            "4: 3 columns, where line 1 has 2; separate columns by tabs",
        ),
        ("is\tO\nin\tO\n\n", "New York\n", "4: no tab between the columns, where line 1 has tabs"),
        ("is O\n\n", "Oslo _\n", "3: the tag is _; write O for a word in no entity"),
        ("is\tO\n\n", "a\tO\n\tB-LOC\n", "4: the column of the word is empty"),
        ("is\tO\n\n", "Oslo\t\n", "3: the tag is empty; write O for a word in no entity"),
        ("a x O\n\n", "Oslo\tB-LOC\n", "3: 2 columns, where line 1 has 3"),
        ("B-X a\nO b\n\n", "Oslo\n", "4: 1 columns, where line 1 has 2"),
        ("a\nb\n\n" * 200, "a x O\n", "601: 3 columns, where a word and its tag are 2"),
    ],
)
def test_line_that_does_not_fit_spoils_its_sentence_only(put, good, bad, reason):
    result = read(put("a.conll", good + bad))
    alone = read(put("b.conll", good))
    assert content(result.examples) == content(alone.examples) != []
    (only,) = result.skipped
    assert only.removeprefix(f"{result.examples[0].path}:").startswith(reason)


def test_word_with_a_blank_loses_nothing(put):
    reason = "2: 2 columns, where line 1 has 3; separate columns by tabs if a word or tag has a blank"
    assert skipped(put("a.conll", "New York B-LOC\nis O\n\n")) == [reason]
    tabs = read(put("b.conll", "New York\tB-LOC\nis\tO\n\n"))
    assert content(tabs.examples) == [(["New York", "is"], [Span(0, 1, "LOC")], None)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Mina NNP anna\nmet VBD anna\n", "3 columns; none holds tags such as O and B-PERSON"),
        ("Mina B-PER B-PER\nmet O O\n", "3 columns; columns 2 and 3 may all hold the tags"),
        ("1 Mina B-NP B-PER\n2 met B-VP O\n", "4 columns; columns 3 and 4 may all hold the tags"),
        ("a B-NP B-A B-B x\n", "5 columns; columns 2 and 3 and 4 may all hold the tags"),
        ("a B-NP PER\nb B-NP PER\nc B-NP O\n", "3 columns; columns 2 and 3 may all hold the tags"),
        ("7 Mina B-PER\n8 met O\n", "3 columns; column 1 holds numbers that do not count the words"),
        ("doc1 Mina B-PER\ndoc1 met O\n", "3 columns; column 1 is 'doc1' on every line of its sentence"),
        ("1 Mina\n2 met\n", "2 columns; column 1 counts the words, and no column holds tags"),
        ("Mina _\nmet _\n", "2 columns; column 2 holds _, not tags such as O and B-PERSON"),
        ("O met\nPER Mina\nPER Ida\nPER Ada\n", "2 columns; both may hold tags"),
        ("d 0 0 Mina (PER*\nd 0 1 Sorel *)\n".replace("*)", "*"), "5 columns; "),
    ],
)
def test_file_without_one_column_of_words_and_one_of_tags_is_refused(put, text, reason):
    path = put("a.conll", text)
    assert corpus_refusal(path).startswith(f"{path}:1: {reason}")


def test_comments_and_words_that_begin_with_a_hash(put):
    text = "# newpar\n#sent_id = 1\n#a=b\tO\n#\tO\n# c = d\tB-X\n# text = Only O\nx\tO\n"
    assert content(read(put("a.conll", text)).examples) == [
        (["#a=b", "#", "# c = d", "x"], [Span(2, 3, "X")], None)
    ]
