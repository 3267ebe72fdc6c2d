"""Adam's moments out of other people's checkpoints; the oracle is the live optimizer's own state."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from curate.errors import ModelError
from curate.models.optimizer_order import NORMS, RULES
from curate.models.optimizer_state import plain_name, read_moments
from curate.models.torch_checkpoint import load_metadata
from curate.models.warmup import Moments, optimizer_bytes

from .conftest import ARCHITECTURES

STEPS = 3
VOCAB = 31
BETAS = (0.8, 0.95)
EPSILON = 1e-6
Truth = dict[str, tuple[Tensor, Tensor]]


def make_model(seed: int = 0) -> LlamaForCausalLM:
    """No size is divisible by 2 or 3 processes, and parameters differ in shape where they can."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=9,
            intermediate_size=13,
            num_hidden_layers=2,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=6,
            max_position_embeddings=32,
            attention_bias=True,
        )
    )


def with_adapters(model: LlamaForCausalLM) -> nn.Module:
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))


def rows(count: int = 6) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, VOCAB, (count, 8), generator=generator).tolist()
    return [{"input_ids": row, "labels": row} for row in ids]


def adamw(parameters: Iterable, kind: type[torch.optim.Optimizer] = torch.optim.AdamW) -> torch.optim.Optimizer:
    return kind(parameters, lr=1e-2, betas=BETAS, eps=EPSILON)  # pyright: ignore[reportCallIssue]


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    ids = torch.tensor([row["input_ids"] for row in rows()])
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


def truth_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> Truth:
    return {
        name: (optimizer.state[parameter]["exp_avg"].clone(), optimizer.state[parameter]["exp_avg_sq"].clone())
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
    }


def assert_same(moments: dict[str, Moments], truth: Truth, *, step: int = STEPS) -> None:
    assert moments.keys() == truth.keys()
    for name, (exp_avg, exp_avg_sq) in truth.items():
        assert torch.equal(moments[name].exp_avg, exp_avg), name
        assert torch.equal(moments[name].exp_avg_sq, exp_avg_sq), name
        assert moments[name].step == step
        assert moments[name].exp_avg.dtype == torch.float32


@dataclass(frozen=True)
class Trained:
    """A model, its optimizer, and what the optimizer really holds, by name in the model."""

    model: LlamaForCausalLM
    optimizer: torch.optim.Optimizer
    truth: Truth

    def saved(self, file: Path) -> Path:
        torch.save(self.optimizer.state_dict(), file)
        return file


@pytest.fixture(scope="module")
def trained() -> Trained:
    torch.set_num_threads(1)
    model = make_model()
    optimizer = adamw(model.parameters())
    train(model, optimizer)
    return Trained(model, optimizer, truth_of(model, optimizer))


def by_trainer(model: nn.Module, directory: Path) -> tuple[Path, torch.optim.Optimizer]:
    arguments = TrainingArguments(
        output_dir=str(directory),
        max_steps=STEPS,
        save_steps=STEPS,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        weight_decay=0.1,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        adam_epsilon=EPSILON,
        optim="adamw_torch",
        logging_steps=100,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows())  # pyright: ignore[reportArgumentType]
    trainer.train()
    assert trainer.optimizer is not None
    return directory / f"checkpoint-{STEPS}", getattr(trainer.optimizer, "optimizer", trainer.optimizer)


# The Hugging Face Trainer


@pytest.fixture(scope="module")
def full_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    model = make_model()
    checkpoint, optimizer = by_trainer(model, tmp_path_factory.mktemp("trainer"))
    return checkpoint, truth_of(model, optimizer)


def test_state_of_the_trainer_is_matched_by_its_groups(full_checkpoint: tuple[Path, Truth]) -> None:
    checkpoint, truth = full_checkpoint
    matched = read_moments(checkpoint, make_model(1))
    assert_same(matched.moments, truth)
    assert (matched.beta1, matched.beta2, matched.epsilon) == (*BETAS, EPSILON)
    assert (matched.without_state, matched.without_parameter) == ((), ())
    assert matched.describe() == (
        f"optimizer state of checkpoint-3 (Hugging Face Trainer): {len(truth)} of {len(truth)} parameters matched, "
        "by the Trainer's groups of trainable parameters"
    )


