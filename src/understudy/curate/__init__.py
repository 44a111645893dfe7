"""Choose, clean, weigh, group and order samples; decisions become columns with cards."""
