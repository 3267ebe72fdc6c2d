"""Short name → method: curate's own, and those of installed packages. Nothing else can be named in a pipeline file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from curate.plugins.component import Component
from curate.plugins.registry import Registry


@dataclass(frozen=True)
class Entry(Component):
    """One method: its module and what a user should know before choosing it.

    Another package adds a method by an entry point of the group `curate.methods` that names such an entry.

    Attributes:
        features: its preferred kind of feature among those it can use, which its class lists; empty if it needs none.
        paper: where it is described.
        summary: what it does, in one line of at most 90 characters.
        costs: in forward and backward passes over the pool, at its defaults.
        choose: when to choose it.
        loop: whether it always learns while the proxy trains.
    """

    kind: ClassVar[str] = "method"

    features: str
    paper: str
    summary: str
    costs: str
    choose: str
    loop: bool = False

    @classmethod
    def blank(cls, problem: str) -> dict[str, Any]:
        """An entry without a description."""
        return {**dict.fromkeys(("features", "paper", "costs", "choose"), "-"), "summary": f"Cannot be used: {problem}"}

    @property
    def reads(self) -> str:
        """What it needs: `nothing`, `features` of every sample, or a `training` of the proxy."""
        return "training" if self.loop else "features" if self.features else "nothing"

    def mistake(self) -> str:
        """What is wrong with the line."""
        texts = {name: getattr(self, name) for name in ("features", "paper", "summary", "costs", "choose")}
        wrong = [name for name, text in texts.items() if not isinstance(text, str) or "\n" in text]
        return f"its {wrong[0]} is not a line of text" if wrong else ""

    def method(self) -> Any:
        """The method's class; its config class is its `Config`. Raises ConfigError if another package's cannot be used."""
        return self.attribute("METHOD")

    def made(self, config: Any) -> Any:
        """The method with its settings; another package's is held to what ours promise. Raises ConfigError."""
        if not self.outside:
            return self.method()(config)
        from curate.methods.guarded import (
            GuardedMethod,
        )  # imported late: it needs torch, which a list of methods does not

        return GuardedMethod(self, config)


NO_MODEL = "0: no model, seconds to minutes on a CPU"
ONE_PASS = "1 with gradients of all blocks, for any number of targets and methods"
FORWARD = "1/3: one forward pass"
STEPS = "6.3, in a training of the proxy"

