"""Graphs of a store's rows, and columns that are solved on them.

The solver's room knows arrays only, and the data's room knows no solver; what needs both is a
decision about samples (which label, how sure, how smooth), so it lives here with the other columns
that curation writes.
"""
