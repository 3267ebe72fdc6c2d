"""What is claimed of gradient features: what runs against what, and how far it must reach."""

from __future__ import annotations

from dataclasses import dataclass

import stages
from material import LENGTH_ROWS, LENGTHS


@dataclass(frozen=True)
class Line:
    """One comparison of times.

    Attributes:
        part: name to choose it by.
        name: what is compared, as the README says it.
        ours: a contestant, `environment:contestant`.
        against: the ones it is compared with; the fastest of them counts.
        reach: `<= x`: our time over theirs; `>= x`: theirs over ours.
        sizes: models to measure with.
        agree: whether all of them must come to the same figure.
        batch: what a call is given, if it is not one batch of the model's shape.
    """

    part: str
    name: str
    ours: str
    against: tuple[str, ...]
    reach: str
    sizes: tuple[str, ...] = ("7m", "40m")
    agree: bool = True
    batch: str | None = None

    @property
    def contestants(self) -> tuple[str, ...]:
        return (self.ours, *self.against)


GIVEN = " given curate's products"
"""Ends the name of an environment whose products are computed as curate chooses them on this machine; peers as released
compute theirs as PyTorch comes, and so does `torch`. What is in `curate` has them, also limits and plain loops."""
PLAIN, LIMIT = ("curate:forward_backward",), ("curate:activation_gradients",)
PEERS = ("bergson:concat", "dattri-llm:concat")


def _given(contestants: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each.replace(":", f"{GIVEN}:") for each in contestants)


