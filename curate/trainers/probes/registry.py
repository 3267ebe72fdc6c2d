"""Short name → probe of a trainer."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from curate.errors import ConfigError

if TYPE_CHECKING:  # the shell completes names of trainers: it waits for no library
    from curate.trainers.comparison import Probe


@dataclass(frozen=True)
class Entry:
    """How one trainer is tried.

    Attributes:
        name: what the command line calls it.
        module: of `observe`, here.
        package: distribution whose version is stated.
        imports: module that shows that it is installed.
        export: format that it reads.
        function: name of the probe in the module.
        draws: whether weights are how often a row comes, not factors of its loss.
    """

    name: str
    module: str
    package: str
    imports: str
    export: str
    function: str = "observe"
    draws: bool = False

    def probe(self) -> Probe:
        """The function that takes the steps. Raises ConfigError if the trainer is not installed."""
        if find_spec(self.imports) is None:
            fix = f"pip install {self.package} beside curate, or run curate with the Python that has it."
            raise ConfigError(f"check-trainer {self.name}", f"no module {self.imports}", f"{self.package} here", fix)
        return getattr(import_module(f"curate.trainers.probes.{self.module}"), self.function)


PROBES = {
    entry.name: entry
    for entry in (
        Entry("transformers", "transformers_trainer", "transformers", "transformers", "hf", "plain"),
        Entry("transformers-weighted", "transformers_trainer", "transformers", "transformers", "hf", "weighted"),
        Entry("trl", "trl_sft", "trl", "trl", "trl", "plain"),
        Entry("trl-weighted", "trl_sft", "trl", "trl", "trl", "weighted"),
        Entry("trl-padding-free", "trl_sft", "trl", "trl", "trl", "padding_free"),
        Entry("ms-swift", "ms_swift", "ms-swift", "swift", "ms-swift"),
        Entry("llamafactory", "llamafactory", "llamafactory", "llamafactory", "llamafactory"),
        Entry("llamafactory-single", "llamafactory", "llamafactory", "llamafactory", "llamafactory", "single"),
        Entry("mosaic", "mosaic", "mosaicml-streaming", "streaming", "mosaic", draws=True),
    )
}


def find(name: str) -> Entry:
    """The entry of a name. Raises ConfigError if there is none."""
    if name not in PROBES:
        raise ConfigError("check-trainer", repr(name), f"one of {', '.join(PROBES)}", "Correct it.")
    return PROBES[name]
