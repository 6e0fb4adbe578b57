"""Arrays that have a shape and a dtype and no values: what a training pass costs, counted without a framework.

A framework without fake tensors (MindSpore) runs the real model and the real loss on outlines instead of its own arrays, by
putting the functions of `outline.ops` in the place of its own. Every operation adds its arithmetic, makes a buffer for what
comes out of it unless that is a view, and holds the buffers that its gradient needs. Then the backward pass is gone through
in the same way, from the loss to the weights. What lives is what is still referred to, as in a framework that frees by
counting references.

Which operation keeps what for its gradient:

    linear, conv2d, matmul      what went in, the frozen weight's too: MindSpore does not look at which gradient is wanted
    x * y, x / y                each factor whose counterpart needs a gradient; a division also its divisor, likewise
    exp, sqrt, rsqrt, softmax   what came out
    abs, clip, silu, gelu       what went in
    where, take                 the condition; the ids
    norms                       what went in, and a statistic or two for each row
    attention                   q, k, v, what came out, and a statistic for each query; written out: q, k, v and all weights
    cross_entropy               the logarithms of all probabilities
    additions, views, sums, means, concat, casts, upsampling, padding    nothing

A buffer that two operations keep is there once. Where a tape is not `fused`, norms and attention are the sums and products
that a framework without such kernels makes of them, and keep what those keep.
"""
