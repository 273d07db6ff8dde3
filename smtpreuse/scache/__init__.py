"""
The connection cache: keeps sessions at rest, watches them, and ends them politely.
"""
