//! Negotiation against the protocol's rules.
