"""
Puts the parts together, and gives the whole a life.
"""
