"""Text of the web: sources, extraction, filters and line edits."""
