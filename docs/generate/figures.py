"""Write the generated parts of README.md: `python tests/benchmarks/readme.py`. A test checks that they are current.

Numbers come from results/*.json, the reference from the schema, the methods from the registry; nothing is typed by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from curate import config
from curate.registry import METHODS
from curate.sinks.exports.registry import EXPORTERS

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
RESULTS = HERE / "results"
VARIANT = re.compile(r"(\| `\w+ )\((\w+)\)(.*)")
"""A line about a key of one variant of a section: what comes before its name, the name, the rest."""


def methods() -> str:
    """The registry as a table."""
    rows = [f"| `{entry.name}` | {entry.reads} | {entry.paper} | {entry.summary} |" for entry in METHODS.values()]
    return "\n".join(["| method | needs | paper | what a weight means |", "|---|---|---|---|", *rows])


def reference() -> str:
    """Every key of the pipeline file with its default and its meaning."""
    schema = config.schema()
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name, section in schema["properties"].items():
        lines += _shared(_section(schema, name, section))
    return "\n".join(lines)


def shares() -> str:
    """What the weights did per domain and per kind, for every committed result file."""
    return "\n\n".join(_shares(path) for path in sorted(RESULTS.glob("shares-*.json")))


def memory() -> str:
    """Peak memory of every stage for a pool and one ten times as large."""
    result = json.loads((RESULTS / "memory.json").read_text())
    small, large = (f"{rows:,} rows" for rows in result["rows"])
    lines = [f"| stage | {small} | {large} | ratio |", "|---|---:|---:|---:|"]
    for line in result["stages"]:
        lines.append(f"| {line['stage']} | {line['mib']:.0f} MiB | {line['mib_10x']:.0f} MiB | {line['ratio']:.2f} |")
    return "\n".join(lines)


def features() -> str:
    """Gradient features against their limits and against peers, hits and misses."""
    return _ratios("features")


def step() -> str:
    """What choosing inside the training step costs, hits and misses."""
    return _ratios("step")


def _ratios(name: str) -> str:
    entries = json.loads((RESULTS / f"{name}.json").read_text())
    machines = {entry["machine"] for entry in entries}
    where = [
        f"{each}; {max(entry['date'] for entry in entries if entry['machine'] == each)}" for each in sorted(machines)
    ]
    lines = ["| ratio | model, batch | measured (least to most) | wanted | |", "|---|---|---:|---:|---|"]
    for entry in entries:
        model, between = entry["model"].split(":")[0], f"{entry['low']:.2f} to {entry['high']:.2f}"
        found = "reached" if entry["met"] else "**missed**"
        ratio = f"{entry['ratio']:.2f} ({between})"
        lines.append(f"| {entry['name']} | {model}, {entry['batch']} | {ratio} | {entry['reach']} | {found} |")
    return "\n".join([f"{' and '.join(where)}:", "", *lines])


def arena() -> str:
    """The ranking on every problem whose results are committed."""
    return "\n\n".join(_arena(path) for path in sorted(RESULTS.glob("arena-*.json")))


def refined() -> str:
    """Does answering anew help?"""
    result = json.loads((RESULTS / "refined.json").read_text())
    lines = [
        f"{result['machine']}, {result['date']}, 3 seeds, mean and half its 95 % interval:",
        "",
        "| trained on | held-out loss | gain over uniform | gain over BDS alone, weighted |",
        "|---|---:|---:|---:|",
    ]
    for arm in result["arms"]:
        gains = (_more(arm[name]) for name in ("over uniform", "over offline"))
        lines.append(f"| {arm['arm']} | {arm['loss']:.3f} | {' | '.join(gains)} |")
    return "\n".join(lines)


def exports() -> str:
    """What `curate export` writes, and what becomes of the weights there."""
    lines = ["| `--to` | writes | honours | beware |", "|---|---|---|---|"]
    return "\n".join(
        [
            *lines,
            *(f"| `{each.name}` | {each.writes} | {each.honours} | {each.beware} |" for each in EXPORTERS.values()),
        ]
    )


def trainers() -> str:
    """What `curate check-trainer` found of the pinned trainers."""
    result = json.loads((RESULTS / "trainers.json").read_text())
    lines = [f"{result['date']}:", "", "| `check-trainer` | version | weights | of the right amount | astray |"]
    lines.append("|---|---|---|---:|---:|")
    for each in result["checks"]:
        lines.append(
            f"| `{each['name']}` | {each['trainer']} | {each['verdict']} | {each['moved']} | {each['astray']} % |"
        )
    return "\n".join(lines)


def dwm() -> str:
    """Does a weighting model help where it was learned, and where it was carried; and what did it come to prefer?"""
    result = json.loads((RESULTS / "dwm.json").read_text())
    lines = [
        f"{result['machine']}, {result['date']}, {result['settings']['seeds']} seeds, mean and half its 95 % interval:",
        "",
        "| weighting model | parameters | tokens | uniform | DWM | gain over uniform | processor time over plain training |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for each in result["summary"]:
        cells = [
            f"{each['parameters'] / 1e6:.1f} M",
            f"{each['tokens']:,}",
            f"{each['uniform']:.3f}",
            f"{each['dwm']:.3f}",
        ]
        lines.append(f"| {each['where']} | {' | '.join(cells)} | {_more(each['gain'])} | ×{each['time']:.2f} |")
    stages = result["stages"]
    lines += ["", f"| mean weight of | {' | '.join(f'stage {place + 2}' for place in range(len(stages)))} |"]
    lines.append("|---|" + "---:|" * len(stages))
    lines += [f"| {name} | {' | '.join(f'{stage[name]:.2f}' for stage in stages)} |" for name in stages[0]]
    return "\n".join(lines)


def ranks() -> str:
    """How well BDS in the loop ranks the rows that are wanted, by seed."""
    result = json.loads((RESULTS / "ranks.json").read_text())
    lines = [f"{result['machine']}, {result['date']}:", ""]
    lines += ["| AUROC of the rows that are wanted over | on the pool | by seed |", "|---|---|---|"]
    for problem, seeds in result["problems"].items():
        for kind in next(iter(seeds.values())):
            found = ", ".join(f"{seed[kind]:.3f}" for seed in seeds.values())
            lines.append(f"| {'all others' if kind == 'all' else kind} | {problem} | {found} |")
    return "\n".join(lines)


def budgets() -> str:
    """What is left of the order of methods where less is kept."""
    result = json.loads((RESULTS / "budgets.json").read_text())
    lines = [f"{result['machine']}, {result['date']}, 3 seeds, mean and half its 95 % interval:", ""]
    lines += [f"| {result['problem']}: kept | arm | held-out loss | gain over random |", "|---|---|---:|---:|"]
    for share in result["shares"]:
        for arm, loss in sorted(share["loss"].items(), key=lambda item: item[1]):
            over = _more(share["over random"].get(arm))
            lines.append(f"| {share['keep']:.0%} | {arm} | {loss:.3f} | {over} |")
    return "\n".join(lines)


def following() -> str:
    """A trainer written by others on weights that follow it."""
    result = json.loads((RESULTS / "following.json").read_text())
    return "\n\n".join(_followed(result[name]) for name in sorted(result, reverse=True))


def _followed(result: dict[str, Any]) -> str:
    """One kind of text that comes from elsewhere too."""
    made = [each["generations"] for each in result["seeds"]]
    facts = f"{result['machine']}, {result['date']}; {result['setup']}; {result['steps']} steps"
    facts += f", {result['taught']} from elsewhere from step {result['at']} on"
    compared = [
        ("static", "uniform"),
        ("once", "uniform"),
        ("online", "uniform"),
        ("online", "static"),
        ("online", "once"),
    ]
    found = {(each["kind"], each["phase"], each["arm"]): each for each in result["arms"]}
    ran = {arm for _, _, arm in found}
    compared = [(arm, over) for arm, over in compared if {arm, over} <= ran]
    lines = [
        f"{facts}; {len(made)} seeds of at least {min(made)} generations, mean and half its 95 % interval:",
        "",
        f"| held-out | when | uniform: loss | {' | '.join(f'{arm} over {over}' for arm, over in compared)} |",
        f"|---|---|---:|{'---:|' * len(compared)}",
    ]
    for kind, phase in dict.fromkeys((each["kind"], each["phase"]) for each in result["arms"]):
        gains = [_more(found[kind, phase, arm][f"over {over}"]) for arm, over in compared]
        lines.append(f"| {kind} | {phase} | {found[kind, phase, 'uniform']['loss']:.3f} | {' | '.join(gains)} |")
    return "\n".join(lines)


def _more(found: list[float] | None) -> str:
    """A gain and half its interval."""
    return "–" if found is None else f"{found[0]:+.3f} ± {found[1]:.3f}"


PARTS: dict[str, Callable[[], str]] = {
    "methods": methods, "reference": reference, "shares": shares, "memory": memory, "features": features,
    "arena": arena, "refined": refined, "budgets": budgets, "following": following, "step": step, "dwm": dwm,
    "exports": exports, "trainers": trainers, "ranks": ranks,
}  # fmt: skip


def written(text: str) -> str:
    """The README with every generated part made anew."""
    for name, make in PARTS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = pattern.sub(lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", text)
    return text


def _arena(path: Path) -> str:
    """One problem of an arena."""
    result = json.loads(path.read_text())
    facts = ", ".join(f"{name} {value}" for name, value in result["facts"].items())
    problem = result["ranking"][0]["problem"]
    name = path.stem.removeprefix("arena-").removesuffix(f"-{problem}")
    lines = [
        f"`pipelines/arena/{name}.yaml` on {result['machine']}, {result['date']}; {facts}:",
        "",
        f"| {problem} | held-out loss | gain over uniform | recovered | effective rows | passes | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in result["ranking"]:
        cells = [_within(row, "loss", 3), _within(row, "against_uniform", 3), _within(row, "recovery", 2)]
        rows, passes = row["effective_sample_size"], row["cost"]
        lines.append(f"| {row['arm']} | {' | '.join(cells)} | {rows:,.0f} | {passes:.2f} | {row['verdict']} |")
    return "\n".join(lines)


def _within(row: dict[str, Any], name: str, digits: int) -> str:
    """A mean and half the width of its interval."""
    mean, low, high = (row[name + end] for end in ("", "_low", "_high"))
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" + (f" ± {(high - low) / 2:.{digits}f}" if low is not None and high is not None else "")


def _shares(path: Path) -> str:
    result = json.loads(path.read_text())
    groups = result["groups"]
    ways = sorted({line["method"] for line in groups})
    runs = max(line["runs"] for line in groups)
    seeds = f"mean ± standard deviation of {runs} seeds" if runs > 1 else "one seed"
    head = f"`pipelines/{path.stem.removeprefix('shares-')}.yaml`, {result['rows']:,} rows, {seeds}, {result['date']}:"
    titles = [f"{way}: top quarter | {way}: weight" for way in ways]
    lines = [head, "", f"| rows | {' | '.join(titles)} |", "|---|" + "---:|" * 2 * len(ways)]
    for column, value in dict.fromkeys((line["column"], line["value"]) for line in groups):
        found = {line["method"]: line for line in groups if (line["column"], line["value"]) == (column, value)}
        cells = [_ratio(found[way], figure) for way in ways for figure in ("top_ratio", "ratio")]
        lines.append(f"| {column} = {value} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(line: dict[str, Any], figure: str) -> str:
    spread = f" ± {line[f'{figure}_sd']:.2f}" if line["runs"] > 1 else ""
    return f"×{line[figure]:.2f}{spread}"


def _section(schema: dict[str, Any], name: str, field: dict[str, Any]) -> list[str]:
    """One key, then the keys below it."""
    lines = [f"| `{name}` | {_default(field)} | {_text(field.get('description', ''))} |"]
    if name == "evaluation.model":  # another `model` section, explained above
        return lines
    for model in _models(schema, field):
        prefix = (
            name if len(_models(schema, field)) == 1 else f"{name} ({model['properties']['name'].get('const', '')})"
        )
        for key, inner in model["properties"].items():
            if "const" not in inner:
                lines += _section(schema, f"{prefix}.{key}", inner)
    return lines


def _shared(lines: list[str]) -> list[str]:
    """One line for a key that several variants of a section have alike, where the first of them has it."""
    names: dict[tuple[str, ...], list[str]] = {}
    for line in lines:
        found = VARIANT.fullmatch(line)
        names.setdefault((found[1], found[3]) if found else (line,), []).append(found[2] if found else "")
    return [f"{key[0]}({', '.join(own)}){key[1]}" if len(key) > 1 else key[0] for key, own in names.items()]


def _models(schema: dict[str, Any], field: dict[str, Any]) -> list[dict[str, Any]]:
    options = [field, *field.get("anyOf", []), *field.get("oneOf", []), *field.get("allOf", [])]
    names = dict.fromkeys(option["$ref"].rsplit("/", 1)[1] for option in options if "$ref" in option)
    return [schema["$defs"][name] for name in names]


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return ""
    return "" if isinstance(field["default"], dict) else f"`{json.dumps(field['default'])}`"


def _text(description: str) -> str:
    return " ".join(description.split()).replace("|", "\\|")


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
    sys.stdout.write(f"{README.name} written\n")
