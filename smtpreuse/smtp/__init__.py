"""
The grammar of SMTP, both sides: octets in, values out. Nothing here reads a socket or a clock, or knows Twisted.
"""
