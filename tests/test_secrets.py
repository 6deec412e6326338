"""Passwords are never shown."""

import sys

import pytest

from thalweg._base.secrets import hidden
from thalweg.cli.typed import typed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host:5432/x", "postgresql://me:***@host:5432/x"),
        ("mysql+pymysql://me:se/cr?et@host/x", "mysql+pymysql://me:***@host/x"),
        ("--store=postgresql://me:secret@host/x", "--store=postgresql://me:***@host/x"),
        ("postgresql://host/x?user=me&password=secret&ssl=1", "postgresql://host/x?user=me&password=***&ssl=1"),
        ("cannot connect with host=h PASSWORD=secret port=1", "cannot connect with host=h PASSWORD=*** port=1"),
        ("postgresql://me@host:5432/x", "postgresql://me@host:5432/x"),
        ("sqlite:///runs/thalweg.db", "sqlite:///runs/thalweg.db"),
        ("adamw@20,muon(lr=1e-4..1e-2)", "adamw@20,muon(lr=1e-4..1e-2)"),
        ("http://host:80/a then b@c", "http://host:80/a then b@c"),
    ],
)
def test_a_password_becomes_three_stars_and_nothing_else_changes(text, shown):
    assert hidden(text) == shown


def test_the_command_that_a_report_tells_has_none(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["thalweg", "race", "small.py", "--store", "postgresql://me:secret@host/x"])
    assert "secret" not in typed()
    assert "me:***@host" in typed()
