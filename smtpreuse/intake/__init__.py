"""
The listening side: takes mail in and gives it to the spool.
"""
