"""The control plane: spec → plan → render, and its local shell."""
