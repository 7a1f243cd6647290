"""How a verdict begins, in words, where a model was written beside the comparison: with the model that lies there."""


def change_to(recommended: str, held: str | None) -> str:
    """What is better than the baseline; `held` is the model written, None where none was."""
    if held is None:
        return f"Change to {recommended}"
    if held == recommended:
        return f"This folder holds {held}"
    return f"This folder holds {held}, as asked; better than the baseline is {recommended}"


def held_beside(held: str, recommended: str, baseline: str, *, worse: bool) -> str:
    """What is held where nothing is better than the baseline beyond doubt; `worse`: is the recommended head worse?"""
    if held == baseline:
        return f"This folder holds {held}"
    asked = "" if held == recommended else ", as asked"
    return f"This folder holds {held}{asked}; {baseline} is {'the better choice' if worse else 'as good a choice'}"
