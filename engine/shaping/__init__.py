"""Shaping rules: how fast, on how many connections and how guarded mail goes to whom.

Rules are data: read from files with the place where each stands, matched, and checked by a linter.
What receivers' replies do to them while the engine runs is `engine.delivery`.
"""
