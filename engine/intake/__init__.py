"""Mail comes in: accounts, address checks and the doors; yes is said only after the spool kept it.

Delivery is not known here: what both share goes through the spool.
"""
