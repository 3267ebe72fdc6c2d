"""Registry lines of components that are wrong in one way each."""

from types import SimpleNamespace

import curate.exports
import curate.methods
import curate.sources


def method(name, module=None):
    texts = dict.fromkeys(("paper", "summary", "costs", "choose"), "-")
    return curate.methods.Entry(name, f"curate_broken.{module or name}", features="", **texts)


WRONG = ("raises", "short", "nan", "negative", "single", "two", "objects")
METHODS = SimpleNamespace(
    **{name: method(name) for name in (*WRONG, "late")},
    homeless=method("homeless", "nowhere"),
    random=method("random", "raises"),
)
EXPORTS = SimpleNamespace(
    raising=curate.exports.Entry("raising", "curate_broken.raising", "-", "-", "-"),
    lying=curate.exports.Entry("lying", "curate_broken.lying", "-", "-", "-"),
)
FORMATS = SimpleNamespace(
    shortened=curate.sources.Entry("shortened", "curate_broken.shortened", (".txt",), "-"),
    failing=curate.sources.Entry("failing", "curate_broken.failing", (".txt",), "-"),
)
NUMBER = 7
