"""Primitives of the spec DAG: pure functions, linear ones with their adjoint by transposition."""
