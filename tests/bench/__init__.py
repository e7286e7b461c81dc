"""Measurements. Each figure is a ratio to a baseline measured in the same run; none of them is a test."""
