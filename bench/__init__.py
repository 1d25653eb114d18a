"""Measurements. One file a question, and the question is the file's first line.

`python -m bench` lists the questions, `python -m bench NAME` answers one. Files
whose first line asks nothing are tools of those that do. Everything here goes
through the engine's public faces (configuration, `eilpost serve`, HTTP, the
stream); only a queue of a million is laid into the spool directly, because
handing it in would take longer than measuring it.
"""
