"""`Head`: a linear classifier as a value, and what happens to features before it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from poise.errors import InputError
from poise.machine.atomic import write_atomically
from poise.machine.documents import check_schema
from poise.machine.tensor_files import tensors_of
from poise.values.arrays import as_values
from poise.values.fields import one_of
from poise.values.notebook import html_table

HEAD_SCHEMA = 1
DIGITS = re.compile("[0-9]{1,9}")
REMEDY = "save the head again"


@dataclass(frozen=True, eq=False, repr=False)
class Prep:
    """What happens to features before the linear map: subtract `centre` (D,), then divide by the row norm if `unit`.

    A centre alone folds into a head's bias; unit norm does not, and `Head.folded` says so. A scalar factor never needs
    to be kept: without `unit` it belongs into the weights, with `unit` it has no effect.
    """

    centre: Tensor | None = None
    unit: bool = False

    def __repr__(self) -> str:
        steps = (*(() if self.centre is None else ("centred",)), *(("of unit length",) if self.unit else ()))
        return f"<Prep: features {' and '.join(steps) or 'as they are'}>"

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D); a zero row stays zero."""
        shifted = x if self.centre is None else x - self.centre.to(x)
        return torch.nn.functional.normalize(shifted, dim=-1) if self.unit else shifted


@dataclass(frozen=True, eq=False, repr=False)
class Head:
    """A linear classifier: `weight` (..., C, D), `bias` (..., C) or None for zeros, and an optional `prep` of features.

    The parameters of a torch layer can be given as they are; the head keeps their values, not their gradients.

    Calling it on x (N, D) returns logits (..., N, C), any scale included, computed in the dtype of the weight. Leading
    dimensions hold several heads (of one pass, or of one head's path over epochs); indexing selects among them.
    """

    weight: Tensor
    bias: Tensor
    prep: Prep | None = None

    def __post_init__(self) -> None:
        weight = as_values("a head's weight", self.weight)
        bias = weight.new_zeros(weight.shape[:-1])
        if self.bias is not None:
            bias = as_values("a head's bias", self.bias).to(weight.dtype)
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)
        if self.weight.ndim < 2 or self.weight.shape[:-1] != self.bias.shape:
            raise InputError(
                f"a head needs weight (..., C, D) and bias (..., C), got {tuple(self.weight.shape)} and "
                f"{tuple(self.bias.shape)}"
            )

    def __repr__(self) -> str:
        return f"<Head: {', '.join(f'{name} {said}' for name, said in self._facts())}>"

    def _repr_html_(self) -> str:
        return html_table((), self._facts(), title="Head")

    def _facts(self) -> list[tuple[str, str]]:
        stacked = " x ".join(map(str, self.weight.shape[:-2]))
        facts = {
            "heads": stacked,
            "classes": str(self.classes),
            "features": str(self.dim),
            "type": str(self.weight.dtype).removeprefix("torch."),
            "prep": "" if self.prep is None else str(self.prep)[1:-1].removeprefix("Prep: features "),
        }
        return [(name, said) for name, said in facts.items() if said]

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return self.weight.shape[-2]

    @property
    def dim(self) -> int:
        """Feature dimension D."""
        return self.weight.shape[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (..., N, C) of feature rows x (N, D)."""
        if x.shape[-1] != self.dim:
            raise InputError(f"the head reads {self.dim} features per row, these rows have {x.shape[-1]}")
        rows = x.to(self.weight)
        rows = rows if self.prep is None else self.prep(rows)
        return rows @ self.weight.mT + self.bias.unsqueeze(-2)

    def __len__(self) -> int:
        """Number of heads in a stack."""
        if self.weight.ndim < 3:
            raise TypeError("this is one head; only a stack of heads has a length")
        return len(self.weight)

    def __getitem__(self, index: int | slice) -> "Head":
        if self.weight.ndim < 3:
            raise IndexError("this is one head; only a stack of heads can be indexed")
        return replace(self, weight=self.weight[index], bias=self.bias[index])

    def scaled(self, factor: Tensor | float) -> "Head":
        """The head whose logits are multiplied by `factor`: one number, or one per class (C,)."""
        rows = torch.as_tensor(factor, dtype=self.bias.dtype, device=self.bias.device).expand_as(self.bias)
        return replace(self, weight=self.weight * rows.unsqueeze(-1), bias=self.bias * rows)

    def shifted(self, delta: Tensor | float) -> "Head":
        """The head whose logits have `delta` added: one number, or one per class (C,)."""
        added = torch.as_tensor(delta, dtype=self.bias.dtype, device=self.bias.device)
        return replace(self, bias=self.bias + added)

    def rescaled(self, factor: float) -> "Head":
        """The head that gives features times `factor` the logits that this one gives the features."""
        prep = self.prep or Prep()
        centre = None if prep.centre is None else prep.centre * factor
        weight = self.weight if prep.unit else self.weight / factor
        return Head(weight, self.bias, None if self.prep is None else replace(prep, centre=centre))

    def to(self, dtype: torch.dtype) -> "Head":
        """The same head in another floating-point type."""
        centre = None if self.prep is None or self.prep.centre is None else self.prep.centre.to(dtype)
        prep = None if self.prep is None else replace(self.prep, centre=centre)
        return Head(self.weight.to(dtype), self.bias.to(dtype), prep)

    def folded(self) -> "Head":
        """The equivalent head without `prep`.

        Raises: InputError when features are normalised to unit length, which no plain linear layer can do.
        """
        if self.prep is None:
            return self
        if self.prep.unit:
            raise InputError(
                "this head divides each feature row by its norm, which a plain (weight, bias) cannot express; "
                "keep the head, or choose a method on raw features"
            )
        if self.prep.centre is None:
            return replace(self, prep=None)
        return Head(self.weight, self.bias - self.weight @ self.prep.centre.to(self.weight))

    def save(self, path: str | Path, *, metadata: Mapping[str, str] | None = None) -> Path:
        """Write the head as one safetensors file (no pickle), atomically; `load` reads it back bit for bit."""
        prep = self.prep or Prep()
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        if prep.centre is not None:
            tensors["centre"] = prep.centre.contiguous()
        own = {"format": "poise.head", "schema": str(HEAD_SCHEMA), "unit": json.dumps(prep.unit)}
        header = {**(metadata or {}), **own}
        return write_atomically(Path(path), _in_order(save(tensors, header)))

    @classmethod
    def load(cls, path: str | Path) -> "Head":
        """Read what `save` wrote. Raises: InputError naming the file when it is missing, damaged or something else."""
        tensors, header = tensors_of(Path(path), REMEDY, what="a head")
        if header.get("format") != "poise.head":
            raise InputError(f"{path} is a safetensors file but no head saved by Poise")
        if not {"weight", "bias"} <= set(tensors) or not {"schema", "unit"} <= set(header):
            raise InputError(f"{path} is not a whole head: weight, bias, schema or unit is missing; {REMEDY}")
        schema = header["schema"]
        check_schema(path, int(schema) if DIGITS.fullmatch(schema) else schema, HEAD_SCHEMA, REMEDY)
        one_of("true", "false").check(f"{path}: unit", header["unit"], f"; {REMEDY}")
        prep = Prep(tensors.get("centre"), header["unit"] == "true")
        try:
            found = cls(tensors["weight"], tensors["bias"], prep if prep.unit or prep.centre is not None else None)
            centre = found.bias if prep.centre is None else as_values("a head's centre", prep.centre)
        except InputError as error:
            raise InputError(f"{path}: {error}; {REMEDY}") from None
        if prep.centre is not None and centre.shape != (found.dim,):
            raise InputError(f"{path}: its centre is {tuple(centre.shape)}, its features are {found.dim}; {REMEDY}")
        return found


def _in_order(content: bytes) -> bytes:
    """A safetensors file whose metadata are sorted: the library writes them in an order that changes between calls."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8, as the format asks
    return len(text).to_bytes(8, "little") + text + content[end:]
