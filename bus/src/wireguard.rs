//! Stock WireGuard clients: what their gateway must know of them, and what it tells of itself.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use data_encoding::BASE64;
use ipnet::IpNet;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Name;
use crate::overlay::{addr4, addr6};

/// A public or preshared key, written in base64 as WireGuard's own tools do. `Debug` tells the beginning alone.
///
/// ```
/// let text = "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8=";
/// let key: bus::WireguardKey = text.parse()?;
/// assert_eq!(key.to_string(), text);
/// # Ok::<(), bus::wireguard::InvalidKey>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(try_from = "String", into = "String")]
pub struct WireguardKey(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

/// Why a text is no [`WireguardKey`]. The text is not told: it may be a private key with a slip in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this is no WireGuard key: it has 44 characters of base64, as 'wg pubkey' prints it")]
pub struct InvalidKey;

impl FromStr for WireguardKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| InvalidKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidKey)
    }
}

impl TryFrom<String> for WireguardKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}

impl From<WireguardKey> for String {
    fn from(key: WireguardKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for WireguardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for WireguardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", &self.to_string()[..6])
    }
}

/// A client as its gateway lets it in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WireguardPeer {
    #[n(0)]
    pub name: Name,
    #[n(1)]
    pub public_key: WireguardKey,
    #[n(2)]
    pub preshared_key: WireguardKey,
    #[n(3)]
    #[cbor(with = "addr4")]
    pub v4: Ipv4Addr,
    #[n(4)]
    #[cbor(with = "addr6")]
    pub v6: Ipv6Addr,
}

impl WireguardPeer {
    /// What may come from the client, and goes to it: /32 and /128.
    pub fn addresses(&self) -> [IpNet; 2] {
        [IpNet::from(std::net::IpAddr::V4(self.v4)), IpNet::from(std::net::IpAddr::V6(self.v6))]
    }
}

/// How clients reach a gateway; it says this of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WireguardGateway {
    #[n(0)]
    pub public_key: WireguardKey,
    /// `host:port`, as clients dial it.
    #[n(1)]
    pub endpoint: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_clients_and_gateways_reads_back() {
        let peer = WireguardPeer {
            name: Name::new("phone").unwrap(),
            public_key: WireguardKey([1; 32]),
            preshared_key: WireguardKey([2; 32]),
            v4: "10.86.32.1".parse().unwrap(),
            v6: "fd00::1:0:1".parse().unwrap(),
        };
        let gateway =
            WireguardGateway { public_key: WireguardKey([3; 32]), endpoint: "gw.example:51820".into() };
        let bytes = minicbor::to_vec((&peer, &gateway)).unwrap();
        assert_eq!(peer.addresses().map(|net| net.to_string()), ["10.86.32.1/32", "fd00::1:0:1/128"]);
        assert_eq!(minicbor::decode::<(WireguardPeer, WireguardGateway)>(&bytes).unwrap(), (peer, gateway));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        for bad in ["", "abc", "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8", "AAAA", &"A".repeat(44)] {
            let told = bad.parse::<WireguardKey>().unwrap_err().to_string();
            assert!(bad.is_empty() || !told.contains(bad), "{told}");
        }
    }

    #[test]
    fn a_key_is_not_written_into_logs() {
        let key = WireguardKey([7; 32]);
        assert_eq!(format!("{key:?}"), "BwcHBw..");
    }
}
