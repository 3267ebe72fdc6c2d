"""The lines that curate's registries read: light, so that `curate methods` stays fast."""

import curate.exports
import curate.methods
import curate.sources

NEAREST = curate.methods.Entry(
    name="nearest",
    module="curate_example.nearest",
    features="ngrams",
    paper="-",
    summary="Scores by the cosine between the sample and the nearest row of the target.",
    costs="0: no model, seconds to minutes on a CPU",
    choose="the target's rows have little to do with each other",
)
TSV = curate.exports.Entry(
    name="tsv",
    module="curate_example.tsv",
    writes="tab-separated values: the weight, and the text as JSON",
    honours="whatever reads the first column",
    beware="no weights of tokens",
)
LINES = curate.sources.Entry(
    name="lines",
    module="curate_example.lines",
    suffixes=(".txt",),
    summary="Plain text, a sample a line",
)
