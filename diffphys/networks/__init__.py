"""Networks in flax NNX: images and stacks from one definition, inputs in one unit, weights that ship with the package."""
