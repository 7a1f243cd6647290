"""What a fitted model becomes for deployment: tensors, one ONNX file, a program of torch, a folder for the hub.

Nothing here costs time at inference: a head is folded into one linear layer. Every file is compared with the model
before it takes its name.
"""

from poise.export.checking import Agreement, pixels_of
from poise.export.final import Final, described, final, image_backbone
from poise.export.graphs import METADATA, export_onnx, export_program
from poise.export.hub import Hub, export_hub
from poise.export.tensors import export_safetensors, formula

__all__ = [
    "METADATA",
    "Agreement",
    "Final",
    "Hub",
    "described",
    "export_hub",
    "export_onnx",
    "export_program",
    "export_safetensors",
    "final",
    "formula",
    "image_backbone",
    "pixels_of",
]
