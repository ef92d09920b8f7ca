"""Load tests for OpenAI- and OIP-compatible endpoints: many tenants, many models, open loop. Sees only HTTP.

    scenario (YAML) ─▶ plan ─▶ worker processes ─▶ records ─▶ results ─▶ terminal · report.html · results.json · …
    spec.py            planned.py                  record.py   results.py

Imports nothing of the other packages, and neither torch nor ray nor kubernetes.
"""
