"""The operator inside other people's solvers: flax NNX (`layer`, `unrolled`), PyTorch (`torch`), deepinv (`deepinv`)."""
