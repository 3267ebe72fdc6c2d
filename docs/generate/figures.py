"""Tables of committed results: tests/benchmarks/results/*.json as Markdown. Nothing is typed by hand."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "tests" / "benchmarks" / "results"
PROBLEMS = ("mixed", "damaged", "questions")
"""Of the shipped arena, in the order in which they are spoken of."""


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


def loop_memory() -> str:
    """What the two ways to learn weights inside a training add to its memory."""
    result = json.loads((RESULTS / "loop_memory.json").read_text())
    lines = [
        f"{result['machine']}, {result['date']}; {result['model']}, {result['batch']}, {result['rounds']} rounds:",
        "",
        "| training | peak memory | over the plain training | wanted |",
        "|---|---:|---:|---:|",
    ]
    for name, peak in result["peak_bytes"].items():
        over = f"×{result['ratio'][name]:.2f}" if name in result["ratio"] else "–"
        lines.append(f"| {name} | {peak / 2**20:,.0f} MiB | {over} | {result['reach'].get(name, '–')} |")
    return "\n".join(lines)


def headline() -> str:
    """Four figures against what others have, for the front page."""
    build = _entry("features", "featurize stage from the start of the process, same dimensions / bergson build")
    finer = _entry("features", "cosine error, per-module p16 of bergson / CountSketch k 4096")
    same = _entry(
        "step", "dattri-llm's selection callback / TracIn, each sample read whole, all blocks compared: the same rule"
    )
    checks = {check["name"]: check for check in _result("trainers")["checks"]}
    honoured, distorted = checks["trl-weighted"], checks["llamafactory"]
    low = _entry(
        "features", "featurize stage from the start of the process, same dimensions, both bfloat16 / bergson build"
    )
    lines = [
        "| against | measured |",
        "|---|---|",
        f"| `bergson build`: gradient features of {build['batch']} from start to finish, same dimensions | "
        f"×{build['ratio']:.2f} as fast ({_between(build)}); both in bfloat16 ×{low['ratio']:.2f} |",
        f"| bergson's projection, p16 a module: error of its cosines; ours at k 4096 | ×{1 / finer['ratio']:.2f} of theirs |",
        f"| dattri-llm's selection callback: the same rule in a training step | ×{same['ratio']:.2f} as fast "
        f"({_between(same)}); the goal was {same['reach'].removeprefix('>= ')} |",
        "| weights in a trainer: how much of the gradient's change went astray | "
        f"{honoured['trainer']} with our mixin {honoured['astray']} %; "
        f"{distorted['trainer']} alone {distorted['astray']} % |",
    ]
    where = f"{build['model'].split(':')[0].replace('llama', 'Llama').replace('7m', '7 M')}, {build['machine']}, {build['date']}"
    return "\n".join([*lines, "", f"Speed and error: {where}."])


def _ratios(name: str) -> str:
    """Hits and misses, a table for every model and batch, so that no line repeats what all have."""
    entries = _result(name)
    machines = {entry["machine"] for entry in entries}
    where = [
        f"{each}; {max(entry['date'] for entry in entries if entry['machine'] == each)}" for each in sorted(machines)
    ]
    parts = [f"{' and '.join(where)}. Measured: the median of the rounds, and their least to most."]
    for setting in dict.fromkeys((entry["model"], entry["batch"]) for entry in entries):
        own = [entry for entry in entries if (entry["model"], entry["batch"]) == setting]
        lines = [f"{', '.join(setting)}:", "", "| ratio | measured | wanted | |", "|---|---:|---:|---|"]
        for entry in own:
            found = "reached" if entry["met"] else "**missed**"
            ratio = f"{entry['ratio']:.2f} ({_between(entry)})"
            lines.append(f"| {entry['name']} | {ratio} | {entry['reach']} | {found} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _entry(name: str, start: str) -> dict[str, Any]:
    """The one comparison of a result file that is called so, at the first setting it was measured at."""
    return next(entry for entry in _result(name) if entry["name"] == start or entry["name"].startswith(f"{start}, at"))


def _between(entry: dict[str, Any]) -> str:
    return f"{entry['low']:.2f} to {entry['high']:.2f}"


def arena() -> str:
    """The ranking on every problem whose results are committed."""
    return "\n\n".join(map(problem, PROBLEMS))


def problem(name: str) -> str:
    """The ranking on one problem, below where it was measured."""
    return _arena(RESULTS / f"arena-small-{name}.json")


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


def trainers() -> str:
    """What `curate check-trainer` found of the pinned trainers."""
    result = json.loads((RESULTS / "trainers.json").read_text())
    lines = [
        f"{result['date']}:",
        "",
        "| `check-trainer` | version | weights | of the expected change | in other directions |",
    ]
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


def templates() -> str:
    """What every chat template makes of the battery of conversations."""
    found = json.loads((RESULTS.parents[1] / "conversations" / "results" / "templates.json").read_text())
    lines = ["| template | exact | not exact |", "|---|---:|---|"]
    for name, line in found.items():
        others = [f"{case}: {_cell(verdict)}" for case, verdict in line.items() if case != "exact"]
        lines.append(f"| {name} | {line['exact']} | {'; '.join(others)} |")
    total = sum(int(line["exact"]) for line in found.values())
    cases = total + sum(len(line) - 1 for line in found.values())
    return (
        f"{total:,} of {cases:,} pairs of template and conversation are exact, none is silently different.\n\n"
        + "\n".join(lines)
    )


def reading() -> str:
    """What reading conversations costs."""
    result = json.loads((RESULTS / "reading.json").read_text())
    lines = ["| rows | template | ratio, median (range) |", "|---|---|---:|"]
    for line in result["lines"]:
        low, high = line["range"]
        lines.append(f"| {line['rows']} | {line['template']} | {line['ratio']:.2f} ({low:.2f} to {high:.2f}) |")
    saved = result["saving"]
    pass_by = (
        f"Reading {saved['rows']:,} chats ({saved['tokens']:,} tokens) for a stage or a pass of a training takes"
        f" {saved['anew']:.2f} s of CPU time where they are tokenised anew and {saved['stored']:.2f} s as they were stored:"
        f" {saved['anew'] - saved['stored']:.2f} s less for each pass."
    )
    return "\n".join(lines) + f"\n\nThe limit is {result['limit']}. {pass_by}\n\n" + _whole_runs(result["runs"])


def _whole_runs(runs: list[dict[str, Any]]) -> str:
    """What stored tokens save to runs that train on the pool."""
    lines = ["| run | tokens of rows | anew, s | stored, s | saved |", "|---|---|---:|---:|---:|"]
    for run in runs:
        anew, stored = statistics.median(run["anew"]), statistics.median(run["stored"])
        kept = "kept in memory" if run["kept"] else "read in every pass"
        name = "bds with a loop" if run["method"] == "bds" else run["method"]
        lines.append(f"| {name} | {kept} | {anew:.1f} | {stored:.1f} | {1 - stored / anew:.1%} |")
    rounds = len(runs[0]["anew"])
    return (
        f"Whole runs on {runs[0]['rows']:,} of these chats with a model of two layers, CPU time, median of {rounds}, in turn:\n\n"
        + "\n".join(lines)
    )


def _cell(text: str) -> str:
    """Foreign text in a cell of a table."""
    short = text.replace("the chat template refuses it: ", "")
    return short.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")[:90]
