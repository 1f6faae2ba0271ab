//! Client address: whom a connection counts as, where something is bounded for each address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use actors::Requester;

/// The address that a connection comes from, as far as it tells one client from another: of IPv6
/// the network, which is what one client is given. Without the port. Where a proxy stands before
/// the node, it is the proxy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientAddress(IpAddr);

/// The part of an IPv6 address that names what one client is given: the first 56 bits, of which a
/// home line has all 256 networks of 64 bits (RFC 6177).
const NETWORK: u128 = !((1 << 72) - 1);

impl ClientAddress {
    /// That of a connection of this node's own process, or of one that nobody took.
    pub(crate) const OWN: Self = Self(IpAddr::V6(Ipv6Addr::LOCALHOST));

    /// A new connection from there, under a number that no other has.
    pub(crate) fn requester(self) -> Requester {
        static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
            // Begins at random: the nodes of a cluster tell each other these numbers.
            AtomicU64::new(uuid::Uuid::new_v4().as_u64_pair().0)
        });
        Requester { address: Some(self.0), connection: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

impl From<SocketAddr> for ClientAddress {
    fn from(address: SocketAddr) -> Self {
        // A listener of IPv6 takes IPv4 too, and shows it as a part of its own.
        match address.ip().to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                Self(Ipv6Addr::from_bits(v6.to_bits() & NETWORK).into())
            }
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => Self(ip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> ClientAddress {
        ClientAddress::from(text.parse::<SocketAddr>().unwrap())
    }

    #[test]
    fn an_address_is_without_its_port() {
        assert_eq!(of("10.0.0.1:1"), of("10.0.0.1:2"));
        assert_ne!(of("10.0.0.1:1"), of("10.0.0.2:1"));
        assert_eq!(of("10.0.0.1:1"), of("[::ffff:10.0.0.1]:1"));
    }

    #[test]
    fn each_connection_of_an_address_has_a_number_of_its_own() {
        let (first, second) = (of("10.0.0.1:1").requester(), of("10.0.0.1:2").requester());
        assert_eq!(first.address, second.address);
        assert_ne!(first.connection, second.connection);
    }

    #[test]
    fn of_ipv6_the_network_counts() {
        assert_eq!(of("[2001:db8:0:1::5]:1"), of("[2001:db8:0:1:9::]:2"));
        assert_eq!(of("[2001:db8:0:1::5]:1"), of("[2001:db8:0:ff::5]:1"), "of one line");
        assert_ne!(of("[2001:db8:0:1::5]:1"), of("[2001:db8:0:100::5]:1"));
        assert_eq!(of("[::1]:1"), ClientAddress::OWN);
    }
}
