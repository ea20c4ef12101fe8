"""Strategies: which choice to evaluate next, each in a file of its own, behind `ask` and `tell`."""
