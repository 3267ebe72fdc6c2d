"""Self-refining generation: while the proxy trains, some responses of the pool are masked and it answers those questions anew.

Before a pass over the pool: choose the questions, let the proxy write, keep what it wrote as a commit of its own. During the
pass: those questions are trained on with these responses, each token by how much likelier it has become. In the end: the
last responses become rows beside the pool's, with where they are from and what they weigh. The pool itself stays as it is.

Reference: Xiao and Chen, 2025, arXiv 2511.21056.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from curate.errors import IntegrityError
from curate.features.batched import collate
from curate.manifest import commits
from curate.methods.base import State
from curate.models.generation import Response, generate
from curate.runs.job import Job
from curate.sources import layout
from curate.sources.tokens import Tokens
from curate.stages.loop_problem import StoredLoop
from curate.storage import tables
from curate.training.refined import RefinedBatch, question_losses, response_ratios
from curate.training.refinement import RefineConfig, masked
from curate.training.stream import ROUND
from curate.types import Batch

STAGE = "refine"
"""Its commits, one a generation, numbered by the pass they were made for."""


@dataclass(frozen=True)
class Answer:
    """A response in its place: the whole sequence, and the sampler's log-probabilities of its tokens."""

    tokens: Tokens
    log_probs: list[float]
    text: str
    step: int


