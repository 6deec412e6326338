"""A run while it goes on: what is measured beside any loop, and what that tells."""
