"""
What makes C{twistd smtpreuse} a command. Every C{twistd --help} of the machine loads this file, so it imports nothing
of the service: L{smtpreuse.tap} is imported when the command is given.
"""

from twisted.application.service import ServiceMaker

smtpreuse = ServiceMaker(
    "smtpreuse",
    "smtpreuse.tap",
    "Delivers mail by SMTP, many messages over each TLS connection.",
    "smtpreuse",
)
