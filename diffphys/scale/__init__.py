"""Volumes beyond memory: a memory plan, tiles with overlap, tasks that may be killed and go on, many machines."""
