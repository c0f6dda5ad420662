//! Who is who: names, node ids, and the identity that a certificate carries.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// How long after its end a node's certificate is still good for one thing, to ask for the next one: an edge that was
/// in store for a season comes back by itself.
pub const RENEWABLE_FOR: Duration = Duration::from_secs(90 * 24 * 3600);

/// A DNS label: 1 to 63 of `a-z`, `0-9` and `-`, with a letter or digit at both ends (RFC 1123 §2.1, lower case).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no name: use 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends")]
pub struct InvalidName(String);

impl Name {
    /// Checks `text` once; a `Name` is valid from then on.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let bytes = text.as_bytes();
        let valid = (1..=63).contains(&bytes.len())
            && bytes.iter().all(|b| inner(*b))
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-';
        if valid { Ok(Self(text.into())) } else { Err(InvalidName(text.chars().take(80).collect())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<C> Encode<C> for Name {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Name {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.str()?).map_err(minicbor::decode::Error::custom)
    }
}

/// What kind of party a certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum NodeKind {
    /// Has a public address; other nodes dial it.
    #[n(0)]
    Cloud,
    /// Behind NAT; dials a cloud.
    #[n(1)]
    Edge,
    /// A process that speaks a device's protocol.
    #[n(2)]
    Mapper,
    /// A person or an app.
    #[n(3)]
    User,
    /// A stock WireGuard client behind a gateway. It has no certificate.
    #[n(4)]
    Wireguard,
}

impl NodeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Edge => "edge",
            Self::Mapper => "mapper",
            Self::User => "user",
            Self::Wireguard => "wireguard",
        }
    }
}

/// One party of a cluster, written `edge/pump-house`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId {
    #[n(0)]
    pub kind: NodeKind,
    #[n(1)]
    pub name: Name,
}

impl NodeId {
    pub fn cloud(name: Name) -> Self {
        Self { kind: NodeKind::Cloud, name }
    }

    pub fn edge(name: Name) -> Self {
        Self { kind: NodeKind::Edge, name }
    }

    pub fn wireguard(name: Name) -> Self {
        Self { kind: NodeKind::Wireguard, name }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256 of a public key's SubjectPublicKeyInfo in DER (RFC 5280 §4.1.2.7): which key a name was given to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct KeyHash(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

impl KeyHash {
    pub fn of_spki(spki_der: &[u8]) -> Self {
        Self(Sha256::digest(spki_der).into())
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a text is no [`NodeId`] or [`Identity`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidIdentity {
    #[error("expected <cloud|edge|mapper|user|wireguard>/<name>")]
    Shape,
    #[error("expected spiffe://<cluster>/<cloud|edge|mapper|user>/<name>")]
    Uri,
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl FromStr for NodeId {
    type Err = InvalidIdentity;
    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        let (kind, name) = text.split_once('/').ok_or(InvalidIdentity::Shape)?;
        let kind = match kind {
            "cloud" => NodeKind::Cloud,
            "edge" => NodeKind::Edge,
            "mapper" => NodeKind::Mapper,
            "user" => NodeKind::User,
            "wireguard" => NodeKind::Wireguard,
            _ => return Err(InvalidIdentity::Shape),
        };
        Ok(Self { kind, name: Name::new(name)? })
    }
}

/// A node of a named cluster, as its certificate's URI SAN says it: `spiffe://<cluster>/<kind>/<name>`
/// (SPIFFE-ID 2.1).
///
/// ```
/// let id: bus::Identity = "spiffe://water/edge/pump-house".parse()?;
/// assert_eq!(id.node.to_string(), "edge/pump-house");
/// assert_eq!(id.to_string(), "spiffe://water/edge/pump-house");
/// # Ok::<(), bus::id::InvalidIdentity>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub cluster: Name,
    pub node: NodeId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.cluster, self.node)
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;
    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        let rest = text.strip_prefix("spiffe://").ok_or(InvalidIdentity::Uri)?;
        let (cluster, node) = rest.split_once('/').ok_or(InvalidIdentity::Uri)?;
        Ok(Self { cluster: Name::new(cluster)?, node: node.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "a1", "pump-house-2", &"x".repeat(63)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "ä", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_identity_needs_all_its_parts() {
        for bad in
            ["spiffe://c", "spiffe://c/edge", "spiffe://c/admin/x", "https://c/edge/x", "spiffe://C/edge/x"]
        {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_decoded_name_is_checked() {
        let bytes = minicbor::to_vec("Not A Name").unwrap();
        assert!(minicbor::decode::<Name>(&bytes).is_err());
    }
}
