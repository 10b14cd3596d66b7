"""The fields of config.json that are read for each family of encoders, with transformers' defaults."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from multitask.encoders.config_fields import Activation, Axis, Configuration, Epsilon, Id, Probability, Size


class Bert(Configuration):
    axes: ClassVar[tuple[Axis, ...]] = (
        Axis("vocab_size", "embeddings.word_embeddings.weight", 0),
        Axis("hidden_size", "embeddings.word_embeddings.weight", 1),
        Axis("max_position_embeddings", "embeddings.position_embeddings.weight", 0),
        Axis("type_vocab_size", "embeddings.token_type_embeddings.weight", 0),
        Axis("intermediate_size", "encoder.layer.0.intermediate.dense.weight", 0),
    )

    hidden_size: Size = 768
    num_hidden_layers: Size = 12
    num_attention_heads: Size = 12
    intermediate_size: Size = 3072
    type_vocab_size: Size = 2
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: Probability = 0.1
    attention_probs_dropout_prob: Probability = 0.1
    layer_norm_eps: Epsilon = 1e-12
    position_embedding_type: Literal["absolute"] = "absolute"


class Roberta(Bert):
    prefix = "roberta"
    vocab_size: Size = 50265
    pad_token_id: Id = 1  # positions begin after it


class XlmRoberta(Roberta):
    vocab_size: Size = 30522


class Electra(Bert):
    prefix = "electra"
    axes = (
        Bert.axes[0],
        Axis("embedding_size", "embeddings.word_embeddings.weight", 1),
        Axis("hidden_size", "encoder.layer.0.attention.self.query.weight", 1),
        *Bert.axes[2:],
    )

    embedding_size: Size = 128
    hidden_size: Size = 256
    num_attention_heads: Size = 4
    intermediate_size: Size = 1024


class DistilBert(Configuration):
    prefix = "distilbert"
    layer, width, depth, heads = "transformer.layer", "dim", "n_layers", "n_heads"
    axes = (
        Bert.axes[0],
        Axis("dim", "embeddings.word_embeddings.weight", 1),
        Bert.axes[2],
        Axis("hidden_dim", "transformer.layer.0.ffn.lin1.weight", 0),
    )

    dim: Size = 768
    n_layers: Size = 6
    n_heads: Size = 12
    hidden_dim: Size = 3072
    activation: Activation = "gelu"
    dropout: Probability = 0.1
    attention_dropout: Probability = 0.1
    sinusoidal_pos_embds: bool = False


class _Rope(BaseModel):
    """Rotary positions (Su et al. 2021) without scaling."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")
    rope_type: Literal["default"] = "default"
    rope_theta: Epsilon | None = None


class _Ropes(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    full_attention: _Rope
    sliding_attention: _Rope


class ModernBert(Configuration):
    prefix = "model"
    layer = "layers"
    axes = (
        Axis("vocab_size", "embeddings.tok_embeddings.weight", 0),
        Axis("hidden_size", "embeddings.tok_embeddings.weight", 1),
        Axis("intermediate_size", "layers.0.mlp.Wi.weight", 0, 2),
    )

    vocab_size: Size = 50368
    max_position_embeddings: Size = 8192
    pad_token_id: Id | None = 50283
    hidden_size: Size = 768
    num_hidden_layers: Size = 22
    num_attention_heads: Size = 12
    intermediate_size: Size = 1152
    hidden_activation: Activation = "gelu"
    classifier_activation: Activation = "gelu"
    embedding_dropout: Probability = 0.0
    mlp_dropout: Probability = 0.0
    classifier_dropout: Probability = 0.0
    attention_dropout: Probability = 0.0
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False
    classifier_bias: bool = False
    norm_eps: Epsilon = 1e-5
    initializer_cutoff_factor: Epsilon = 2.0
    local_attention: Size = 128
    global_attn_every_n_layers: Size = 3
    global_rope_theta: Epsilon = 160_000.0
    local_rope_theta: Epsilon | None = 10_000.0
    layer_types: list[Literal["full_attention", "sliding_attention"]] | None = None
    rope_parameters: _Ropes | None = None
    rope_scaling: None = None


class EuroBert(Configuration):
    prefix = "model"
    layer = "layers"
    axes = (
        Axis("vocab_size", "embed_tokens.weight", 0),
        Axis("hidden_size", "embed_tokens.weight", 1),
        Axis("intermediate_size", "layers.0.mlp.gate_proj.weight", 0),
    )

    vocab_size: Size = 128256
    max_position_embeddings: Size = 8192
    pad_token_id: Id | None = 128001
    hidden_size: Size = 768
    num_hidden_layers: Size = 12
    num_attention_heads: Size = 12
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    intermediate_size: Size = 3072
    hidden_act: Activation = "silu"
    hidden_dropout_prob: Probability = 0.1
    attention_dropout: Probability = 0.0
    attention_bias: bool = False
    mlp_bias: bool = False
    rms_norm_eps: Epsilon = 1e-5
    rope_theta: Epsilon | None = None
    rope_parameters: _Rope | None = None
    rope_scaling: None = None


class DebertaV2(Configuration):
    prefix = "deberta"
    axes = (
        Bert.axes[0],
        Axis("hidden_size", "encoder.layer.0.attention.self.query_proj.weight", 1),
        Axis("intermediate_size", "encoder.layer.0.intermediate.dense.weight", 0),
    )

    vocab_size: Size = 128100
    hidden_size: Size = 1536
    num_hidden_layers: Size = 24
    num_attention_heads: Size = 24
    intermediate_size: Size = 6144
    type_vocab_size: Annotated[int, Field(ge=0, lt=1 << 24)] = 0
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: Probability = 0.1
    attention_probs_dropout_prob: Probability = 0.1
    layer_norm_eps: Epsilon = 1e-7
    embedding_size: Size | None = None
    attention_head_size: Size | None = None
    relative_attention: bool = False
    max_relative_positions: Annotated[int, Field(ge=-1, lt=1 << 24)] = -1
    position_buckets: Annotated[int, Field(ge=-1, lt=1 << 24)] = -1
    position_biased_input: bool = True
    share_att_key: bool = False
    pos_att_type: str | list[Literal["c2p", "p2c"]] | None = None
    norm_rel_ebd: Literal["none", "layer_norm"] = "none"
    conv_kernel_size: Annotated[int, Field(ge=0, lt=1 << 8)] = 0
    conv_groups: Size = 1
    conv_act: Activation = "tanh"


CONFIGURATIONS: dict[str, type[Configuration]] = {
    "bert": Bert,
    "roberta": Roberta,
    "xlm-roberta": XlmRoberta,
    "camembert": XlmRoberta,
    "electra": Electra,
    "distilbert": DistilBert,
    "modernbert": ModernBert,
    "eurobert": EuroBert,
    "deberta-v2": DebertaV2,
}
