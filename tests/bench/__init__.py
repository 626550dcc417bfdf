"""Measurements: ratios taken in one run, never a pass mark."""
