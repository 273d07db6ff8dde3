"""
The queue manager: what is tried when, on which lane, and what becomes of it. How mail is stored is C{spool}'s.
"""
