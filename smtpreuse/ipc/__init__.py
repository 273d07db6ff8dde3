"""
What crosses process borders, and what stands at them: descriptors and stream ends.
"""
