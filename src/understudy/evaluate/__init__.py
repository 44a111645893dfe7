"""What a model is worth: pure metrics, benchmarks, claims with verdicts, plans.

Importing this room costs nothing; torch is imported by what runs a model.
"""
