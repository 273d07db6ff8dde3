"""
The long tests. C{tox -e soak} runs them; their modules are not named as trial looks for tests, so that all others are
run without them.
"""
