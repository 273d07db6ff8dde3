"""
The TLS proxy: makes TLS on network ends and gives back plaintext ends. It knows no policy and no SMTP.
"""
