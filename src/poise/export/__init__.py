"""What a fitted model becomes for deployment: tensors, one ONNX file, a program of torch, a folder for the hub.

Nothing here costs time at inference: a head is folded into one linear layer. Every file is compared with the model
before it takes its name. `onnx_model` and `onnx_inputs` use what was exported, and import no torch.
"""
