"""What each parameter is in its model, and parameter groups made from that."""

from thalweg.groups.by_role import multiplied, split
from thalweg.groups.places import Kind
from thalweg.groups.roles import Role, describe, roles

__all__ = ["Kind", "Role", "describe", "multiplied", "roles", "split"]
