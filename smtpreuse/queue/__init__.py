"""
The queue: what is stored until it is delivered, when it is tried, and what becomes of it.
"""