def test_only_the_parameters_asked_for_are_kept(full_checkpoint: tuple[Path, Truth]) -> None:
    checkpoint, truth = full_checkpoint
    name = "model.layers.1.mlp.up_proj.weight"
    matched = read_moments(checkpoint, make_model(1), names=[name, "model.absent.weight"])
    assert_same(matched.moments, {name: truth[name]})
    assert matched.without_state == ("model.absent.weight",)
    assert matched.without_parameter == ()


def test_state_of_adapters_is_matched_whatever_wraps_them(tmp_path: Path) -> None:
    peft = with_adapters(make_model())
    checkpoint, optimizer = by_trainer(peft, tmp_path)
    truth = {plain_name(name): state for name, state in truth_of(peft, optimizer).items()}
    fresh = with_adapters(make_model(1)).get_base_model()
    adapters = [name for name, _ in fresh.named_parameters() if ".lora_" in name]
    matched = read_moments(checkpoint, fresh, names=adapters)
    assert set(adapters) == set(truth)
    assert_same(matched.moments, truth)
    for parameter in fresh.parameters():
        parameter.requires_grad_(True)
    assert_same(read_moments(checkpoint, fresh, names=adapters).moments, truth)
    with pytest.raises(ModelError, match=r"8 numbered parameters in an unknown order"):
        read_moments(checkpoint, make_model(1))


def test_an_output_directory_is_no_checkpoint_but_names_its_checkpoints(full_checkpoint: tuple[Path, Truth]) -> None:
    checkpoint, _ = full_checkpoint
    with pytest.raises(ModelError, match=r"found checkpoint-3; expected optimizer\.pt.* Name one of them\."):
        read_moments(checkpoint.parent, make_model())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_our_split_is_the_trainers(architecture: str) -> None:
    with torch.device("meta"):
        config = AutoConfig.for_model(architecture, **ARCHITECTURES[architecture])
        model = AutoModelForCausalLM.from_config(config)
    owners = dict(model.named_modules())
    rule = RULES["the Trainer's groups"]
    ours = {
        name for name, parameter in model.named_parameters() if rule(name, parameter, owners[name.rpartition(".")[0]])
    }
    names = {name for name, _ in model.named_parameters()}
    assert ours == names & set(Trainer.get_decay_parameter_names(None, model))  # pyright: ignore[reportArgumentType]
    assert any(NORMS.search(name.lower()) for name in names) or architecture == "gpt2"


# Numbers and names


def test_the_plain_order_and_a_nested_state_dict_are_found(trained: Trained, tmp_path: Path) -> None:
    file = tmp_path / "training_state.pt"
    torch.save({"model": trained.model.state_dict(), "optimizer": trained.optimizer.state_dict()}, file)
    matched = read_moments(file, make_model(1))
    assert_same(matched.moments, trained.truth)
    assert (matched.layout, matched.order) == ("torch", "the model's order of trainable parameters")


