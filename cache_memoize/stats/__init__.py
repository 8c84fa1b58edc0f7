"""Counters of the process and of the whole site."""
