"""Ask teachers once what they know about every sample, and store it beside the sample."""
