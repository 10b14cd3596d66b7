"""Small random encoders of every family, each with a tokenizer of the kind that the family has.

The tokenizers are trained on corpus/ by the tokenizers library, and put together as published ones are."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from families import FAMILIES

LAYERS, SIZE = 2, 32
BERT_SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
FAIRSEQ_SPECIAL = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
# that of Llama 3, which EuroBERT has: a mark belongs to the letters after it, and digits stand in threes
LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)

_SIZES = {
    "hidden_size": SIZE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
_OWN_SIZES = {
    "distilbert": {
        "dim": SIZE,
        "n_layers": LAYERS,
        "n_heads": 4,
        "hidden_dim": 64,
        "max_position_embeddings": 66,
    },
    "electra": {**_SIZES, "embedding_size": 16},
    # one layer looks at four neighbours, the other at all tokens
    "modernbert": {**_SIZES, "local_attention": 8, "global_attn_every_n_layers": 2},
    "eurobert": {**_SIZES, "num_key_value_heads": 2},
    "deberta-v2": {
        **_SIZES,
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "conv_kernel_size": 3,
    },
}


def make_tokenizer(kind: str, texts: list[str], size: int = 600) -> PreTrainedTokenizerFast:
    """A tokenizer of a family, trained on texts."""
    made, trainer, special = _parts(kind, size)
    made.train_from_iterator(texts, trainer)
    first, last = (special[name] for name in ("cls", "sep"))
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(name, made.token_to_id(name)) for name in (first, last)]
    )
    names = {f"{name}_token": token for name, token in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def _parts(kind: str, size: int) -> tuple[Tokenizer, trainers.Trainer, dict[str, str]]:
    """The untrained tokenizer of a family, its trainer and its special tokens."""
    if kind in ("bert", "electra", "distilbert"):
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        wordpiece = trainers.WordPieceTrainer(vocab_size=size, special_tokens=[*BERT_SPECIAL.values()])
        return made, wordpiece, BERT_SPECIAL
    if kind in ("roberta", "modernbert", "eurobert"):
        special = {"roberta": FAIRSEQ_SPECIAL, "modernbert": BERT_SPECIAL}.get(
            kind, {"cls": "<|begin_of_text|>", "sep": "<|end_of_text|>", "pad": "<|pad|>", "mask": "<|mask|>"}
        )
        made = Tokenizer(models.BPE())
        bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind != "eurobert")
        made.pre_tokenizer = bytes_of_words
        if kind == "eurobert":
            split = pre_tokenizers.Split(Regex(LLAMA), behavior="isolated")
            made.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of_words])
        if kind == "modernbert":
            made.normalizer = normalizers.NFC()
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        bpe = trainers.BpeTrainer(
            vocab_size=size, special_tokens=[*special.values()], initial_alphabet=alphabet
        )
        return made, bpe, special
    special = BERT_SPECIAL if kind == "deberta-v2" else FAIRSEQ_SPECIAL
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    if kind == "xlm-roberta":
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), made.pre_tokenizer])
    if kind == "deberta-v2":
        made.normalizer = normalizers.Sequence([normalizers.Strip(), made.normalizer])
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    unigram = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=[*special.values()], unk_token=special["unk"]
    )
    return made, unigram, special


def make_encoder(kind: str, folder: Path, texts: list[str]) -> Path:
    """A folder of a family: an encoder with random weights and its tokenizer."""
    tokenizer = make_tokenizer(kind, texts)
    tokenizer.save_pretrained(folder)
    sizes = {**_OWN_SIZES.get(kind, _SIZES), "vocab_size": len(tokenizer)}
    sizes["pad_token_id"] = tokenizer.pad_token_id
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **sizes)
    options = FAMILIES[kind].encoder_options
    AutoModel.from_config(config, **options).save_pretrained(folder)
    return folder
