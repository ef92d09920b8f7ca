"""The weight cache as a program: the sidecar of worker pods, and the agent of nodes. `cotenant_cache` does the work."""
