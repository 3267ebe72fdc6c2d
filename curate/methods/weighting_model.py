"""A small network that looks at a whole batch and says how much each of its samples should count.

What it reads of a sample depends on no model's width and on no sample's identity, so it can be carried to another model and
another pool: the mean of a frozen vector a token, how surprising its tokens are, its loss, and both against the batch.

Reference: DWM, 2025, arXiv 2507.16178 (a joint function of the batch; the architecture is not published).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from curate.bilevel.unrolled import surrogate
from curate.types import Batch

SCALARS = 4
"""Numbers that `inputs` adds to a sample's embedding."""
USUAL_LENGTH, USUAL_SPREAD = 5.0, 1.0
"""Middle and width of the logarithm of a sample's tokens, so that it comes to about 1."""
NOBODY = -1e4
"""Logit of a place without a sample."""
CHUNK = 512
"""Rows that are weighed together, each in company of its own."""
GRID = 64
"""Steps in which weights are made more alike."""


@dataclass(frozen=True)
class Vocabulary:
    """What is known of every token, whatever model reads it; frozen, and kept with the weighting model.

    Attributes:
        vectors: of every token [v, k].
        surprise: -log of its frequency in a pool, in nats [v].
        mean: of a sample's mean vector over samples of that pool [k].
        deviation: of it [k].
    """

    vectors: Tensor
    surprise: Tensor
    mean: Tensor
    deviation: Tensor

    def to(self, device: torch.device) -> Vocabulary:
        """The same on a device."""
        return Vocabulary(*(value.to(device) for value in (self.vectors, self.surprise, self.mean, self.deviation)))


@dataclass(frozen=True)
class Readings:
    """What is read of some samples.

    Attributes:
        embedding: standardised mean vector [b, k].
        surprise: mean of the predicted tokens' surprise, in nats [b].
        losses: mean token loss under the model that trains, in nats [b].
        lengths: tokens [b].
    """

    embedding: Tensor
    surprise: Tensor
    losses: Tensor
    lengths: Tensor


class WeightingModel(nn.Module):
    """Logits of the samples of a batch: linear, Transformer layers over the batch without positions, linear.

    The last layer is zero at the beginning, and so is every logit: exactly uniform weights.

    Args:
        inputs: numbers a sample k.
        width: of the layers.
        layers: how many.
        heads: of the attention.
        seed: of the initial weights.
    """

    def __init__(self, inputs: int, *, width: int = 32, layers: int = 1, heads: int = 4, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Linear(inputs, width)
            self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
            self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, inputs: Tensor, real: Tensor | None = None) -> Tensor:
        """Batches [..., b, k] to logits [..., b]; permuting a batch permutes its logits.

        Args:
            inputs: of the samples.
            real: False where there is none, bool [..., b]: nobody looks there; by default all are.
        """
        hidden = self.first(inputs)
        for layer in self.layers:
            hidden = layer(hidden, None if real is None else real[..., None, None, :])
        return self.last(self.norm(hidden))[..., 0]


class Layer(nn.Module):
    """Attention among the samples of a batch, then each for itself; both beside what was there before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_own = nn.LayerNorm(width), nn.LayerNorm(width)
        self.looks, self.sees = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widens, self.narrows = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """[..., b, d] to the same; `mask` [..., 1, 1, b] says who is looked at."""
        parts = self.looks(self.before_attention(hidden)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for part in parts)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        hidden = hidden + self.sees(seen.transpose(-3, -2).flatten(-2))
        return hidden + self.narrows(functional.gelu(self.widens(self.before_own(hidden))))


def weights_of(logits: Tensor, share: float = 0.0) -> Tensor:
    """b softmax(beta z): weights of mean 1 [..., b], exactly 1 where all logits are the same.

    Args:
        logits: z [..., b].
        share: least effective share (sum w)^2 / (b sum w^2); beta is the largest of 0, 1/64, ..., 1 that keeps to it, and
            takes no gradient. 0 leaves the logits as they are.
    """
    logits = logits - logits.amax(-1, keepdim=True)
    if share > 0:
        logits = logits * _gentle(logits.detach(), share)
    tilted = logits.exp()
    return tilted / tilted.mean(-1, keepdim=True)


def _gentle(logits: Tensor, share: float) -> Tensor:
    """beta [..., 1], found without waiting for the device: the effective share falls as beta grows."""
    scales = torch.linspace(0, 1, GRID + 1, dtype=logits.dtype, device=logits.device)
    tilted = (scales[:, None] * logits[..., None, :]).exp()
    shares = tilted.sum(-1) ** 2 / (logits.shape[-1] * (tilted**2).sum(-1))
    return torch.where(shares >= share, scales, 0.0).amax(-1, keepdim=True)


def objective(logits: Tensor, slopes: Tensor, real: Tensor, entropy: float) -> Tensor:
    """What the network goes down: -sum_j p_j s_j + entropy KL(p | uniform), p = softmax(z), mean over batches.

    The first part is the surrogate of the target's loss (`bilevel.unrolled.surrogate`). The second gives it a minimum inside:
    p_j is then in proportion to exp(s_j / entropy), the s_j as far as the network can tell them from what it reads.

    Args:
        logits: z [n, b].
        slopes: s [n, b], anything where there is no sample.
        real: where there is one, bool [n, b].
        entropy: of the second part, in slopes.
    """
    log_shares = torch.log_softmax(logits.masked_fill(~real, NOBODY), dim=-1)
    shares = log_shares.exp()
    apart = (shares * log_shares).sum(-1) + real.sum(-1).log()
    gained = torch.stack([surrogate(own, found, 1.0) for own, found in zip(shares, slopes, strict=True)])
    return (gained + entropy * apart).mean()


def vocabulary(counts: Tensor, vectors: Tensor, *, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Vectors of every token [v, k], at random projected to `dim` numbers if they have more, and its surprise [v].

    Args:
        counts: how often each token is in some samples of the pool [v].
        vectors: [v, d], such as a model's input embedding.
        dim: most numbers k.
        seed: of the projection.
    """
    vectors = vectors.detach().float().cpu().clone()  # the model goes on training
    if vectors.shape[1] > dim:
        noise = torch.Generator().manual_seed(seed)
        vectors = vectors @ torch.randn(vectors.shape[1], dim, generator=noise) / vectors.shape[1] ** 0.5
    smoothed = counts.double().cpu() + 1
    return vectors, (smoothed.sum().log() - smoothed.log()).float()


