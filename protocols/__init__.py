"""Bytes in, values out: what the wire and the disk say. No loop, clock, socket or disk here."""
