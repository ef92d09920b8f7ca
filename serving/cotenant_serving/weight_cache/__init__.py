"""The weight cache as a program: sidecar of worker pods, and agent of nodes. `cotenant_cache` does the work."""
