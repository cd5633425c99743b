import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from ctscribe.learn.model import cross_entropy as module
from ctscribe.learn.model.cross_entropy import token_cross_entropy


def draw(
    tokens: int, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(tokens, 6, dtype=dtype, requires_grad=True)
    weight = torch.randn(11, 6, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(11, (tokens,))


@pytest.mark.parametrize("rows_per_chunk", [1024, 4])
def test_the_gradient_is_the_derivative(
    rows_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_PER_CHUNK", rows_per_chunk)
    hidden, weight, targets = draw(9)
    assert torch.autograd.gradcheck(token_cross_entropy, (hidden, weight, targets))
    reference = cross_entropy(linear(hidden, weight), targets, reduction="none")
    torch.testing.assert_close(token_cross_entropy(hidden, weight, targets), reference)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_only_what_learns_gets_a_gradient(frozen: str) -> None:
    hidden, weight, targets = draw(5)
    {"hidden": hidden, "weight": weight}[frozen].requires_grad_(False)
    token_cross_entropy(hidden, weight, targets).sum().backward()  # type: ignore[no-untyped-call]
    assert (hidden.grad is None) is (frozen == "hidden")
    assert (weight.grad is None) is (frozen == "weight")


def test_sums_of_bfloat16_products_are_wider_than_bfloat16() -> None:
    """A thousand rows that each add 1/512 to one weight: bfloat16 would stop at one half."""
    hidden = torch.ones(1024, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.float32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        losses = token_cross_entropy(hidden, weight, torch.zeros(1024, dtype=torch.long))
    assert losses.dtype is torch.float32
    (losses.sum() / 512).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[:, 0], torch.tensor([-1.0, 1.0]))


def test_no_token_has_no_loss() -> None:
    hidden, weight, targets = draw(0)
    losses = token_cross_entropy(hidden, weight, targets)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert losses.shape == (0,)
    assert weight.grad is not None
    assert not weight.grad.any()


def test_several_chunks_keep_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = draw(9)
    largest = []
    for rows in (1024, 4):
        monkeypatch.setattr(module, "ROWS_PER_CHUNK", rows)
        saved: list[int] = []

        def note(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            token_cross_entropy(hidden, weight, targets)
        largest.append(max(saved))
    assert largest == [9 * 11, 11 * 6]
