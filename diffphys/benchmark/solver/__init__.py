"""Shipped for contestants: an example solver (`solve.py`), a Dockerfile for container images, and how both are called."""
