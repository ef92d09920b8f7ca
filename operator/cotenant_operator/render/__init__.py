"""PoolPlan → messages and manifests: pure, one file each."""
