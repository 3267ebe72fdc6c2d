"""Short name → method: an allow-list. Nothing outside it can be named in a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One method: where it lives and what a user wants to know before choosing it."""

    name: str
    module: str
    features: str
    """Kind of feature that is its own among those it can use, which its class lists; empty if it needs none."""
    paper: str
    summary: str
    loop: bool = False
    """Whether it always learns while the proxy trains."""

    @property
    def reads(self) -> str:
        """What it needs: `nothing`, `features` of every sample, or a `training` of the proxy."""
        return "training" if self.loop else "features" if self.features else "nothing"

    def method(self) -> Any:
        """The method's class; its config class is its `Config`."""
        return import_module(self.module).METHOD


METHODS = {
    entry.name: entry
    for entry in (
        Entry("uniform", "curate.methods.uniform", "", "-", "every sample counts 1: the control of every comparison"),
        Entry("random", "curate.methods.random", "", "-", "random weights: the control of every selection"),
        Entry(
            "less", "curate.methods.less", "gradients", "arXiv 2402.04333", "cosine of the feature with the target's"
        ),
        Entry(
            "influence",
            "curate.methods.influence",
            "gradients",
            "arXiv 1703.04730",
            "influence on the target's loss, with curvature",
        ),
        Entry(
            "bds", "curate.methods.bds", "gradients", "arXiv 2511.21056", "bilevel weights, solved on stored features"
        ),
        Entry(
            "bmo",
            "curate.methods.bmo",
            "gradients",
            "arXiv 2511.21056",
            "every loss an objective: weights follow from the samples' gains",
        ),
        Entry(
            "blade",
            "curate.methods.blade",
            "",
            "arXiv 2606.18650",
            "what the proxy has yet to learn and a twin knows that is moved toward the target again and again",
            loop=True,
        ),
        Entry(
            "rho1",
            "curate.methods.rho1",
            "",
            "arXiv 2404.07965",
            "tokens that a model of the target knows and the proxy does not yet",
            loop=True,
        ),
        Entry(
            "rho_loss",
            "curate.methods.rho_loss",
            "",
            "arXiv 2206.07137",
            "samples that a model of the target knows and the proxy does not yet",
            loop=True,
        ),
        Entry(
            "filter_then_weight",
            "curate.methods.filter_then_weight",
            "",
            "arXiv 2604.00001",
            "how much of the training steps that serve the target, under the optimizer's own metric, a sample made up",
            loop=True,
        ),
        Entry(
            "greats",
            "curate.methods.greats",
            "",
            "NeurIPS 2024",
            "how often it was in the greedy half of its batch, by gradients",
            loop=True,
        ),
        Entry(
            "grad_match",
            "curate.methods.grad_match",
            "",
            "arXiv 2103.00123",
            "its coefficient in the match of the target's gradient, step by step",
            loop=True,
        ),
        Entry(
            "tracin",
            "curate.methods.tracin",
            "",
            "arXiv 2002.08484",
            "how often its gradient was among those of its batch that help the target most",
            loop=True,
        ),
        Entry(
            "max_loss",
            "curate.methods.max_loss",
            "",
            "arXiv 1910.00762",
            "how often its loss was among the largest of its batch: a control",
            loop=True,
        ),
        Entry(
            "grad_norm",
            "curate.methods.grad_norm",
            "",
            "arXiv 1803.00942",
            "how often its gradient was among the longest of its batch: a control",
            loop=True,
        ),
        Entry(
            "dwm",
            "curate.methods.dwm",
            "",
            "arXiv 2507.16178",
            "what a network of whole batches says, which learned what one step under its weights does to the target",
            loop=True,
        ),
        Entry(
            "dsir",
            "curate.methods.dsir",
            "ngrams",
            "arXiv 2302.03169",
            "words more usual in the target than in the pool",
        ),
        Entry("bm25", "curate.methods.bm25", "ngrams", "Robertson 2009", "found by a search for the target's texts"),
        Entry(
            "embedding",
            "curate.methods.embedding",
            "embeddings",
            "arXiv 1908.10084",
            "cosine of the embedding with the target's",
        ),
        Entry(
            "perplexity",
            "curate.methods.perplexity",
            "losses",
            "arXiv 2309.04564",
            "rank of the loss: near the median, low or high",
        ),
        Entry("length", "curate.methods.length", "losses", "arXiv 2402.04833", "rank of the number of tokens"),
    )
}
