//! The one string with which a node joins: where the monitors are, how to know them, and a secret that
//! works once.
//!
//! `cairn-join-1/ADDR,ADDR/CA-FINGERPRINT/SECRET/CHECK`: fingerprint (SHA-256 of the CA certificate) and
//! secret are 64 hexadecimal digits each, CHECK is the CRC-32 of all before it, so that a string cut short
//! by a copy is told from one that is no longer valid.

use crate::pki::Fingerprint;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

const PREFIX: &str = "cairn-join-1/";
/// Most addresses in a token: five monitors on two networks.
const ADDRESSES_MAX: usize = 10;

/// Everything a node needs to join.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Where monitors listen; 1 to 10.
    pub addresses: Vec<SocketAddr>,
    /// Of the CA certificate that the monitors must show.
    pub ca: Fingerprint,
    /// Proves to the monitors that the node was asked to join. Valid once.
    pub secret: [u8; 32],
}

/// Why a text is not a join token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseJoinTokenError {
    /// Not a token at all, or of another version.
    #[error("a join token starts with {PREFIX}")]
    Prefix,
    /// Parts are missing, or the checksum does not fit.
    #[error("the join token is incomplete or mistyped: copy it again, all of it")]
    Damaged,
    /// An address does not parse, or there are none or too many.
    #[error("the join token has no valid list of 1 to {ADDRESSES_MAX} addresses")]
    Addresses,
    /// The fingerprint is not 64 hexadecimal digits.
    #[error("a CA fingerprint has 64 hexadecimal digits")]
    Fingerprint,
    /// The secret is not 64 hexadecimal digits.
    #[error("the secret of a join token has 64 hexadecimal digits")]
    Secret,
}

pub(crate) fn hex_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl fmt::Display for JoinToken {
    /// The token itself, secret included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let secret: String = self.secret.iter().map(|b| format!("{b:02x}")).collect();
        let text = format!("{PREFIX}{}/{}/{secret}", addresses.join(","), self.ca);
        write!(f, "{text}/{:08x}", crc32fast::hash(text.as_bytes()))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("addresses", &self.addresses)
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = ParseJoinTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).ok_or(ParseJoinTokenError::Prefix)?;
        let (summed, check) = text.rsplit_once('/').ok_or(ParseJoinTokenError::Damaged)?;
        let check = hex_array::<4>(check).ok_or(ParseJoinTokenError::Damaged)?;
        if crc32fast::hash(summed.as_bytes()) != u32::from_be_bytes(check) {
            return Err(ParseJoinTokenError::Damaged);
        }
        let parts: Vec<&str> = rest.split('/').collect();
        let [addresses, ca, secret, _check] = parts[..] else { return Err(ParseJoinTokenError::Damaged) };
        let addresses: Vec<SocketAddr> = addresses
            .split(',')
            .take(ADDRESSES_MAX + 1)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| ParseJoinTokenError::Addresses)?;
        if addresses.len() > ADDRESSES_MAX {
            return Err(ParseJoinTokenError::Addresses);
        }
        let secret = hex_array(secret).ok_or(ParseJoinTokenError::Secret)?;
        Ok(JoinToken { addresses, ca: ca.parse()?, secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            addresses: vec!["10.0.0.1:6789".parse().unwrap(), "[fd00::2]:6789".parse().unwrap()],
            ca: Fingerprint([0xab; 32]),
            secret: [0x17; 32],
        }
    }

    #[test]
    fn a_token_parses_as_it_prints() {
        let text = token().to_string();
        assert!(text.starts_with("cairn-join-1/10.0.0.1:6789,[fd00::2]:6789/abab"), "{text}");
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token()), "as pasted");
    }

    #[test]
    fn the_secret_is_not_in_the_debug_form() {
        assert!(!format!("{:?}", token()).contains("1717"));
    }

    #[test]
    fn a_mistyped_token_is_told() {
        let text = token().to_string();
        assert_eq!("hello".parse::<JoinToken>(), Err(ParseJoinTokenError::Prefix));
        for end in PREFIX.len()..text.len() {
            assert_eq!(text[..end].parse::<JoinToken>(), Err(ParseJoinTokenError::Damaged), "{end}");
        }
        assert_eq!(
            text.replace("10.0.0.1", "10.0.0.7").parse::<JoinToken>(),
            Err(ParseJoinTokenError::Damaged)
        );
    }

    #[test]
    fn parts_are_checked_behind_a_right_checksum() {
        let sealed = |rest: &str| {
            let text = format!("{PREFIX}{rest}");
            format!("{text}/{:08x}", crc32fast::hash(text.as_bytes())).parse::<JoinToken>()
        };
        let (ca, secret) = ("ab".repeat(32), "17".repeat(32));
        assert_eq!(sealed(&format!("nowhere/{ca}/{secret}")), Err(ParseJoinTokenError::Addresses));
        let many = ["1.2.3.4:5"; 11].join(",");
        assert_eq!(sealed(&format!("{many}/{ca}/{secret}")), Err(ParseJoinTokenError::Addresses));
        assert_eq!(
            sealed(&format!("1.2.3.4:5/+{}/{secret}", &ca[1..])),
            Err(ParseJoinTokenError::Fingerprint)
        );
        assert_eq!(sealed(&format!("1.2.3.4:5/{ca}/{}", &secret[2..])), Err(ParseJoinTokenError::Secret));
        assert_eq!(sealed(&format!("1.2.3.4:5/{ca}")), Err(ParseJoinTokenError::Damaged));
    }
}
