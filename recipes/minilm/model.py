"""all-MiniLM-L6-v2: transformers' BertModel, and the mean of its last hidden states.

The sentence embedding is that of Sentence-BERT (Reimers and Gurevych, arXiv:1908.10084): the mean
of the last hidden states of all tokens that are not padding, scaled to length 1.

Three parts are written for XNNPACK, with the same result but for rounding: attention without
`matmul`, whose expanded operands stay behind; layer normalization from means that XNNPACK has; and
masks that are float from the start. The float program is then one delegate where BertModel as it is
gives 29.
"""

import torch
from package import TOKENS, files
from safetensors.torch import load_file
from torch import nn
from transformers import AttentionInterface, BertConfig, BertModel

MASKED = -1e4  # added to the scores of padding: far below any score


def attention(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    **_others: object,
) -> tuple[torch.Tensor, None]:
    """query, key, value [1, heads, T, size], mask [1, 1, T] -> [1, T, heads, size]."""
    query, key, value = (tensor.flatten(0, 1) for tensor in (query, key, value))
    scores = torch.bmm(query, key.transpose(1, 2)) * scaling + mask
    mixed = torch.bmm(torch.softmax(scores, dim=-1), value).transpose(0, 1)
    return mixed.reshape(1, *mixed.shape), None


class LayerNorm(nn.Module):
    """nn.LayerNorm over the last dimension of [1, T, size], in operators that XNNPACK has."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # XNNPACK has the mean over the two innermost of four dimensions.
        centered = x.unsqueeze(-1)
        centered = centered - centered.mean([2, 3], keepdim=True)
        variance = (centered * centered).mean([2, 3], keepdim=True)
        return (centered * torch.rsqrt(variance + self.eps)).flatten(2) * self.weight + self.bias


class SentenceEmbedding(nn.Module):
    """input_ids [1, T] int64, attention_mask [1, T] int64 -> [1, size] float32 of length 1."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        embeddings = bert.embeddings
        # Positions are fixed and all tokens are of the first sentence: both are one constant.
        places = embeddings.position_embeddings.weight[:TOKENS]
        self.places = nn.Buffer((places + embeddings.token_type_embeddings.weight[0]).detach())
        self.words = embeddings.word_embeddings
        self.norm = embeddings.LayerNorm
        self.encoder = bert.encoder
        replace_norms(self)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        present = attention_mask.float().reshape(1, 1, TOKENS)
        hidden = self.norm(self.words(input_ids) + self.places)
        hidden = self.encoder(hidden, attention_mask=(1 - present) * MASKED).last_hidden_state
        # The sum will do for the mean: its length is made 1 in any case.
        total = torch.bmm(present, hidden)
        return (total * torch.rsqrt(torch.bmm(total, total.transpose(1, 2)))).flatten(1)


def replace_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.LayerNorm):
            setattr(module, name, LayerNorm(child))
        else:
            replace_norms(child)


def bert() -> BertModel:
    """The network with its weights, without the pooler, which sentence embeddings do not use."""
    AttentionInterface.register("minilm", attention)
    config = BertConfig.from_json_file(files() / "config.json")
    with torch.device("meta"):  # its own random weights would only be overwritten
        network = BertModel(config, add_pooling_layer=False)
    network.set_attn_implementation("minilm")
    state = load_file(files() / "model.safetensors")
    own = {name: state[name] for name in network.state_dict()}
    network.load_state_dict(own, strict=True, assign=True)
    return network


def build() -> SentenceEmbedding:
    return SentenceEmbedding(bert()).eval()
