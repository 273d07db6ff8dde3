"""
Where mail goes: from a recipient to its hop, from a nexthop to candidates, their policies and their site.
"""
