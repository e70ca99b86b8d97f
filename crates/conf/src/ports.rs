//! Ports on the loopback interface for daemons that keep them.

use crate::CreateError;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Ports are chosen from here …
const FIRST: u16 = 10_000;
/// … to here, below those that Linux gives to outgoing connections (32,768 and up): one of these could otherwise
/// take a daemon's port while the daemon is down.
const LAST: u16 = 29_999;

/// `wanted` ports on 127.0.0.1 that nothing uses now, for TCP and UDP, ascending from a place that `seed` chooses.
/// With a random seed clusters on one machine rarely remember the same ones.
pub fn free_ports(wanted: usize, seed: u64) -> Result<Vec<SocketAddr>, CreateError> {
    let count = u64::from(LAST - FIRST) + 1;
    let start = seed % count;
    let candidates = (0..count).map(|step| FIRST + ((start + step) % count) as u16);
    let free: Vec<SocketAddr> = candidates
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .filter(|addr| TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok())
        .take(wanted)
        .collect();
    match free.len() == wanted {
        true => Ok(free),
        false => Err(CreateError::NoPorts { wanted, from: FIRST, to: LAST }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_port_in_use_is_passed_over() {
        let taken = free_ports(1, 7).unwrap()[0];
        let _listener = TcpListener::bind(taken).unwrap();
        let next = free_ports(3, u64::from(taken.port() - FIRST)).unwrap();
        assert!(!next.contains(&taken));
        assert_eq!(next.iter().collect::<BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn the_range_is_searched_from_end_to_end() {
        let ports = free_ports(2, u64::from(LAST - FIRST)).unwrap();
        assert!(ports.iter().all(|addr| (FIRST..=LAST).contains(&addr.port())), "{ports:?}");
        assert!(matches!(free_ports(20_001, 0), Err(CreateError::NoPorts { wanted: 20_001, .. })));
    }
}
