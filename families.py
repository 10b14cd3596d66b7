"""What differs between families of encoders: where their parts are, and what a layer needs besides its input.

One object for each `model_type` of transformers that a MultiTaskTransformer can be built on. All code of the
layers themselves is transformers' own. B batch, T tokens, D hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    EuroBertConfig,
    EuroBertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask
from transformers.models.modernbert.modeling_modernbert import ModernBertPredictionHead

RunLayer = Callable[[int, Tensor], Tensor]


class Family:
    """BERT, and what the others have in common with it.

    Attributes:
        name: as people write it.
        config_class, encoder_class: transformers' own. Its `base_model_prefix` is the encoder's name in the
            family's token classifier, and therefore in a MultiTaskTransformer.
        layers: the path of the layers in the encoder.
        below: the paths of the modules that all layers stand on.
        above: the path of the norm after the last layer; None where a layer has its own.
        beside: the path of what runs beside the lowest layer; None: nothing.
        dropouts: the fields of dropout in the configuration, first that of the heads.
        attention_dropout: the field of the dropout of attention weights.
        lora: the paths in a layer of the matrices that adapters can be added to.
        has_bert_layers: whether a layer has the modules of a BertLayer.
        packs: whether windows can be placed end to end: the position of each token can be given, and a layer
            looks at nothing but the mask.
        attentions: the attention implementations that it has, the faster one last.
        replays: whether a pass can be recorded as a CUDA graph."""

    name = "BERT"
    config_class: type[PreTrainedConfig] = BertConfig
    encoder_class: type[PreTrainedModel] = BertModel
    encoder_options: dict[str, Any] = {"add_pooling_layer": False}
    layers = "encoder.layer"
    below: tuple[str, ...] = ("embeddings",)
    above: str | None = None
    beside: str | None = None
    dropouts: tuple[str, ...] = ("hidden_dropout_prob",)
    attention_dropout = "attention_probs_dropout_prob"
    lora: dict[str, tuple[str, ...]] = {
        "query": ("attention.self.query",),
        "key": ("attention.self.key",),
        "value": ("attention.self.value",),
        "attention_output": ("attention.output.dense",),
        "intermediate": ("intermediate.dense",),
        "output": ("output.dense",),
    }
    has_bert_layers = True
    packs = True
    attentions: tuple[str, ...] = ("eager", "sdpa")
    replays = True

    def make_encoder(self, config: PreTrainedConfig) -> PreTrainedModel:
        """The encoder without a pooler, with random weights."""
        return self.encoder_class(config, **self.encoder_options)

    def num_positions(self, config: PreTrainedConfig) -> int:
        """The most tokens that the encoder takes, special tokens included."""
        return config.max_position_embeddings

    def embed(
        self, encoder: Any, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        """Token ids (B, T) and mask (B, T) → the input of the lowest layer (B, T, D).

        `positions` (B, T) count from 0; None: each row is one window."""
        return encoder.embeddings(input_ids, position_ids=positions)

    def depths(self, encoder: nn.Module) -> list[list[nn.Module]]:
        """The modules of an encoder by depth: first what all layers stand on, then those of each layer from
        the lowest to the highest, the last one with the norm above it."""
        layers = [[layer] for layer in part(encoder, self.layers)]
        layers[0] += [part(encoder, self.beside)] if self.beside else []
        layers[-1] += [part(encoder, self.above)] if self.above else []
        depths = [[part(encoder, path) for path in self.below], *layers]
        return [[module for module in modules if module is not None] for modules in depths]

    def runner(self, encoder: Any, hidden: Tensor, attention_mask: Tensor) -> RunLayer:
        """What runs the layer of a number, from 0, on a hidden state (B, T, D), for inputs of the shape and
        device of `hidden` and this mask: (B, T), or (B, 1, T, T) for packed windows."""
        mask = create_bidirectional_mask(encoder.config, hidden, attention_mask)
        layers = part(encoder, self.layers)
        return lambda number, x: layers[number](x, mask)

    def token_head(self, config: PreTrainedConfig) -> nn.Module | None:
        """What the family's own token classifier has between the encoder and the dropout before its linear
        layer; None: nothing."""
        return None


class Roberta(Family):
    """RoBERTa: the positions of a text begin after the padding's id (Liu et al. 2019, as fairseq has it)."""

    name = "RoBERTa"
    config_class: type[PreTrainedConfig] = RobertaConfig
    encoder_class: type[PreTrainedModel] = RobertaModel

    def num_positions(self, config: PreTrainedConfig) -> int:
        return config.max_position_embeddings - (config.pad_token_id or 0) - 1

    def embed(
        self, encoder: Any, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        if positions is not None:
            positions = positions + encoder.embeddings.padding_idx + 1
        return encoder.embeddings(input_ids, position_ids=positions)


class XlmRoberta(Roberta):
    """XLM-R: RoBERTa in a hundred languages."""

    name = "XLM-RoBERTa"
    config_class, encoder_class = XLMRobertaConfig, XLMRobertaModel


class Camembert(Roberta):
    """CamemBERT: RoBERTa in French."""

    name = "CamemBERT"
    config_class, encoder_class = CamembertConfig, CamembertModel


class Electra(Family):
    """ELECTRA: its embeddings may be narrower than its layers."""

    name = "ELECTRA"
    config_class, encoder_class, encoder_options = ElectraConfig, ElectraModel, {}
    below = ("embeddings", "embeddings_project")

    def embed(
        self, encoder: Any, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        hidden = encoder.embeddings(input_ids, position_ids=positions)
        return encoder.embeddings_project(hidden) if hasattr(encoder, "embeddings_project") else hidden


class DistilBert(Family):
    """DistilBERT: other names."""

    name = "DistilBERT"
    config_class, encoder_class, encoder_options = DistilBertConfig, DistilBertModel, {}
    layers = "transformer.layer"
    dropouts, attention_dropout = ("dropout",), "attention_dropout"
    has_bert_layers = False
    lora = {
        "query": ("attention.q_lin",),
        "key": ("attention.k_lin",),
        "value": ("attention.v_lin",),
        "attention_output": ("attention.out_lin",),
        "intermediate": ("ffn.lin1",),
        "output": ("ffn.lin2",),
    }


class ModernBert(Family):
    """ModernBERT (mmBERT and Ettin too): rotary positions, and layers that look at a few neighbours only. Its
    token classifier has the layer of its language model between the encoder and the linear layer."""

    name = "ModernBERT"
    config_class, encoder_class, encoder_options = ModernBertConfig, ModernBertModel, {}
    layers, above = "layers", "final_norm"
    dropouts = ("classifier_dropout", "embedding_dropout", "mlp_dropout")
    attention_dropout = "attention_dropout"
    has_bert_layers = packs = False
    lora = {
        **dict.fromkeys(("query", "key", "value"), ("attn.Wqkv",)),
        "attention_output": ("attn.Wo",),
        "intermediate": ("mlp.Wi",),
        "output": ("mlp.Wo",),
    }

    def embed(
        self, encoder: Any, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        return encoder.embeddings(input_ids)

    def runner(self, encoder: Any, hidden: Tensor, attention_mask: Tensor) -> RunLayer:
        config, layers = encoder.config, encoder.layers
        make_mask = {
            "full_attention": create_bidirectional_mask,
            "sliding_attention": create_bidirectional_sliding_window_mask,
        }
        kinds = set(config.layer_types)
        masks = {kind: make_mask[kind](config, hidden, attention_mask) for kind in kinds}
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        rotations = {kind: encoder.rotary_emb(hidden, positions, kind) for kind in kinds}

        def run(number: int, x: Tensor) -> Tensor:
            kind = config.layer_types[number]
            return layers[number](x, attention_mask=masks[kind], position_embeddings=rotations[kind])

        return run

    def token_head(self, config: PreTrainedConfig) -> nn.Module | None:
        return ModernBertPredictionHead(cast(ModernBertConfig, config))


class EuroBert(Family):
    """EuroBERT: the layers of a Llama, with attention in both directions and rotary positions."""

    name = "EuroBERT"
    config_class, encoder_class, encoder_options = EuroBertConfig, EuroBertModel, {}
    layers, below, above = "layers", ("embed_tokens",), "norm"
    attention_dropout = "attention_dropout"
    has_bert_layers = packs = False
    lora = {
        "query": ("self_attn.q_proj",),
        "key": ("self_attn.k_proj",),
        "value": ("self_attn.v_proj",),
        "attention_output": ("self_attn.o_proj",),
        "intermediate": ("mlp.gate_proj", "mlp.up_proj"),
        "output": ("mlp.down_proj",),
    }

    def embed(
        self, encoder: Any, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        return encoder.embed_tokens(input_ids)

    def runner(self, encoder: Any, hidden: Tensor, attention_mask: Tensor) -> RunLayer:
        mask = create_bidirectional_mask(encoder.config, hidden, attention_mask)
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        options = {
            "attention_mask": mask,
            "position_ids": positions,
            "position_embeddings": encoder.rotary_emb(hidden, position_ids=positions),
        }
        return lambda number, x: encoder.layers[number](x, **options)


class DebertaV2(Family):
    """DeBERTa-v2 and v3: attention to relative positions, whose embeddings all layers share; in some sizes a
    convolution beside the lowest layer."""

    name = "DeBERTa"
    config_class, encoder_class, encoder_options = DebertaV2Config, DebertaV2Model, {}
    below, beside = ("embeddings", "encoder.rel_embeddings", "encoder.LayerNorm"), "encoder.conv"
    has_bert_layers = packs = replays = False
    attentions = ("eager",)
    lora = {
        **Family.lora,
        "query": ("attention.self.query_proj",),
        "key": ("attention.self.key_proj",),
        "value": ("attention.self.value_proj",),
    }

    def embed(
        self, encoder: Any, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        return encoder.embeddings(input_ids, mask=attention_mask)

    def runner(self, encoder: Any, hidden: Tensor, attention_mask: Tensor) -> RunLayer:
        stack = encoder.encoder
        options = {
            "attention_mask": stack.get_attention_mask(attention_mask),
            "relative_pos": stack.get_rel_pos(hidden),
            "rel_embeddings": stack.get_rel_embedding(),
        }

        def run(number: int, x: Tensor) -> Tensor:
            output, _ = stack.layer[number](x, **options)
            if number == 0 and stack.conv is not None:
                return stack.conv(x, output, attention_mask)
            return output

        return run


FAMILIES: dict[str, Family] = {
    family.config_class.model_type: family
    for family in (
        Family(),
        Roberta(),
        XlmRoberta(),
        Camembert(),
        Electra(),
        DistilBert(),
        ModernBert(),
        EuroBert(),
        DebertaV2(),
    )
}


def part(encoder: nn.Module, path: str) -> Any:
    """The module at a path such as "encoder.layer"; None where an encoder lacks it."""
    module: Any = encoder
    for name in path.split("."):
        module = getattr(module, name, None)
    return module
