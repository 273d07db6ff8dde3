"""
What the operator sees and says: the log, and the control socket.
"""
