"""
The delivery agent: opens sessions, carries transactions over them, and saves them for the next.
"""
