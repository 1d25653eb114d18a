"""Simulated receivers and DNS: what the demo, the bench and the simulation send to.

They stand in for the outside world, so they behave as it does, well and badly.
No part of the engine that sends real mail imports this room.
"""
