//! Where a daemon or client is reached, and which run of it is meant.

use crate::text::serde_as_text;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A socket address and the incarnation behind it, printed `127.0.0.1:6802/29449`.
///
/// The nonce grows with every start of the process, so that an address in the blocklist or in a map
/// never names its successor on the same port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntityAddr {
    /// Address and port.
    pub socket: SocketAddr,
    /// Incarnation of the process.
    pub nonce: u64,
}

impl EntityAddr {
    /// Stands for every process of a host in the blocklist: port 0 and nonce 0.
    pub fn whole_host(ip: IpAddr) -> Self {
        EntityAddr { socket: SocketAddr::new(ip, 0), nonce: 0 }
    }

    /// Whether this is [`EntityAddr::whole_host`] of its address.
    pub fn is_whole_host(&self) -> bool {
        self.socket.port() == 0 && self.nonce == 0
    }
}

impl fmt::Display for EntityAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.socket, self.nonce)
    }
}

/// Why a text is not an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseEntityAddrError;

impl fmt::Display for ParseEntityAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address is written IP:PORT/NONCE such as 10.0.0.1:6802/17 or [fd00::1]:6802/17")
    }
}

impl std::error::Error for ParseEntityAddrError {}

impl FromStr for EntityAddr {
    type Err = ParseEntityAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (socket, nonce) = text.rsplit_once('/').ok_or(ParseEntityAddrError)?;
        // u64's parser takes a plus sign; a nonce has none.
        if !nonce.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ParseEntityAddrError);
        }
        Ok(EntityAddr {
            socket: socket.parse().map_err(|_| ParseEntityAddrError)?,
            nonce: nonce.parse().map_err(|_| ParseEntityAddrError)?,
        })
    }
}

serde_as_text!(EntityAddr, (SocketAddr, u64), |addr| (addr.socket, addr.nonce), |(socket, nonce)| Some(
    EntityAddr { socket, nonce }
));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_parses() {
        for text in ["127.0.0.1:6802/29449", "[fd00::1]:6802/18446744073709551615", "10.0.0.1:0/0"] {
            let addr: EntityAddr = text.parse().unwrap();
            assert_eq!(addr.to_string(), text);
            let json = serde_json::to_string(&addr).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<EntityAddr>(&json).unwrap(), addr);
        }
        assert!("10.0.0.1:0/0".parse::<EntityAddr>().unwrap().is_whole_host());
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for text in
            ["", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:1/", "127.0.0.1:1/+1", "host:1/1", "::1:1/1/1"]
        {
            assert_eq!(text.parse::<EntityAddr>(), Err(ParseEntityAddrError), "{text:?}");
        }
    }
}
