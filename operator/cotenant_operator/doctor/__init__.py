"""`cotenant doctor`: probe.py looks at the machine, checks.py judges what it saw, report.py shows it."""
