"""Make a model ready for use: folded, exported, measured.

Importing this room costs nothing; torch and ONNX are imported by what needs them.
"""
