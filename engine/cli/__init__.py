"""The command line: one command a module, imported when it is called.

Nothing here decides anything about mail. A command reads the configuration, calls a room or talks
to the running engine, prints, and ends with 0 (done), 1 (refused or failed) or 2 (wrong usage).
"""
