"""
The durable queue on a local disk: SQLite for rows, files for large content.
"""
