"""The status page: what works now, what did not, and what is planned, for everybody to read.

States are measured, incidents open and close by themselves, and people add theirs by hand. What is
shown names components and receiving sites; no address, account or campaign leaves this room.
"""