def mean_vectors(vectors: Tensor, batch: Batch) -> Tensor:
    """Mean of the vectors of a sample's tokens [b, k]."""
    attention = batch.attention.to(vectors)
    found = vectors[batch.ids.to(vectors.device)]
    return (attention[..., None] * found).sum(1) / attention.sum(1, keepdim=True).clamp(min=1)


def read(batch: Batch, losses: Tensor, known: Vocabulary | None) -> Readings:
    """What is read of a batch's samples, given their losses [b]; without a vocabulary their embedding is empty."""
    lengths = batch.attention.sum(1).to(losses)
    if known is None:
        return Readings(losses.new_zeros(len(losses), 0), torch.zeros_like(losses), losses.detach(), lengths)
    embedding = (mean_vectors(known.vectors, batch) - known.mean) / known.deviation
    predicted = batch.predicted.to(losses)
    surprise = (known.surprise[batch.ids.to(losses.device)] * predicted).sum(1) / predicted.sum(1).clamp(min=1)
    return Readings(embedding, surprise, losses.detach(), lengths)


def inputs(readings: Readings, crowd: Readings | None = None) -> Tensor:
    """What the network reads of every sample [b, k + 4], float32.

    Beside the embedding: the loss in deviations of the crowd's and less its mean, how much less it is than the surprise (what
    the model gains from context; words in random order give it little) against the crowd, and the logarithm of the length.

    Args:
        readings: of the samples.
        crowd: of the samples that they are compared with; by default these.
    """
    crowd = crowd or readings
    gain, others = readings.surprise - readings.losses, crowd.surprise - crowd.losses
    apart = readings.losses - crowd.losses.mean()
    deviation = crowd.losses.std(correction=0).clamp(min=1e-6)
    length = (readings.lengths.log() - USUAL_LENGTH) / USUAL_SPREAD
    scalars = torch.stack([(apart / deviation).clamp(-4, 4), apart, gain - others.mean(), length], dim=1)
    return torch.cat([readings.embedding.float(), scalars.float()], dim=1)


@torch.no_grad()
def logits_in_company(network: WeightingModel, rows: Readings, company: Readings) -> Tensor:
    """Logit of every row among the same other samples, less the logarithm of the mean of their exponentials [n].

    So what a row weighs depends on no other row of its shard, and logits of different shards can be compared, which those of
    different batches cannot: a batch has only its own samples to compare.

    Args:
        network: the weighting model.
        rows: n of them.
        company: m samples of the pool.
    """
    own, others = inputs(rows, company), inputs(company)
    found = []
    for start in range(0, len(own), CHUNK):
        part = own[start : start + CHUNK, None]
        logits = network(torch.cat([others.expand(len(part), -1, -1), part], dim=1))
        found.append(logits[:, -1] - torch.logsumexp(logits[:, :-1], 1) + math.log(len(others)))
    return torch.cat(found) if found else own.new_zeros(0)


def restored(state: Mapping[str, Tensor]) -> WeightingModel:
    """The network whose `state_dict` this is."""
    layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    width, seen = state["first.weight"].shape
    network = WeightingModel(seen, width=width, layers=layers)
    network.load_state_dict(dict(state))
    return network


def known_from(tensors: Mapping[str, Tensor]) -> Vocabulary | None:
    """A vocabulary from its tensors by name; None if nothing is known of tokens."""
    if not len(tensors["surprise"]):
        return None
    return Vocabulary(tensors["vectors"], tensors["surprise"], tensors["mean"], tensors["deviation"])


def joined(parts: Sequence[Readings]) -> Readings:
    """Readings of several batches as one."""
    return Readings(*(torch.cat([getattr(part, name) for part in parts]) for name in Readings.__annotations__))
