"""Responses sampled from a model, with the log-probability that each token had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from curate.models.language_model import LanguageModel


@dataclass(frozen=True)
class Response:
    """What a model wrote.

    Attributes:
        ids: tokens, the end-of-text token included where it was reached.
        log_probs: log pi(token | what stands before it) of each, in nats, under the sampler at temperature 1.
    """

    ids: list[int]
    log_probs: list[float]


@torch.no_grad()
def generate(
    language_model: LanguageModel, prompts: Sequence[Sequence[int]], *, new_tokens: int, temperature: float, seed: int
) -> list[Response]:
    """Sample one response to every prompt, all in one batch.

    Args:
        language_model: the sampler.
        prompts: token ids, at least one each; padded on the left here.
        new_tokens: largest number of tokens of a response.
        temperature: of the sampling.
        seed: of the draws; the responses depend on it and on the batch.
    """
    device, stop = language_model.device, language_model.tokenizer.eos_token_id
    end = stop if isinstance(stop, int) else None
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.int64)
    attention = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :], attention[row, width - len(prompt) :] = torch.tensor(prompt), 1
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        made = language_model.causal.generate(  # pyright: ignore[reportCallIssue]
            input_ids=ids.to(device),
            attention_mask=attention.to(device),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=new_tokens,
            eos_token_id=end,
            pad_token_id=0 if end is None else end,
            return_dict_in_generate=True,
            output_logits=True,
        )
    scores = torch.stack(made.logits, 1).float().log_softmax(-1)  # pyright: ignore
    tokens = made.sequences[:, width:]  # pyright: ignore
    log_probs = scores.gather(2, tokens[..., None])[..., 0].cpu().tolist()
    return [_response(row, own, end) for row, own in zip(tokens.cpu().tolist(), log_probs, strict=True)]


def _response(ids: list[int], log_probs: list[float], end: int | None) -> Response:
    length = ids.index(end) + 1 if end in ids else len(ids)
    return Response(ids[:length], log_probs[:length])