def test_state_saved_by_accelerate_is_read(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    model = make_model()
    prepared, optimizer = accelerator.prepare(model, adamw(model.parameters()))
    train(prepared, optimizer)
    accelerator.save_state(str(tmp_path))
    matched = read_moments(tmp_path, make_model(1))
    assert matched.layout == "Accelerate"
    assert_same(matched.moments, truth_of(model, optimizer.optimizer))


def test_stored_names_are_preferred_and_unwrapped(tmp_path: Path) -> None:
    """In an order that no rule would find: last parameter first."""
    model = make_model()
    apply_activation_checkpointing(model, check_fn=lambda module: "DecoderLayer" in type(module).__name__)
    named = [(f"module._orig_mod.{name}", parameter) for name, parameter in model.named_parameters()]
    assert any("_checkpoint_wrapped_module" in name for name, _ in named)
    optimizer = adamw(reversed(named))
    train(model, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    matched = read_moments(tmp_path, make_model(1))
    truth = {plain_name(name): state for name, state in truth_of(model, optimizer).items()}
    assert_same(matched.moments, truth)
    assert matched.order == "parameter names in the checkpoint"


def test_an_unknown_order_is_refused_with_what_was_tried(trained: Trained, tmp_path: Path) -> None:
    optimizer = adamw(reversed(list(trained.model.parameters())))
    train(trained.model, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(ModelError, match=r"29 numbered parameters in an unknown order") as caught:
        read_moments(tmp_path, make_model())
    assert "the model's order of trainable parameters: number 1 is" in caught.value.expected
    assert "the Trainer's groups of trainable parameters: 16 + 13" in caught.value.expected
    assert "named_parameters" in caught.value.fix


class ScaleNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(4))


class Ambiguous(nn.Module):
    """One vector is a norm by its name, the other by its class."""

    def __init__(self) -> None:
        super().__init__()
        self.q_norm = nn.Parameter(torch.zeros(4))
        self.last = ScaleNorm()


def test_two_orders_of_equal_shapes_are_reported(tmp_path: Path) -> None:
    model = Ambiguous()
    optimizer = adamw([{"params": [model.last.scale]}, {"params": [model.q_norm]}])
    model.q_norm.grad, model.last.scale.grad = torch.full((4,), 3.0), torch.full((4,), 5.0)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    matched = read_moments(tmp_path, model)
    assert_same(matched.moments, truth_of(model, optimizer), step=1)
    assert matched.order == (
        "the Trainer's groups of trainable parameters "
        "(an earlier Trainer's groups of trainable parameters would fit as well)"
    )


def test_a_parameter_never_trained_has_no_state(tmp_path: Path) -> None:
    model = make_model()
    model.model.embed_tokens.weight.requires_grad_(False)
    optimizer = adamw(model.parameters())
    train(model, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    matched = read_moments(tmp_path, make_model(1))
    assert_same(matched.moments, truth_of(model, optimizer))
    assert matched.without_state == ("model.embed_tokens.weight",)
    assert f"{len(matched.moments)} of {len(matched.moments) + 1} parameters matched" in matched.describe()


def test_entries_without_a_parameter_are_counted(trained: Trained, tmp_path: Path) -> None:
    state = trained.optimizer.state_dict()["state"]
    names = [f"base_model.model.{name}" for name in trained.truth]
    named = dict(zip(names, state.values(), strict=True)) | {"value_head.weight": state[0]}
    torch.save({"state": named, "param_groups": [{"betas": (0.9, 0.99)}, {"betas": (0.5, 0.99)}]}, tmp_path / "o.pt")
    matched = read_moments(tmp_path / "o.pt", make_model(1))
    assert_same(matched.moments, trained.truth)
    assert matched.without_parameter == ("value_head.weight",)
    assert "parameters matched; entries without a parameter: 1; it does not say" in matched.describe()
    assert (matched.beta1, matched.beta2, matched.epsilon) == (None, None, None)


def test_steps_counted_by_the_group_are_read(trained: Trained, tmp_path: Path) -> None:
    """As fused optimizers of other libraries do."""
    content = trained.optimizer.state_dict()
    state = {number: {k: v for k, v in slots.items() if k != "step"} for number, slots in content["state"].items()}
    groups = [group | {"step": STEPS} for group in content["param_groups"]]
    torch.save({"state": state, "param_groups": groups}, tmp_path / "optimizer.pt")
    assert_same(read_moments(tmp_path, make_model(1)).moments, trained.truth)


def test_our_own_state_is_read(trained: Trained, tmp_path: Path) -> None:
    moments = {name: Moments(*pair, STEPS) for name, pair in trained.truth.items()}
    (tmp_path / "optimizer.safetensors").write_bytes(optimizer_bytes(moments))
    for path in (tmp_path, tmp_path / "optimizer.safetensors"):
        matched = read_moments(path, make_model(1))
        assert_same(matched.moments, trained.truth)
        assert (matched.layout, matched.beta1) == ("curate", None)


# Other optimizers and other models


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "momentum_buffer"),
        (lambda p: torch.optim.Adafactor(p), "row_var"),
        (lambda p: torch.optim.RMSprop(p), "square_avg"),
    ],
)
def test_another_optimizer_is_refused_by_what_its_state_holds(
    make: Callable[[Iterable[Tensor]], torch.optim.Optimizer], found: str, tmp_path: Path
) -> None:
    model = make_model()
    optimizer = make(model.parameters())
    train(model, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(ModelError, match=rf"state of another optimizer: .*{found}.*; expected exp_avg and exp_avg_sq"):
        read_moments(tmp_path, make_model())


def test_a_moment_of_another_shape_is_refused(trained: Trained, tmp_path: Path) -> None:
    state = trained.optimizer.state_dict()["state"]
    low_rank = {"exp_avg": torch.zeros(2, 9), "exp_avg_sq": torch.zeros(2, 9), "step": torch.tensor(3.0)}
    named = dict(zip(trained.truth, state.values(), strict=True)) | {"lm_head.weight": low_rank}
    torch.save({"state": named, "param_groups": []}, tmp_path / "optimizer.pt")
    with pytest.raises(ModelError, match=r"lm_head\.weight: found a moment of shape \[2, 9\]; expected .* \[31, 9\]"):
        read_moments(tmp_path, make_model())
    assert len(read_moments(tmp_path, make_model(), names=["model.norm.weight"]).moments) == 1


def test_a_checkpoint_with_nothing_that_was_asked_for_is_refused(trained: Trained, tmp_path: Path) -> None:
    moments = {f"encoder.{name}": Moments(*pair, STEPS) for name, pair in trained.truth.items()}
    (tmp_path / "optimizer.safetensors").write_bytes(optimizer_bytes(moments))
    with pytest.raises(ModelError, match=r"found state of encoder\..* expected state of model\.embed_tokens"):
        read_moments(tmp_path, make_model())


# Sharded checkpoints


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def shard(directory: Path, *, flat: bool = False) -> Truth:
    """Train a model under FSDP2 and save its optimizer as Accelerate and the Trainer do."""
    model = make_model()
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    optimizer = adamw(model.parameters())
    train(model, optimizer)
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    state = get_optimizer_state_dict(model, optimizer, options=options)
    dcp.save({"optimizer": state}, storage_writer=dcp.FileSystemWriter(directory / "optimizer_0"))
    return {
        name: tuple(optimizer.state[parameter][slot].full_tensor() for slot in ("exp_avg", "exp_avg_sq"))
        for name, parameter in model.named_parameters()
    }  # pyright: ignore[reportReturnType]


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("flat", [False, True])
def test_sharded_state_of_fsdp_is_read(flat: bool, tmp_path: Path) -> None:
    truth = shard(tmp_path, flat=flat)
    for path in (tmp_path, tmp_path / "optimizer_0"):
        matched = read_moments(path, make_model(1))
        assert_same(matched.moments, truth)
        assert (matched.beta1, matched.beta2, matched.epsilon) == (*BETAS, EPSILON)


def test_pieces_of_many_processes_are_put_together(tmp_path: Path, one_process: None) -> None:
    """A piece is moved in the metadata: what two processes would have written, read from one."""
    truth = shard(tmp_path)
    directory, name = tmp_path / "optimizer_0", "optimizer.state.lm_head.weight.exp_avg"
    metadata = load_metadata(directory / ".metadata")
    record = metadata.state_dict_metadata[name]
    whole = record.chunks.pop()  # pyright: ignore[reportAttributeAccessIssue]
    metadata.storage_data.pop(MetadataIndex(name, whole.offsets))
    for start, end in ((0, 20), (20, VOCAB)):
        file = directory / f"__{start + 1}_0.distcp"
        torch.save(truth["lm_head.weight"][0][start:end].clone(), file)
        offsets, sizes = torch.Size([start, 0]), torch.Size([end - start, 9])
        record.chunks.append(type(whole)(offsets, sizes))  # pyright: ignore[reportAttributeAccessIssue]
        info = type(next(iter(metadata.storage_data.values())))(file.name, 0, file.stat().st_size)
        metadata.storage_data[MetadataIndex(name, offsets)] = info
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    assert_same(read_moments(tmp_path, make_model(1)).moments, truth)
    record.chunks.pop()  # pyright: ignore[reportAttributeAccessIssue]
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(ModelError, match=r"lm_head\.weight\.exp_avg: found some of its pieces"):
        read_moments(tmp_path, make_model(1))


def test_a_piece_outside_the_checkpoint_is_not_opened(tmp_path: Path, one_process: None) -> None:
    shard(tmp_path)
    directory = tmp_path / "optimizer_0"
    (directory / "__0_0.distcp").rename(tmp_path / "outside.distcp")
    with pytest.raises(ModelError, match=r"__0_0\.distcp: found .*No such file"):
        read_moments(tmp_path, make_model())
    metadata = load_metadata(directory / ".metadata")
    for info in metadata.storage_data.values():
        info.relative_path = "../outside.distcp"
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(ModelError, match=r"in \.\./outside\.distcp; expected a plain file beside \.metadata"):
        read_moments(tmp_path, make_model())


def test_state_saved_whole_by_fsdp_or_data_parallel_training_is_read(tmp_path: Path, one_process: None) -> None:
    model = make_model()
    parallel = DistributedDataParallel(model)
    optimizer = adamw(parallel.parameters())
    train(parallel, optimizer)
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    torch.save(get_optimizer_state_dict(parallel, optimizer, options=whole), tmp_path / "optimizer.bin")
    assert_same(read_moments(tmp_path, make_model(1)).moments, truth_of(model, optimizer))


# DeepSpeed


class Deepspeed:
    """Writes what DeepSpeed writes for a trained model: checked against real checkpoints of version 0.19.

    ZeRO 1 and 2 join all parameters of a group, pad the vector to a multiple of 2 x processes and cut it into equal
    parts. ZeRO 3 pads and cuts every parameter, and joins the parts of a process, sub-group by sub-group.
    """

    def __init__(self, trained: Trained, processes: int) -> None:
        self.trained, self.processes = trained, processes
        names = list(trained.truth)
        self.groups = [[n for n in names if "norm" not in n], [n for n in names if "norm" in n]]

    def vector(self, names: list[str], slot: int) -> Tensor:
        return torch.cat([self.trained.truth[name][slot].flatten() for name in names])

    def write(self, directory: Path, stage: int, *, elastic: bool = False, step_in_group: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        cut = self.stage_3 if stage == 3 else self.stages_1_and_2
        for rank in range(self.processes):
            states, more = cut(rank)
            steps = {} if step_in_group else {"step": torch.tensor(float(STEPS))}
            state = {number: dict(zip(("exp_avg", "exp_avg_sq"), pair, strict=True)) | steps for number, pair in states}
            common = {"betas": BETAS, "eps": EPSILON} | ({"step": STEPS} if step_in_group else {})
            base = {"state": state, "param_groups": [common | {"params": [number]} for number in state]}
            key = "optimizer_state_dict" if stage == 3 else "base_optimizer_state"
            counts = self.processes if stage == 3 else [self.processes] * 2
            content = more | {
                key: list(state.values()) if elastic else base,
                "zero_stage": ZeroStageEnum(stage),
                "partition_count": counts,
            }
            if elastic and step_in_group:
                content["base_optimizer_state_step"] = STEPS
            file = directory / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
            torch.save({"optimizer_state_dict": content, "ds_version": "0.19.8"}, file)
        shapes = [{name: self.trained.truth[name][0].shape for name in group} for group in self.groups]
        model = "zero_pp_rank_0_mp_rank_00_model_states.pt" if stage == 3 else "mp_rank_00_model_states.pt"
        torch.save({"module": {}, "param_shapes": shapes}, directory / model)

    def stages_1_and_2(self, rank: int) -> tuple[list, dict]:
        states, mappings = [], []
        for number, names in enumerate(self.groups):
            size = self.vector(names, 0).numel()
            share = -(-size // (2 * self.processes)) * 2
            low, high = rank * share, (rank + 1) * share
            padded = [nn.functional.pad(self.vector(names, s), (0, share * self.processes - size)) for s in (0, 1)]
            states.append((number, [vector[low:high].clone() for vector in padded]))
            mapping, start = {}, 0
            for name in names:
                end = start + self.trained.truth[name][0].numel()
                inside = max(start, low), min(end, high)
                if inside[0] < inside[1]:
                    mapping[name] = fragment_address(inside[1] - inside[0], inside[0] - low)
                start = end
            mappings.append(mapping)
        return states, {"param_slice_mappings": mappings}

    def stage_3(self, rank: int) -> tuple[list, dict]:
        def part(name: str, slot: int) -> Tensor:
            flat = self.trained.truth[name][slot].flatten()
            share = -(-flat.numel() // self.processes)
            return nn.functional.pad(flat, (0, share * self.processes - flat.numel()))[rank * share :][:share]

        first, second = self.groups
        subgroups = [first[:7], first[7:], second]
        return [
            (number, [torch.cat([part(name, slot) for name in names]) for slot in (0, 1)])
            for number, names in enumerate(subgroups)
        ], {"fp32_flat_groups": []}


class ZeroStageEnum(int):
    def __reduce__(self) -> tuple[type, tuple[int]]:
        return ZeroStageEnum, (int(self),)


class fragment_address:  # noqa: N801
    def __init__(self, numel: int, start: int) -> None:
        self.numel, self.start = numel, start


@pytest.fixture
def deepspeed_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file names classes of a library that is not there when it is read."""
    places = {ZeroStageEnum: "deepspeed.runtime.zero.config", fragment_address: "deepspeed.utils.tensor_fragment"}
    for kind, place in places.items():
        module = ModuleType(place)
        setattr(module, kind.__name__, kind)
        monkeypatch.setattr(kind, "__module__", place)
        monkeypatch.setitem(sys.modules, place, module)
        for parent in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero", "deepspeed.utils"):
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))


@pytest.fixture
def zero(deepspeed_classes: None, trained: Trained) -> Callable[[int], Deepspeed]:
    return lambda processes: Deepspeed(trained, processes)


@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize("processes", [1, 2, 3, 11])
def test_partitions_of_deepspeed_are_joined(
    stage: int, processes: int, zero: Callable[[int], Deepspeed], tmp_path: Path
) -> None:
    writer = zero(processes)
    writer.write(tmp_path / "global_step3", stage)
    writer.write(tmp_path / "global_step20", stage, step_in_group=True)
    (tmp_path / "latest").write_text("global_step3\n")
    for path in (tmp_path, tmp_path / "global_step3", tmp_path / "global_step20"):
        matched = read_moments(path, make_model(1))
        assert_same(matched.moments, writer.trained.truth)
        assert (matched.beta1, matched.beta2, matched.epsilon) == (*BETAS, EPSILON)
        assert matched.layout == ("DeepSpeed ZeRO-3" if stage == 3 else "DeepSpeed ZeRO-1/2")


@pytest.mark.parametrize("step_in_group", [False, True])
def test_elastic_checkpoints_of_deepspeed_are_read(
    step_in_group: bool, zero: Callable[[int], Deepspeed], tmp_path: Path
) -> None:
    writer = zero(2)
    writer.write(tmp_path / "global_step3", 2, elastic=True, step_in_group=step_in_group)
    matched = read_moments(tmp_path, make_model(1))
    assert_same(matched.moments, writer.trained.truth)
    assert matched.beta1 is None


def test_without_a_latest_file_the_newest_step_counts(zero: Callable[[int], Deepspeed], tmp_path: Path) -> None:
    writer = zero(2)
    writer.write(tmp_path / "global_step20", 1)
    writer.write(tmp_path / "global_step3", 3)
    assert read_moments(tmp_path, make_model(1)).layout == "DeepSpeed ZeRO-1/2"


@pytest.mark.parametrize("stage", [1, 3])
def test_a_missing_process_of_deepspeed_is_noticed(
    stage: int, zero: Callable[[int], Deepspeed], tmp_path: Path
) -> None:
    zero(3).write(tmp_path, stage)
    (tmp_path / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(ModelError, match="found the files of 2 processes; expected those of 3"):
        read_moments(tmp_path, make_model())


def test_tensor_parallel_files_of_deepspeed_are_refused(zero: Callable[[int], Deepspeed], tmp_path: Path) -> None:
    zero(1).write(tmp_path, 1)
    (tmp_path / "bf16_zero_pp_rank_0_mp_rank_01_optim_states.pt").touch()
    with pytest.raises(ModelError, match=r"tensor-parallel files .* ds_to_universal\.py"):
        read_moments(tmp_path, make_model())


def test_shapes_that_do_not_fill_a_stage_3_partition_are_refused(
    zero: Callable[[int], Deepspeed], tmp_path: Path
) -> None:
    writer = zero(2)
    writer.write(tmp_path, 3)
    file = tmp_path / "zero_pp_rank_0_mp_rank_00_model_states.pt"
    shapes = torch.load(file)["param_shapes"]
    for change, found in (
        ({"lm_head.weight": torch.Size([30, 9])}, "in a sub-group"),
        ({"more": torch.Size([3])}, "29 par"),
    ):
        torch.save(
            {"param_shapes": [shapes[0] | change, shapes[1]] if "more" not in change else [*shapes, change]}, file
        )
        with pytest.raises(ModelError, match=found):
            read_moments(tmp_path, make_model())


@pytest.mark.parametrize("flat", [False, True])
def test_universal_checkpoints_are_read(flat: bool, trained: Trained, tmp_path: Path) -> None:
    """Those made from stages 1 and 2 wrap tensors and state the step; those from stage 3 are flat and bare."""
    for name, pair in trained.truth.items():
        directory = tmp_path / "global_step3_universal" / "zero" / name
        directory.mkdir(parents=True)
        for slot, moment in zip(("exp_avg", "exp_avg_sq"), pair, strict=True):
            torch.save(moment.flatten() if flat else {"param": moment, "cat_dim": 0}, directory / f"{slot}.pt")
        if not flat:
            torch.save(torch.tensor(3.0), directory / "step.pt")
    torch.save({"param_groups": [{"betas": BETAS}]}, directory.parent / "optimizer_state.pt")
    (tmp_path / "latest_universal").write_text("global_step3_universal")
    matched = read_moments(tmp_path, make_model(1))
    assert_same(matched.moments, trained.truth, step=0 if flat else STEPS)
    assert (matched.beta1, matched.beta2, matched.epsilon) == (*BETAS, None)


def test_deepspeed_without_zero_numbers_its_parameters(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "global_step3").mkdir()
    content = {
        "module": trained.model.state_dict(),
        "optimizer": trained.optimizer.state_dict(),
        "ds_version": "0.19.8",
    }
    torch.save(content, tmp_path / "global_step3" / "mp_rank_00_model_states.pt")
    assert_same(read_moments(tmp_path, make_model(1)).moments, trained.truth)


# Hostile and damaged files


class Payload:
    """Makes a directory when unpickled by a reader that runs what it reads."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def test_a_hostile_optimizer_file_runs_nothing(trained: Trained, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    state = trained.optimizer.state_dict() | {"extra": Payload(canary)}
    torch.save(state, tmp_path / "optimizer.pt")
    with pytest.raises(ModelError, match=r"optimizer\.pt: found code, or an object that is not a tensor: \w+\.mkdir;"):
        read_moments(tmp_path, make_model())
    assert not canary.exists()
    torch.load(tmp_path / "optimizer.pt", weights_only=False)
    assert canary.exists()


def test_hostile_metadata_run_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Payload(canary)))
    with pytest.raises(ModelError, match=r"\.metadata: found code, or an object that is not a tensor: \w+\.mkdir;"):
        read_moments(tmp_path, make_model())
    assert not canary.exists()
    with pytest.raises(AttributeError):
        dcp.FileSystemReader(tmp_path).read_metadata()
    assert canary.exists()


def test_a_hostile_piece_of_a_sharded_checkpoint_runs_nothing(tmp_path: Path, one_process: None) -> None:
    shard(tmp_path)
    directory, canary = tmp_path / "optimizer_0", tmp_path / "canary"
    metadata = load_metadata(directory / ".metadata")
    torch.save(Payload(canary), directory / "__9_9.distcp")
    for info in metadata.storage_data.values():
        info.relative_path, info.offset, info.length = "__9_9.distcp", 0, (directory / "__9_9.distcp").stat().st_size
    (directory / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(ModelError, match="found code, or an object that is not a tensor"):
        read_moments(tmp_path, make_model())
    assert not canary.exists()


@pytest.mark.parametrize("name", ["deepspeed", "torch.nn", "builtins"])
def test_metadata_may_name_records_only(name: str, tmp_path: Path) -> None:
    """Classes that do nothing bad by themselves are refused all the same."""
    (tmp_path / ".metadata").write_bytes(f"c{name}\nModule\n.".encode())
    with pytest.raises(ModelError, match=rf"not a tensor: {name}\.Module"):
        read_moments(tmp_path, make_model())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_an_error_and_nothing_else(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut anywhere, or one byte changed in the pickled part: refused, or read into moments of the right shapes."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("damaged")
    model = Ambiguous()
    optimizer = adamw(model.parameters())
    model.q_norm.grad, model.last.scale.grad = torch.ones(4), torch.ones(4)
    optimizer.step()
    torch.save(optimizer.state_dict(), directory / "optimizer.pt")
    content = bytearray((directory / "optimizer.pt").read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    (directory / "optimizer.pt").write_bytes(content)
    try:
        moments = read_moments(directory, model).moments
    except ModelError:
        return
    assert all(state.exp_avg.shape == (4,) for state in moments.values())


def test_a_directory_without_a_state_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match=r"found model\.safetensors; expected optimizer\.pt.*save_only_model"):
        read_moments(tmp_path, make_model())
    with pytest.raises(ModelError, match="found nothing"):
        read_moments(tmp_path / "absent", make_model())
