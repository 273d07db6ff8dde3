"""
Keys and certificates for tests of the server's side.
"""

from __future__ import annotations

import trustme

from smtpreuse.tls.identity import Holds, Identity, IdentityFile, load_identity

AUTHORITY = trustme.CA()
ISSUER = AUTHORITY.create_child_ca()
ECDSA = ISSUER.issue_cert("mx.example.com", "127.0.0.1")
RSA = ISSUER.issue_cert("mx.example.com", "127.0.0.1", key_type=trustme.KeyType.RSA)


def key_of(leaf: trustme.LeafCert) -> bytes:
    """Its private key in PEM."""
    return leaf.private_key_pem.bytes()


def certificates_of(leaf: trustme.LeafCert) -> bytes:
    """Its certificate and that of its issuer in PEM."""
    return b"".join(pem.bytes() for pem in leaf.cert_chain_pems)


def chain_of(leaf: trustme.LeafCert) -> bytes:
    """Both, as smtpd_tls_chain_files wants them."""
    return key_of(leaf) + certificates_of(leaf)


def identity_of(*leaves: trustme.LeafCert) -> Identity:
    """An identity with these chains."""
    file = IdentityFile(parameter="smtpd_tls_chain_files", path="chain.pem", holds=Holds.CHAINS)
    return load_identity([(file, b"".join(map(chain_of, leaves)))])
