"""
smtpreuse: an outbound SMTP delivery service that delivers many messages over each TLS connection.
"""
