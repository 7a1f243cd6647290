"""What a network returns, seen by trying it: nothing about a network is assumed that one batch can tell."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from poise.errors import InputError, reason_of

# Where features usually are among several outputs, best first.
USUAL = ("pooler_output", "features", "image_embeds", "last_hidden_state")
Pool = Literal["rows", "maps", "mean", "first"]
SAYS = {
    "rows": "rows (B, {0})",
    "maps": "maps (B, {0}, H, W), averaged over the places",
    "mean": "tokens (B, T, {0}), averaged over the tokens",
    "first": "tokens (B, T, {0}), of which the first is read",
}


class Probed(NamedTuple):
    """A module that returns rows (B, `dim`), and what the network in it was seen to return."""

    module: nn.Module
    dim: int
    note: str


class Reading(nn.Module):
    """A network whose output has to be picked and pooled to become rows."""

    def __init__(self, network: nn.Module, pick: str | int | None, pool: Pool) -> None:
        super().__init__()
        self.network, self.pick, self.pool = network, pick, pool

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D)."""
        given = self.network(x)
        values: Tensor = given if self.pick is None else given[self.pick]
        if self.pool == "maps":
            return values.mean(dim=(2, 3))
        if self.pool == "mean":
            return values.mean(dim=1)
        return values[:, 0] if self.pool == "first" else values


def probed(name: str, network: nn.Module, size: int, output: str | int | None = None) -> Probed:
    """Try `network` on two grey images of `size`, and give a module that returns rows.

    `output` is the key or the place of the features where there are several outputs, or how tokens become a row:
    "mean" (the default) or "first". Maps are averaged over their places.

    Raises: InputError if the network fails on such images, or if its output is not understood.
    """
    given = _given(name, network, size)
    if isinstance(given, Tensor):
        pick, values = None, given
    else:
        pick = _picked(name, given, None if output in ("mean", "first") else output)
        values = given[pick]
    pool = _pool(name, values, first=output == "first")
    dim = values.shape[1] if pool in ("rows", "maps") else values.shape[-1]
    where = "" if pick is None else f"output {pick!r}: "
    note = f"{where}{SAYS[pool].format(dim)}"
    plain = pick is None and pool == "rows"
    return Probed(network if plain else Reading(network, pick, pool), dim, note)


def _given(name: str, network: nn.Module, size: int) -> Any:
    try:
        with _without_gradient(network):
            return network(torch.zeros(2, 3, size, size))
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError, KeyError) as error:
        raise InputError(
            f"backbone {name} fails on images of {size} x {size} pixels ({reason_of(error)}); give the "
            "size it is made for"
        ) from error


@contextmanager
def _without_gradient(module: nn.Module) -> Iterator[None]:
    """Within, the module is in evaluation mode without gradients; afterwards each part of it is as before."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in training.items():
            part.training = mode


def _picked(name: str, given: Any, output: str | int | None) -> str | int:
    """The key or place of the features among several outputs."""
    places: dict[Any, Any] = {}
    if isinstance(given, Mapping):
        places = dict(given)
    elif isinstance(given, tuple | list):
        places = dict(enumerate(given))
    tensors = [key for key, value in places.items() if isinstance(value, Tensor)]
    if output is not None and output in tensors:
        return output
    if output is None:
        usual = [key for key in USUAL if key in tensors]
        if usual or len(tensors) == 1 or (tensors and isinstance(given, tuple | list)):
            return usual[0] if usual else tensors[0]
    there = ", ".join(repr(key) for key in tensors) or f"none, but {type(given).__name__}"
    wanted = "" if output is None else f"has no output {output!r}; "
    raise InputError(f"backbone {name} {wanted}returns the tensors {there}; name the features by the option output")


def _pool(name: str, values: Tensor, *, first: bool) -> Pool:
    if values.ndim not in (2, 3, 4) or len(values) != 2 or not values.is_floating_point():
        raise InputError(
            f"backbone {name} returns {values.dtype} of shape {tuple(values.shape)} for two images; features are "
            "floating-point rows (B, D), maps (B, D, H, W) or tokens (B, T, D)"
        )
    if values.ndim == 3:
        return "first" if first else "mean"
    return "rows" if values.ndim == 2 else "maps"


def last_block(module: nn.Module) -> tuple[str, ...]:
    """Beginnings of the parameter names of the last block and of all that follows it; none without a list of blocks.

    A block is the last member of a list of modules, holds at least two matrices or convolutions, and is no list.
    """
    lists = nn.Sequential, nn.ModuleList, nn.ModuleDict
    found = ""
    for name, part in module.named_modules():
        members = list(part.named_children()) if isinstance(part, lists) else []
        if members and not isinstance(members[-1][1], lists) and _matrices(members[-1][1]) >= 2:
            found = f"{name}.{members[-1][0]}.".lstrip(".")
    if not found:
        return ()
    names = [name for name, _ in module.named_parameters()]
    end = max(place for place, name in enumerate(names) if name.startswith(found))
    return found, *names[end + 1 :]


def _matrices(module: nn.Module) -> int:
    return sum(value.ndim >= 2 for value in module.parameters())