METHODS = Registry(
    "curate.methods",
    Entry,
    (
        Entry(
            "uniform",
            "curate.methods.uniform",
            features="",
            paper="-",
            summary="Gives every sample the weight 1.",
            costs="0",
            choose="you need the baseline of a comparison",
        ),
        Entry(
            "random",
            "curate.methods.random",
            features="",
            paper="-",
            summary="Draws random weights.",
            costs="0",
            choose="you need the baseline of a selection: a random subset of the same size",
        ),
        Entry(
            "less",
            "curate.methods.less",
            features="gradients",
            paper="arXiv 2402.04333",
            summary="Scores by the cosine between the sample's gradient and the target's.",
            costs="1 a checkpoint of the warm-up, for any number of targets",
            choose="you want LESS as published, or a comparison with it",
        ),
        Entry(
            "influence",
            "curate.methods.influence",
            features="gradients",
            paper="arXiv 1703.04730",
            summary="Estimates how much a sample lowers the target's loss, given the curvature of the pool's.",
            costs=ONE_PASS,
            choose="you want one gradient pass over the pool and several targets later",
        ),
        Entry(
            "bds",
            "curate.methods.bds",
            features="gradients",
            paper="arXiv 2511.21056",
            summary="Solves for the weights that make training on the pool best for the target (bilevel).",
            costs=f"{ONE_PASS}; 9.0 with `loop`",
            choose="as influence; with `target_curvature: fisher` for a target of many rows; with `loop` for a damaged pool",
        ),
        Entry(
            "bmo",
            "curate.methods.bmo",
            features="gradients",
            paper="arXiv 2511.21056",
            summary="Weighs by how much a sample's loss falls when the target's is lowered.",
            costs=f"{ONE_PASS}; 3.2 with `loop`",
            choose="new rows must be weighed later without learning again; with `loop` for research only",
        ),
        Entry(
            "blade",
            "curate.methods.blade",
            features="",
            paper="arXiv 2606.18650",
            summary="Weighs by excess loss: the proxy's less that of a copy repeatedly moved toward the target.",
            costs="3.8, in a training of the proxy",
            choose="default when you can train the proxy: best or near best on all problems measured",
            loop=True,
        ),
        Entry(
            "rho1",
            "curate.methods.rho1",
            features="",
            paper="arXiv 2404.07965",
            summary="Weighs single tokens by excess loss against a model trained once on the target.",
            costs="3.3, in a training of the proxy",
            choose="you need weights of tokens",
            loop=True,
        ),
        Entry(
            "rho_loss",
            "curate.methods.rho_loss",
            features="",
            paper="arXiv 2206.07137",
            summary="Weighs samples by excess loss against a model trained once on the target.",
            costs="3.3, in a training of the proxy",
            choose="as blade, simpler and a little cheaper",
            loop=True,
        ),
        Entry(
            "filter_then_weight",
            "curate.methods.filter_then_weight",
            features="",
            paper="arXiv 2604.00001",
            summary="In each step keeps and weighs samples whose optimizer step is closest to the target's.",
            costs=STEPS,
            choose="you keep a few percent only, or select inside your own trainer",
            loop=True,
        ),
        Entry(
            "greats",
            "curate.methods.greats",
            features="",
            paper="NeurIPS 2024",
            summary="In each step keeps the samples that help the target most and differ from each other.",
            costs=STEPS,
            choose="you want GREATS as published, or a comparison with it",
            loop=True,
        ),
        Entry(
            "grad_match",
            "curate.methods.grad_match",
            features="",
            paper="arXiv 2103.00123",
            summary="In each step keeps and weighs samples whose summed gradient matches the target's.",
            costs=STEPS,
            choose="you want GRAD-MATCH, or a comparison with it",
            loop=True,
        ),
        Entry(
            "tracin",
            "curate.methods.tracin",
            features="",
            paper="arXiv 2002.08484",
            summary="In each step keeps samples whose gradients have the largest products with the target's.",
            costs=STEPS,
            choose="you want a comparison: it does not see duplicates",
            loop=True,
        ),
        Entry(
            "max_loss",
            "curate.methods.max_loss",
            features="",
            paper="arXiv 1910.00762",
            summary="In each step keeps the samples with the largest loss; reads no target.",
            costs="5.3, in a training of the proxy",
            choose="you need a negative control: it prefers noise",
            loop=True,
        ),
        Entry(
            "grad_norm",
            "curate.methods.grad_norm",
            features="",
            paper="arXiv 1803.00942",
            summary="In each step keeps the samples with the longest gradients; reads no target.",
            costs="5.3, in a training of the proxy",
            choose="you need a negative control: it prefers noise",
            loop=True,
        ),
        Entry(
            "dwm",
            "curate.methods.dwm",
            features="",
            paper="arXiv 2507.16178",
            summary="Trains a small network that reads a batch and weighs it; it works with other models too.",
            costs="5.2, in a training of the proxy",
            choose="you want to learn weights on a small model and use them in a large training",
            loop=True,
        ),
        Entry(
            "dsir",
            "curate.methods.dsir",
            features="ngrams",
            paper="arXiv 2302.03169",
            summary="Scores by words and pairs of words that are more frequent in the target than in the pool.",
            costs=NO_MODEL,
            choose="first choice when the target differs from the pool in topic",
        ),
        Entry(
            "bm25",
            "curate.methods.bm25",
            features="ngrams",
            paper="Robertson 2009",
            summary="Scores by BM25 relevance to the target's texts.",
            costs=NO_MODEL,
            choose="as dsir, for a target of a few texts",
        ),
        Entry(
            "embedding",
            "curate.methods.embedding",
            features="embeddings",
            paper="arXiv 1908.10084",
            summary="Scores by the cosine between the sample's embedding and the target's.",
            costs=FORWARD,
            choose="the target is a topic that other words can express, and you have a good encoder",
        ),
        Entry(
            "perplexity",
            "curate.methods.perplexity",
            features="losses",
            paper="arXiv 2309.04564",
            summary="Ranks by the proxy's loss and prefers the middle (or low, or high); reads no target.",
            costs=FORWARD,
            choose="you have no target and want noise and boilerplate out",
        ),
        Entry(
            "length",
            "curate.methods.length",
            features="losses",
            paper="arXiv 2402.04833",
            summary="Ranks by the number of tokens and prefers long (or short); reads no target.",
            costs=FORWARD,
            choose="you need a baseline for instruction data",
        ),
    ),
)
