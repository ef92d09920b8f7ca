"""The conductor: decides which model runs where, now, and publishes the routing table."""
