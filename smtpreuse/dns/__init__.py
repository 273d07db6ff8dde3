"""
The domain name system: questions to recursive servers over UDP and TCP, and the host tables of the system.
"""
