"""What `pin` fixes may change the time of a product, never its value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.models import device

MATMUL = torch.backends.mkldnn.matmul
FASTER = {"cpu_name": "AMD EPYC", "avx512_vl": True, "amx_tile": False}
SIDES = st.integers(1, 300)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = MATMUL.fp32_precision
    MATMUL.fp32_precision = "none"
    yield
    MATMUL.fp32_precision = before


@given(SIDES, SIDES, SIDES, st.integers(0, 2**31))
@settings(max_examples=60)
def test_products_are_float32_whoever_computes_them(rows: int, inner: int, columns: int, seed: int) -> None:
    device.choose_products()
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, inner, generator=generator)
    right = torch.randn(inner, columns, generator=generator)
    exact, scale = left.double() @ right.double(), left.double().abs() @ right.double().abs()
    bound = inner * torch.finfo(torch.float32).eps * scale
    for found in (
        left @ right,
        torch.nn.functional.linear(left, right.T.contiguous()),
        torch.bmm(left[None], right[None])[0],
    ):
        assert ((found.double() - exact).abs() <= bound).all()


def test_the_same_product_has_the_same_bits_again() -> None:
    device.choose_products()
    left, right = torch.randn(517, 256), torch.randn(256, 640)
    assert torch.equal(left @ right, left @ right)


def test_a_cpu_that_would_round_them_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: FASTER)
    product = torch.Tensor.__matmul__

    def rounded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return (
            product(left.bfloat16(), right.bfloat16()).float()
            if MATMUL.fp32_precision == "bf16"
            else product(left, right)
        )

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not device.choose_products()
    assert MATMUL.fp32_precision == "none"


@pytest.mark.parametrize(
    "capabilities",
    [FASTER | {"amx_tile": True}, FASTER | {"avx512_vl": False}, FASTER | {"cpu_name": "Intel Xeon"}, {}],
)
def test_any_other_cpu_keeps_its_own(capabilities: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert not device.choose_products()
    assert MATMUL.fp32_precision == "none"
