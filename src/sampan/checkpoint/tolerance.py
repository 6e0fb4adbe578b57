"""How far steps that are taken again may end from those that were recorded.

On the same framework, device and machine the same steps give the same bits. Elsewhere sums are taken in another order: a
step differs by fp32 rounding, about 1e-7 of a loss, and training amplifies that from step to step.

- `loss` is relative to the recorded loss, at every step: the bound that the frameworks' contract has for 50 steps.
- `weights`, `ema` and `moments` are the length of the difference over the length of what the window itself changed, each
  over all tensors at once. Measured against the weights, any window would come out: a hundred steps move them by little.
- `tensor` is for the values of the worst tensor alone, over what they moved themselves, or over what all moved where that is
  more. Adam divides a gradient by its own size, so that a tensor whose gradient is only rounding noise (the bias of keys, to
  which softmax is blind) can walk as far as any other, in another direction each time: two such walks end about 1.4 of
  their length apart. What is further off was not trained here.

Between PyTorch and MindSpore on one CPU, windows of 2 steps of every stage, and of 25 of generator and decoder, were off by
at most 7e-7 of a loss, 7e-4 of the way of weights and 2e-4 of that of moments; the rest is for devices that round products
more coarsely.

They are for fp32; a run in bf16 that is taken again elsewhere needs its own.
"""

from __future__ import annotations

TOLERANCES = {"loss": 5e-4, "weights": 0.02, "ema": 0.02, "moments": 0.05, "tensor": 2.0}
