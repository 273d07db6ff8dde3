"""
The C{smtpreuse} command: one module for each subcommand.
"""
