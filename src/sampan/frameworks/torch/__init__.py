"""The framework interface on PyTorch, for CPU, CUDA, MPS and (through torch_npu) Ascend."""
