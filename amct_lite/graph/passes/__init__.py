"""Normalising passes: one a file, each a function with a pre- and a postcondition."""
