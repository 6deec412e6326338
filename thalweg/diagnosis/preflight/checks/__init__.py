"""The checks: a module for each thing that may be wrong. Each function reads what is known and tells what it finds."""