class RefinedLoop(StoredLoop):
    """A training whose masked questions are answered by the model itself."""

    def __init__(self, job: Job, settings: RefineConfig) -> None:
        super().__init__(job)
        self._settings = settings
        self._answers: dict[int, list[Answer]] = {}

    def losses(self, batch: Batch) -> Tensor:
        """Loss of every question."""
        return question_losses(self.language_model, batch, clip=self._settings.clip)

    def turn(self, turn: int, step: int, logits: Callable[[], Tensor]) -> None:
        """Have the responses of this pass: those that are committed, or new ones if it is time for them."""
        due = max((past for past in range(turn + 1) if self._settings.due(past)), default=None)
        if due is None:
            return
        fingerprint = self._job.record.stages["fit"]
        if not commits.is_done(self._job.paths, STAGE, due, fingerprint):
            if due < turn:
                fix = "Remove state/loop.safetensors: the training then starts again and generates them."
                raise IntegrityError(
                    f"responses of pass {due}", "no commit", "the responses that the training continued from", fix
                )
            table = self._written(due, step, logits())
            part = tables.write_arrow(self._job.paths.refined(due), table)
            record = commits.Commit(STAGE, due, fingerprint, len(table), len(table), 0)
            commits.commit(self._job.paths, record, [part])
        self._answers = _answers(tables.read_arrow(self._job.verified(STAGE, due)[0]))

    def finish(self, state: State) -> tuple[State, pa.Table]:
        """The learned state with the masked rows set aside and the generated ones weighed, and these as rows.

        A question's weight is shared among its responses in proportion to how much likelier each has become since it was
        written (its importance ratio); all weights are then brought to mean 1. A response without text makes no row.
        """
        weights, rows = state["weights"].copy(), sorted(self._answers)
        ratios, said = self._ratios(), self._said()
        questions, shares = list[float](), list[float]()
        for row in said:
            own = np.array([ratios[row, place] for place, _ in said[row]])
            questions += [float(weights[row])] * len(own)
            shares += (own / own.sum()).tolist() if own.sum() > 0 else [1 / len(own)] * len(own)
        generated = np.array(questions) * np.array(shares)
        table = self._rows_of(said, questions, shares)
        weights[rows] = np.nan
        whole = np.concatenate([weights, generated])
        whole *= np.count_nonzero(~np.isnan(whole)) / np.nansum(whole)
        size = self._job.pipeline.pool.shard_rows
        firsts = [self.length + place * size for place in range(self._job.record.generated)]  # the last may have no row
        starts = [*state["starts"].tolist(), *firsts]
        aside = np.zeros(len(whole), bool)
        aside[rows] = True
        return state | {"weights": whole, "masked": aside, "starts": np.array(starts)}, table

    def _said(self) -> dict[int, list[tuple[int, Answer]]]:
        """The responses that have text, with their places, by question; says how many have none."""
        found = {
            row: [(place, answer) for place, answer in enumerate(self._answers[row]) if answer.text.strip()]
            for row in sorted(self._answers)
        }
        silent = sum(map(len, self._answers.values())) - sum(map(len, found.values()))
        if silent:
            self.note(f"{silent} generated responses are empty and are left out")
        return {row: answers for row, answers in found.items() if answers}

    def _written(self, turn: int, step: int, logits: Tensor) -> pa.Table:
        """New responses to the questions that are masked now."""
        usable = np.concatenate([self._usable(start) for start in range(0, self.length, ROUND)])
        rows = masked(usable, logits, self._settings, seed=self._job.pipeline.seed)
        count = len(rows) * self._settings.responses
        self._job.events.write("note", stage="fit", text=f"generating {count} responses to {len(rows)} prompts")
        prompts = dict(zip(rows.tolist(), map(_prompt, self._tokens(rows)), strict=True))
        responses, decode = self._responses(prompts, turn), self.language_model.tokenizer.decode
        lines = [
            {
                "row": row,
                "response": place,
                "prompt": prompt,
                "ids": made.ids,
                "log_probs": made.log_probs,
                "text": decode(made.ids, skip_special_tokens=True),
                "step": step,
            }
            for row, prompt in prompts.items()
            for place, made in enumerate(responses[row])
        ]
        return pa.Table.from_pylist(lines, schema=WRITTEN)

    def _responses(self, prompts: dict[int, list[int]], turn: int) -> dict[int, list[Response]]:
        """All responses to every question; those of like length are written together."""
        found: dict[int, list[Response]] = {row: [] for row in prompts}
        asked = sorted(prompts, key=lambda row: len(prompts[row]))
        repeated = [row for row in asked for _ in range(self._settings.responses)]
        for start in range(0, len(repeated), self._settings.batch):
            batch = repeated[start : start + self._settings.batch]
            seed = int(np.random.default_rng([self._job.pipeline.seed, 6, turn, start]).integers(2**62))
            for row, made in zip(batch, self._generated([prompts[row] for row in batch], seed), strict=True):
                found[row].append(made)
        return found

    def _generated(self, prompts: list[list[int]], seed: int) -> list[Response]:
        room = self._job.model_config.max_tokens - max(map(len, prompts))
        settings = self._settings
        length = max(1, min(settings.new_tokens, room))
        return generate(self.language_model, prompts, new_tokens=length, temperature=settings.temperature, seed=seed)

    def _tokens(self, rows: np.ndarray) -> list[Tokens]:
        return [found for found in self._rows.tokens(rows, self.language_model) if found is not None]

    def _usable(self, start: int) -> np.ndarray:
        """Rows of a round that have something to predict."""
        rows = np.arange(start, min(start + ROUND, self.length))
        found = self._rows.tokens(rows, self.language_model)
        return rows[[row is not None for row in found]]

    def _batches(
        self, block: list[tuple[int, Tokens]], batch_tokens: int, generator: np.random.Generator
    ) -> Iterator[RefinedBatch]:
        """Questions of like length together, each with all its responses."""
        groups = [(row, self._answers.get(row) or [Answer(own, [], "", 0)]) for row, own in block]
        lengths = [sum(len(answer.tokens.ids) for answer in answers) for _, answers in groups]
        plan = layout.batches(lengths, batch_tokens, padded=not self.language_model.packs)
        for place in generator.permutation(len(plan)):
            yield _batch([groups[member] for member in plan[place]])

    def _ratios(self) -> dict[tuple[int, int], float]:
        """Ratio of every response under the model as it is now."""
        found: dict[tuple[int, int], float] = {}
        rows = sorted(self._answers, key=lambda row: len(self._answers[row][0].tokens.ids))
        for start in range(0, len(rows), self._settings.batch):
            groups = [(row, self._answers[row]) for row in rows[start : start + self._settings.batch]]
            ratios = response_ratios(self.language_model, _batch(groups), clip=self._settings.clip).tolist()
            lines = [(row, place) for row, answers in groups for place in range(len(answers))]
            found |= dict(zip(lines, ratios, strict=True))
        return found

    def _rows_of(
        self, said: dict[int, list[tuple[int, Answer]]], questions: list[float], shares: list[float]
    ) -> pa.Table:
        """The responses as rows of the pool's schema, each with its parent's other columns, and where it is from."""
        schema, starts = self._job.source.schema, self.starts
        column = self._job.pipeline.pool.fields["completion"]
        parents = [row for row, answers in said.items() for _ in answers]
        owners = np.searchsorted(starts, parents, side="right") - 1
        pieces, names = [pa.Table.from_batches([], schema)], list[str]()
        for shard in np.unique(owners):
            inside = np.array(parents)[owners == shard] - starts[shard]
            pieces.append(self._job.read(int(shard)).take(pa.array(inside)))
            names += [f"{shard}:{row}" for row in inside]
        table = pa.concat_tables(pieces)
        answers = [answer for own in said.values() for _, answer in own]
        texts = pa.array([answer.text for answer in answers], schema.field(column).type)
        table = table.set_column(schema.get_field_index(column), schema.field(column), texts)
        count = len(answers)
        revision = commits.require(self._job.paths, "proxy").fingerprint
        own = {
            "generated": pa.array([True] * count),
            "parent": pa.array(names, pa.string()),
            "step": pa.array([answer.step for answer in answers], pa.int64()),
            "model_revision": pa.array(
                [f"{revision[:12]} after {answer.step} steps" for answer in answers], pa.string()
            ),
            "question_weight": pa.array(questions, pa.float32()),
            "response_weight": pa.array(shares, pa.float32()),
        }
        for name, values in own.items():
            table = table.append_column(name, values)
        return table


