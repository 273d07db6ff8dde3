"""
Values: frozen, without I/O and without a clock. Everything above speaks in them.
"""
