"""Training: a deterministic stream of examples, losses, the loop, its checkpoints and the weights it exports."""
