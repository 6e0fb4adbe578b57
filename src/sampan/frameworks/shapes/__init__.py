"""A framework without values: its arrays have a shape and a dtype, and running a model on it counts what the model costs.

It offers `nn`, `ops`, `device` and `meter` of the framework interface. A process that only plans runs model code on it
(`frameworks.use_shapes`); in a process of another framework, `count` puts its arrays and functions in the place of that one's
while a module is counted. Every operation adds its arithmetic, makes a buffer for what comes out of it unless that is a view,
and holds the buffers that its gradient needs. Then the backward pass is gone through in the same way, from the loss to the
weights. What lives is what is still referred to, as in a framework that frees by counting references.

Which operation keeps what for its gradient:

    linear, conv2d, matmul      what went in where the weight is trained, and for conv2d always; copies of weights
    x * y, x / y                each factor whose counterpart needs a gradient; a division also its divisor, likewise
    exp, sqrt, rsqrt, softmax   what came out
    abs, clip, silu, gelu       what went in
    where, take                 the condition; the ids
    norms                       what went in, and a statistic or two for each row
    attention                   q, k, v, what came out, and a statistic for each query; written out: q, k, v and all weights
    cross_entropy               the logarithms of all probabilities
    additions, views, sums, means, concat, casts, upsampling, padding    nothing

A buffer that two operations keep is there once. Where frameworks differ is said by `tape.Kernels`: without kernels for them,
norms and attention are the sums and products that a framework makes of them, and keep what those keep.
"""
