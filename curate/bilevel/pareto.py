"""Every sample's loss as an objective of its own: weak Pareto optimality, softly, and the weights that it implies.

    m(theta) = sup_theta' min_i (l_i(theta) - l_i(theta'))          >= 0, and 0 where no theta' is better for all samples
    m_tau    = -tau log (1/n) sum_i exp(-(l_i - l_i') / tau)        its soft version against one theta'
    grad m_tau = sum_i w_i grad l_i,   w = softmax(-(l - l') / tau)

With l_i = -log pi(y_i | x_i) the weights are normalised importance ratios (pi / pi')^(1/tau). Large tau: all alike; small
tau: the samples that gained most.

Reference: Xiao and Chen, 2025, arXiv 2511.21056 (in words; the formulas are derived).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def merit(losses: Tensor, reference_losses: Tensor, temperature: float) -> Tensor:
    """m_tau, a scalar in nats; losses [n] at theta and at theta'."""
    gains = (reference_losses - losses) / temperature
    return -temperature * (torch.logsumexp(gains, 0) - math.log(len(gains)))


def implicit_logits(losses: Tensor, reference_losses: Tensor, temperature: float) -> Tensor:
    """-(l - l') / tau [n], whose softmax is w: comparable between batches, where a softmax is not."""
    return (reference_losses - losses) / temperature


def implicit_weights(losses: Tensor, reference_losses: Tensor, temperature: float) -> Tensor:
    """w [n], sum 1."""
    return torch.softmax(implicit_logits(losses, reference_losses, temperature), dim=0)


def importance_loss(log_probs: Tensor, sampler_log_probs: Tensor, mask: Tensor, *, clip: float) -> Tensor:
    """Loss of responses that an earlier model wrote, each token weighted by how much likelier it has become.

    (1/|y|) sum_t sg[min(clip, pi_t / pi_old,t)] (-log pi_t) for every response, in nats a token.

    Args:
        log_probs: log pi_t of the model that is trained [b, t].
        sampler_log_probs: log pi_old,t when the response was generated [b, t]; taken as at least -30.
        mask: 1 on tokens of the response, 0 elsewhere [b, t]; at least one in each row.
        clip: largest ratio of a token.

    Reference: the code released with arXiv 2511.21056.
    """
    ratios = torch.exp(log_probs.detach() - sampler_log_probs.clamp(min=-30)).clamp(max=clip)
    return (ratios * -log_probs * mask).sum(1) / mask.sum(1)
