"""The raw text in a comment above a sentence of columns."""

from corpus_files import read

CONLLU = """# text = Mina met Orbis
1\tMina\tMina\tPROPN\tNNP\t_\t2\tnsubj\t_\tNER=B-PER
2\tmet\tmeet\tVERB\tVBD\t_\t0\troot\t_\tNER=O
3\tOrbis\tOrbis\tPROPN\tNNP\t_\t2\tobj\t_\tNER=B-ORG|SpaceAfter=No

1-2\tdont\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\t_\t_\t0\troot\t_\tNER=O
2\tnt\tnot\tPART\t_\t_\t1\tadv\t_\tSpaceAfter=No|NER=O
2.1\tgo\tgo\tVERB\t_\t_\t_\t_\t_\t_
"""


def test_the_raw_text_of_a_sentence_is_kept_if_it_has_its_words(put):
    first, second = read(put("a.conllu", CONLLU.replace("1-2\tdont", "# text = dont\n1-2\tdont"))).examples
    assert (first.text, first.offsets) == ("Mina met Orbis", [(0, 4), (5, 8), (9, 14)])
    assert (second.text, second.offsets) == ("dont", [(0, 2), (2, 4)])
    (example,) = read(put("b.conllu", "# text = Mina  left!\nMina\tB-PER\nwent\tO\n")).examples
    assert (example.text, example.words) == (None, ["Mina", "went"])
