"""Networks that turn texts into feature rows, by name: `sentence:minilm`, or any model of sentence-transformers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from poise.errors import InputError
from poise.machine.libraries import needed
from poise.representation import sentences
from poise.representation.backbones.hub import hub


@dataclass(frozen=True, eq=False)
class TextBackbone:
    """`embed` turns N texts into float32 rows (N, dim) on the CPU, in the order of the texts."""

    name: str
    dim: int
    embed: Callable[[Iterable[str]], Tensor]


def build_text(name: str) -> TextBackbone:
    """The text network `name`: `sentence:minilm`, which is installed with the extra `text`, or `sentence:NAME`.

    Raises: InputError if the model cannot be had; MissingExtraError without the extra.
    """
    kind, _, model = name.partition(":")
    if kind != "sentence" or not model:
        raise InputError(
            f"there is no text backbone {name!r}; use sentence:minilm, or sentence:NAME with another model"
        )
    if model == "minilm":
        return TextBackbone(name, sentences.DIM, sentences.embed)
    library = needed("sentence_transformers", "text", f"backbone {name} needs")
    with hub(model):
        network = library.SentenceTransformer(model, device="cpu", trust_remote_code=False)
    return TextBackbone(name, int(network.get_sentence_embedding_dimension()), lambda texts: _embed(network, texts))


def _embed(network: Any, texts: Iterable[str]) -> Tensor:
    rows = list(texts)
    for place, row in enumerate(rows):
        if not isinstance(row, str) or not row.strip():
            raise InputError(f"text {place} is {row!r}; drop it, or give it a word")
    if not rows:
        raise InputError("there is no text to embed")
    values: Tensor = network.encode(rows, batch_size=64, show_progress_bar=False, convert_to_tensor=True)
    return values.float().cpu()
