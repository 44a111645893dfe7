"""Understudy raises small models that can take the lead."""

__version__ = "0.1.0"
