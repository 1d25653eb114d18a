"""People look on: the event stream, messages and their stories, destinations, statistics, pages.

This room reads the spool and the live state of delivery and changes neither.
Nobody who looks can slow a delivery: a subscriber is a cursor on the log.
"""
