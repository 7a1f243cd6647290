"""Published networks that give better features of photographs than the one that ships, and what they cost."""

from poise.representation.backbones.hub import answers

# Billions of multiply-adds for one image of the size that each reads; the tests count them.
COST = {
    "lite0": 0.38,
    "lite2": 0.86,
    "timm:convnext_tiny.in12k_ft_in1k": 4.45,
    "timm:vit_base_patch32_clip_224.openai": 4.41,
    "timm:vit_small_patch14_dinov2.lvd142m": 46.7,
}


def suggestion(name: str, patience: float = 1.0) -> str:
    """A sentence on stronger networks than `name` and how many times its arithmetic they take.

    Nothing for a network that is not the one that ships, or where the hub, from which they come, does not answer within
    `patience` seconds.
    """
    if name != "lite0" or not answers(patience):
        return ""
    listed = [f"{other} ({cost / COST[name]:.0f} x)" for other, cost in COST.items() if ":" in other]
    return (
        f"stronger backbones, with their arithmetic beside that of {name}: {', '.join(listed)}; name one by --backbone"
    )
