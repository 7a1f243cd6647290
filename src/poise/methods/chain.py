"""Methods put one after another."""

from dataclasses import dataclass, replace

from poise.values.head import Head
from poise.values.problem import Method, Problem


@dataclass(frozen=True)
class Chain:
    """Methods in order, each given the head of the one before as its stage-1 head."""

    methods: tuple[Method, ...]

    def __call__(self, problem: Problem, seed: int = 0) -> Head:
        """The head of the last method."""
        *before, last = self.methods
        for method in before:
            problem = replace(problem, head=method(problem, seed))
        return last(problem, seed)


def then(first: Method, *following: Method) -> Method:
    """The method that applies `first`, and each of `following` to the head that came before.

    For example `then(crt(), tau_norm(tau=0.5))`. The parts stay visible as `.methods`; a single method is returned as
    it is.
    """
    methods = [
        part for method in (first, *following) for part in (method.methods if isinstance(method, Chain) else (method,))
    ]
    return Chain(tuple(methods)) if len(methods) > 1 else methods[0]
