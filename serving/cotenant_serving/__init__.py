"""The data plane: gateway, conductor and engines. They meet in `contract` and speak HTTP to each other."""
