"""Rows that stay on disk: one tensor made of many, which reads what is asked for and joins the rest only if it must.

The shards of a store are memory-mapped tensors. `Shards` stands for all their rows together. Views, row slices and rows
by number are read from the shards that hold them; every other operation first joins all rows in memory, so that code
which does not know of shards is right, if not small.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


class Shards(Tensor):
    """Rows (V, N, D) or (N, D) of `parts`, tensors (V, n, D) or (n, D) of one type, one after the other.

    It reads like any tensor and is never written to: operations in place act on a copy.
    """

    parts: tuple[Tensor, ...]
    first: Tensor

    @staticmethod
    def __new__(cls: type["Shards"], parts: Sequence[Tensor]) -> "Shards":
        """The rows of all parts."""
        rows = [part.shape[-2] for part in parts]
        like = parts[0]
        shape = (*like.shape[:-2], sum(rows), like.shape[-1])
        self: Shards = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        self.parts = tuple(parts)
        self.first = torch.tensor([0, *accumulate(rows)])
        return self

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What an operation on shards gives: see the table below for those that read little."""
        if func in READERS and isinstance(args[0], Shards):
            read = READERS[func](*args, **(kwargs or {}))
            if read is not NotImplemented:
                return read
        args, kwargs = tree_map_only(Shards, Shards.joined, (args, kwargs or {}))
        return func(*args, **kwargs)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Shards({tuple(self.shape)}, {self.dtype}, {len(self.parts)} parts)"

    def numpy(self, *, force: bool = False) -> Any:
        """All rows as an array."""
        return self.joined().numpy(force=force)

    def joined(self) -> Tensor:
        """All rows in memory."""
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts, dim=-2)

    def rows(self, numbers: Tensor) -> Tensor:
        """(..., n, D) the rows of these numbers, 0 to N - 1 or -N to -1, in their order."""
        total = self.shape[-2]
        if len(numbers) and (int(numbers.min()) < -total or int(numbers.max()) >= total):
            raise IndexError(f"row numbers reach from {int(numbers.min())} to {int(numbers.max())}, of {total} rows")
        numbers = torch.where(numbers < 0, numbers + total, numbers)
        part = torch.searchsorted(self.first, numbers, right=True) - 1
        found = torch.empty(*self.shape[:-2], len(numbers), self.shape[-1], dtype=self.dtype)
        for k in sorted(set(part.tolist())):
            here = (part == k).nonzero().flatten()
            found.index_copy_(-2, here, self.parts[k].index_select(-2, numbers[here] - self.first[k]))
        return found

    def between(self, start: int, stop: int) -> Tensor:
        """(..., stop - start, D) rows from `start` to before `stop`; without a copy if one shard holds them."""
        pieces = [
            part[..., max(start - first, 0) : max(stop - first, 0), :]
            for part, first in zip(self.parts, self.first.tolist(), strict=False)
            if first < stop and first + part.shape[-2] > start
        ]
        if not pieces:
            return self.parts[0][..., :0, :]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-2)


def _select(x: Shards, dim: int, index: int) -> Any:
    if dim in (0, -3) and x.ndim == 3:
        return Shards([part[index] for part in x.parts])
    if dim in (0, -2) and x.ndim == 2:
        number = index % len(x)
        return x.between(number, number + 1)[0]
    return NotImplemented


def _slice(x: Shards, dim: int = 0, start: int | None = None, stop: int | None = None, step: int = 1) -> Any:
    asked = range(x.shape[dim])[slice(start, stop, step)]
    if dim % x.ndim == x.ndim - 2:
        return x.between(asked.start, asked.stop) if step == 1 else x.rows(torch.tensor(asked))
    if dim % x.ndim == 0 and len(asked):
        return Shards([part[slice(start, stop, step)] for part in x.parts])
    return NotImplemented


def _index(x: Shards, indices: Sequence[Tensor | None]) -> Any:
    *before, rows = indices
    if len(indices) != x.ndim - 1 or any(index is not None for index in before) or rows is None or rows.ndim != 1:
        return NotImplemented
    return x.rows(rows.nonzero().flatten() if rows.dtype == torch.bool else rows)


def _index_select(x: Shards, dim: int, rows: Tensor) -> Any:
    return x.rows(rows) if dim % x.ndim == x.ndim - 2 else NotImplemented


def _unbind(x: Shards, dim: int = 0) -> Any:
    return [_select(x, 0, i) for i in range(len(x))] if dim == 0 and x.ndim == 3 else NotImplemented


def _unsqueeze(x: Shards, dim: int) -> Any:
    return Shards([part.unsqueeze(0) for part in x.parts]) if dim == 0 and x.ndim == 2 else NotImplemented


def _same(x: Shards) -> Any:
    return Shards(x.parts)  # torch wants every view to be a new tensor


aten = torch.ops.aten
READERS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        aten.alias.default: _same,
        aten.detach.default: _same,
        aten.index.Tensor: _index,
        aten.index_select.default: _index_select,
        aten.select.int: _select,
        aten.slice.Tensor: _slice,
        aten.unbind.int: _unbind,
        aten.unsqueeze.default: _unsqueeze,
    }
)
