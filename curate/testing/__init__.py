"""Contract batteries: what curate's own methods, exports and formats pass, for those of other packages.

    from curate.testing import PoolWeigherContract
    from my_package.entries import ENTRY

    class TestMine(PoolWeigherContract):
        entry = ENTRY

Each battery says in its docstring what it asks of the class below it. It needs pytest.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if find_spec("pytest") is None:
    raise ImportError("curate.testing needs pytest: install it with `pip install pytest`")

import pytest

if TYPE_CHECKING:
    from curate.testing.batch_weigher import BatchWeigherContract
    from curate.testing.datasets import Dataset
    from curate.testing.export import ExportContract
    from curate.testing.pool_weigher import PoolWeigherContract
    from curate.testing.pools import ToyPool, pool_weights
    from curate.testing.source import SourceContract

__all__ = [
    "BatchWeigherContract",
    "Dataset",
    "ExportContract",
    "PoolWeigherContract",
    "SourceContract",
    "ToyPool",
    "pool_weights",
]

_HOMES = {
    "BatchWeigherContract": "batch_weigher",
    "Dataset": "datasets",
    "ExportContract": "export",
    "PoolWeigherContract": "pool_weigher",
    "SourceContract": "source",
}

pytest.register_assert_rewrite(*(f"curate.testing.{module}" for module in dict.fromkeys(_HOMES.values())))


def __getattr__(name: str) -> Any:
    """Batteries load what they need when they are first used."""
    if name in __all__:
        return getattr(import_module(f"curate.testing.{_HOMES.get(name, 'pools')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
