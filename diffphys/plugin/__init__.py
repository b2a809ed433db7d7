"""diffphys inside other people's programs: flax NNX (`layer`, `unrolled`), PyTorch (`torch`), deepinv (`deepinv`), the viewer
napari (`napari`)."""
