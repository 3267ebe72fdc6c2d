"""What the README shows is made from the code and from committed results."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from curate import config

ROOT = Path(__file__).parents[1]


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tests" / "benchmarks" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_current() -> None:
    text = (ROOT / "README.md").read_text()
    assert maker().written(text) == text, "run: python tests/benchmarks/readme.py"


def test_every_part_that_can_be_made_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(f"<!-- {name} -->" in text and f"<!-- /{name} -->" in text for name in maker().PARTS)


def test_the_yaml_of_the_readme_is_a_valid_pipeline(tmp_path: Path) -> None:
    [code] = re.findall(r"```yaml\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    file = tmp_path / "pipeline.yaml"
    file.write_text(code)
    assert config.load(file).output.keep == 0.3
