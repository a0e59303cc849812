"""Comparisons against plain git and other tools, as ratios from one run."""