WRITTEN = pa.schema(
    [
        ("row", pa.int64()),
        ("response", pa.int32()),
        ("prompt", pa.list_(pa.int32())),
        ("ids", pa.list_(pa.int32())),
        ("log_probs", pa.list_(pa.float32())),
        ("text", pa.string()),
        ("step", pa.int64()),
    ]
)
"""A generation as it is committed; (pass, row, response) names a response for ever."""


def _prompt(tokens: Tokens) -> list[int]:
    """The tokens before the first one on which the loss is computed."""
    return tokens.ids[: tokens.loss.index(True)]


def _answers(table: pa.Table) -> dict[int, list[Answer]]:
    found: dict[int, list[Answer]] = {}
    for line in table.to_pylist():
        prompt, ids = line["prompt"], line["ids"]
        tokens = Tokens(prompt + ids, [False] * len(prompt) + [True] * len(ids))
        found.setdefault(line["row"], []).append(Answer(tokens, line["log_probs"], line["text"], line["step"]))
    return found


def _batch(groups: list[tuple[int, list[Answer]]]) -> RefinedBatch:
    """Some questions with all their responses as lines of one batch."""
    lines = [(place, answer) for place, (_, answers) in enumerate(groups) for answer in answers]
    rows = [row for row, _ in groups]
    made = collate(
        [rows[place] for place, _ in lines],
        [answer.tokens.ids for _, answer in lines],
        [answer.tokens.loss for _, answer in lines],
    )
    sampler = torch.full(made.ids.shape, torch.nan)
    for line, (_, answer) in enumerate(lines):
        if answer.log_probs:
            start = answer.tokens.loss.index(True)
            sampler[line] = 0.0
            sampler[line, start : start + len(answer.log_probs)] = torch.tensor(answer.log_probs)
    owners = torch.tensor([place for place, _ in lines])
    return RefinedBatch(tuple(rows), made.ids, made.attention, made.labels, owners, sampler)
