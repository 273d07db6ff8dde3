"""
Configuration: Postfix's C{main.cf} syntax, the table of parameters, look-up tables, and the frozen result.
"""
