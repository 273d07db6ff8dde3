"""
TLS without a network: what a handshake is made with, what it must show, and what may ride on it afterwards.
"""