GRAMS = ("dattri-llm:gram/auto", "dattri-llm:gram/materialized", "dattri-llm:gram/dense")
FEATURES = (
    Line(
        "products",
        "forward+backward, products as curate chooses them / as PyTorch comes",
        "curate:forward_backward",
        ("torch:forward_backward",),
        "<= 1.00",
    ),
    Line("countsketch", "CountSketch k 4096 / forward+backward", "curate:countsketch", PLAIN, "<= 1.00"),
    Line(
        "countsketch",
        "CountSketch k 4096 / opacus, not projected",
        "curate:countsketch",
        ("opacus:gradients",),
        "<= 1.00",
    ),
    Line("factorised", "factorised k 4096 / forward+backward", "curate:factorised", PLAIN, "<= 0.82"),
    Line("factorised", "factorised k 4096 / forward+activation gradients", "curate:factorised", LIMIT, "<= 1.06"),
    Line("concat", "concat p16 / best of bergson and dattri-llm", "curate:concat", PEERS, "<= 1.00"),
    Line("concat", f"concat p16 / the same{GIVEN}", "curate:concat", _given(PEERS), "<= 1.00"),
    Line("gram", "exact Gram / dattri-llm", "curate:exact_gram", GRAMS, "<= 0.90"),
    Line("gram", f"exact Gram / dattri-llm{GIVEN}", "curate:exact_gram", _given(GRAMS), "<= 0.90"),
    Line("direction", "<g_i, v> exact / forward+backward", "curate:exact_direction", PLAIN, "<= 0.85"),
    Line(
        "direction",
        "<g_i, v> central difference / forward+backward",
        "curate:direction_by_difference",
        PLAIN,
        "<= 0.70",
        agree=False,  # it knows no loss at the model itself
    ),
    Line(
        "rescoring",
        "excess losses under a pair / forward+backward",
        "curate:rescoring",
        PLAIN,
        "<= 0.75",
        agree=False,  # a difference of two losses
    ),
    Line(
        "rescoring",
        "excess losses under a pair of adapters / forward+backward",
        "curate:rescoring_adapters",
        PLAIN,
        "<= 0.75",
        agree=False,  # a difference of two losses
    ),
)
EXCESS = tuple(
    Line(
        "excess",
        f"excess loss, packed / {padded}, lengths of {lengths}",
        f"curate:packed_losses/{lengths}",
        (f"{where}:padded_losses/{lengths}",),
        ">= 3.00",
        ("7m",),
        batch=f"{LENGTH_ROWS} texts",
    )
    for where, padded in (
        ("curate", "padded in random order"),
        ("torch", "padded in random order as PyTorch comes"),
    )
    for lengths in LENGTHS
)
LINES = (*FEATURES, *EXCESS)
PLAIN_STEP = ("curate:plain_step",)
CALLBACK = ("dattri-llm:step/ghost", "dattri-llm:step/materialized")
WHOLE = "each sample read whole"
SELECTING = tuple(
    Line(
        "step",
        f"{name} at ratio 2 / plain step on what is kept",
        f"curate:chosen_step/{each}",
        PLAIN_STEP,
        "<= 1.60",
        agree=False,
    )
    for each, name in (
        ("filter_then_weight", "Filter-then-Weight"),
        ("filter_then_weight/attention", "Filter-then-Weight, attention outputs alone compared"),
        ("filter_then_weight/all", "Filter-then-Weight, all blocks compared"),
        ("filter_then_weight/factored", "Filter-then-Weight, metric of rank one"),
        ("filter_then_weight/whole", f"Filter-then-Weight, {WHOLE}"),
        ("greats", "GREATS"),
        ("greats/whole", f"GREATS, {WHOLE}"),
        ("tracin", "TracIn"),
    )
)
STEPS = (
    *SELECTING,
    *(
        Line(
            "step",
            f"{name} at ratio 2 / the fastest other scorer (ghost products, two passes)",
            f"curate:chosen_step/{each}",
            ("curate:ghost_step",),
            "<= 1.00",
            agree=False,
        )
        for each, name in (("greats/whole", f"GREATS, {WHOLE}"), ("filter_then_weight", "Filter-then-Weight"))
    ),
    *(
        Line(
            "step",
            f"dattri-llm's selection callback / {name}, at ratio 2",
            f"curate:chosen_step/{each}",
            CALLBACK,
            ">= 1.50",
            agree=False,
        )
        for each, name in (
            ("tracin/all", f"TracIn, {WHOLE}, all blocks compared: the same rule"),
            ("tracin", "TracIn"),
            ("filter_then_weight", "Filter-then-Weight"),
            ("filter_then_weight/whole", f"Filter-then-Weight, {WHOLE}"),
        )
    ),
)
PEAK = Line(
    "memory", "peak memory of CountSketch / vmap(grad)", "curate:countsketch", ("curate:vmap_gradients",), "<= 0.60"
)
STAGE = "featurize stage from the start of the process"
STAGES = (
    Line("stage", f"{STAGE}, same dimensions / bergson build", stages.SAME_DIMENSIONS, stages.THEIRS, ">= 1.30"),
    Line(
        "stage",
        f"{STAGE}, same dimensions, both bfloat16 / bergson build",
        stages.SAME_IN_HALF,
        stages.THEIRS_IN_HALF,
        ">= 1.30",
    ),
    Line("stage", f"{STAGE}, no worse accuracy / bergson build as it comes", stages.CHEAPEST, stages.THEIRS, ">= 1.60"),
    Line(
        "stage",
        f"{STAGE}, no worse accuracy / bergson build in its faster format",
        stages.CHEAPEST,
        stages.THEIRS + stages.THEIRS_IN_HALF,
        ">= 1.60",
    ),
    Line("stage", f"{STAGE}, two processes / two threads", stages.SAME_DIMENSIONS, (stages.ONE_PROCESS,), ">= 1.00"),
)
ACCURACY = ("cosine error, per-module p16 of bergson / CountSketch k 4096", ">= 2.50")
OVERHEAD = ("share of the featurize stage outside the model", "<= 0.05")


def met(ratio: float, reach: str) -> bool:
    """Whether a ratio is where it must be."""
    sign, bound = reach.split()
    return ratio <= float(bound) if sign == "<=" else ratio >= float(bound)
