//! The join conversation on the wire: one request, one reply, each one minicbor value in a frame of channel `Join`.

use std::fmt;

use bus::{Name, Route};
use minicbor::{Decode, Decoder, Encode};
use thiserror::Error;

use crate::record::encode;

/// A secret, a name and a request for a certificate take about 300 bytes; a longer request is not decoded.
pub const MAX_REQUEST_LEN: usize = 8 * 1024;

/// Two certificates and a list of endpoints take about 2 KiB; a longer reply is not decoded.
pub const MAX_REPLY_LEN: usize = 64 * 1024;

/// What a node that wants to join says. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct JoinRequest {
    /// The token's.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub secret: Vec<u8>,
    /// What it wants to be called.
    #[n(1)]
    pub name: Name,
    /// PKCS#10, signed with the node's key (RFC 2986).
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub csr_der: Vec<u8>,
}

/// What the cloud answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum JoinReply {
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    #[n(1)]
    Refused {
        #[n(0)]
        code: RefusalCode,
        /// For people: what happened and what to do.
        #[n(1)]
        message: String,
    },
}

/// All that a node needs to come back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    #[n(0)]
    pub cluster: Name,
    #[n(1)]
    pub cloud: Name,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub certificate_der: Vec<u8>,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub ca_der: Vec<u8>,
    /// Where to dial, `host:port`.
    #[n(4)]
    pub endpoints: Vec<String>,
    /// How the overlay knows what lies behind the node.
    #[n(5)]
    #[cbor(default)]
    pub lans: Vec<Route>,
}

/// Codes for programs, each a number on the wire: an enum with the variants that are named, and with `Other`.
macro_rules! codes {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$why:meta])* $code:ident = $number:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$why])* $code = $number,)+
            /// A reason of a newer cloud; its message still speaks.
            Other = 255,
        }

        impl $name {
            fn from_wire(number: u8) -> Self {
                match number {
                    $($number => Self::$code,)+
                    _ => Self::Other,
                }
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.u8(*self as u8)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Ok(Self::from_wire(d.u8()?))
            }
        }
    };
}

pub(crate) use codes;

codes! {
    /// Why a node was not let in, for programs.
    pub enum RefusalCode {
        Malformed = 0,
        UnknownToken = 1,
        Expired = 2,
        Used = 3,
        NameTaken = 4,
        InvalidCsr = 5,
        LanClash = 6,
        /// The pool has no place left.
        NoAddress = 7,
        /// The cloud failed; the message says how.
        Internal = 8,
    }
}

/// Bytes that are no message of this conversation.
#[derive(Debug, Error)]
pub enum InvalidMessage {
    #[error("message of {0} bytes is over the limit")]
    TooLong(usize),
    #[error("bytes after the message")]
    Trailing,
    #[error("not a message of this conversation")]
    Decode(#[from] minicbor::decode::Error),
}

impl JoinRequest {
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        whole(bytes, MAX_REQUEST_LEN)
    }
}

impl JoinReply {
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        whole(bytes, MAX_REPLY_LEN)
    }
}

pub(crate) fn whole<T>(bytes: &[u8], limit: usize) -> Result<T, InvalidMessage>
where
    T: for<'b> Decode<'b, ()>,
{
    if bytes.len() > limit {
        return Err(InvalidMessage::TooLong(bytes.len()));
    }
    let mut decoder = Decoder::new(bytes);
    let message = decoder.decode()?;
    if decoder.position() == bytes.len() { Ok(message) } else { Err(InvalidMessage::Trailing) }
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::{NodeId, SubnetKind};
    use proptest::prelude::*;

    fn request() -> JoinRequest {
        JoinRequest { secret: vec![7; 20], name: Name::new("a").unwrap(), csr_der: vec![1, 2, 3] }
    }

    #[test]
    fn messages_read_back() {
        assert_eq!(JoinRequest::from_bytes(&request().to_bytes()).unwrap(), request());
        let codes: Vec<RefusalCode> = (0..=8).chain([255]).map(RefusalCode::from_wire).collect();
        let refusals = codes.into_iter().map(|code| JoinReply::Refused { code, message: "no".to_owned() });
        let welcome = Welcome {
            cluster: Name::new("water").unwrap(),
            cloud: Name::new("hub").unwrap(),
            certificate_der: vec![1],
            ca_der: vec![2],
            endpoints: vec!["hub.example:10001".to_owned()],
            lans: vec![Route {
                prefix: "10.86.64.0/24".parse().unwrap(),
                owner: NodeId::edge(Name::new("a").unwrap()),
                kind: SubnetKind::Lan,
                real: Some("192.168.1.0/24".parse().unwrap()),
                peer: None,
            }],
        };
        for reply in refusals.chain([JoinReply::Welcome(welcome)]) {
            assert_eq!(JoinReply::from_bytes(&reply.to_bytes()).unwrap(), reply);
        }
    }

    #[test]
    fn a_newer_clouds_refusal_still_speaks() {
        let bytes = minicbor::to_vec((1u8, (77u8, "your kubebus is too old"))).unwrap();
        let expected =
            JoinReply::Refused { code: RefusalCode::Other, message: "your kubebus is too old".to_owned() };
        assert_eq!(JoinReply::from_bytes(&bytes).unwrap(), expected);
    }

    #[test]
    fn cut_long_and_trailing_bytes_are_refused() {
        let good = request().to_bytes();
        for len in 0..good.len() {
            assert!(JoinRequest::from_bytes(&good[..len]).is_err(), "{len}");
        }
        let trailing = [good.as_slice(), &[0]].concat();
        assert!(matches!(JoinRequest::from_bytes(&trailing), Err(InvalidMessage::Trailing)));
        let long = JoinRequest { csr_der: vec![0; MAX_REQUEST_LEN], ..request() }.to_bytes();
        assert!(matches!(JoinRequest::from_bytes(&long), Err(InvalidMessage::TooLong(_))));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        assert_eq!(format!("{:?}", request()), "JoinRequest { name: a, .. }");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(request) = JoinRequest::from_bytes(&bytes) {
                prop_assert!(request.csr_der.len() <= bytes.len());
            }
            let _ = JoinReply::from_bytes(&bytes);
        }
    }
}
