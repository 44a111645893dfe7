"""Errors, seeds, provenance, progress and small shared types. Imports no other room."""
