//! The conversation on the wire: one request, one reply, each one minicbor value in a frame of channel `Join`, on a lane
//! of its own.

use minicbor::{Decode, Encode};

use crate::join::{InvalidMessage, MAX_REPLY_LEN, MAX_REQUEST_LEN, codes, whole};
use crate::record::encode;

/// What a node says whose certificate is to be renewed. Who it is its link says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RenewRequest {
    /// PKCS#10, signed with the node's new key (RFC 2986).
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub csr_der: Vec<u8>,
}

/// What the cloud answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RenewReply {
    #[n(0)]
    Renewed {
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        certificate_der: Vec<u8>,
    },
    #[n(1)]
    Refused {
        #[n(0)]
        code: RenewRefusal,
        /// For people: what happened and what to do.
        #[n(1)]
        message: String,
        /// How long to stay away at least.
        #[n(2)]
        retry_after_s: u32,
    },
}

codes! {
    /// Why a certificate was not renewed, for programs.
    pub enum RenewRefusal {
        Malformed = 0,
        NotMember = 1,
        Superseded = 2,
        TooLate = 3,
        Busy = 4,
        InvalidCsr = 5,
        /// The cloud failed; the message says how.
        Internal = 6,
    }
}

impl RenewRequest {
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        whole(bytes, MAX_REQUEST_LEN)
    }
}

impl RenewReply {
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        whole(bytes, MAX_REPLY_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_read_back_and_a_newer_clouds_refusal_still_speaks() {
        let request = RenewRequest { csr_der: vec![1, 2, 3] };
        assert_eq!(RenewRequest::from_bytes(&request.to_bytes()).unwrap(), request);
        let codes: Vec<RenewRefusal> = (0..=6).chain([255]).map(RenewRefusal::from_wire).collect();
        let refused = codes.into_iter().map(|code| RenewReply::Refused {
            code,
            message: "no".to_owned(),
            retry_after_s: 7,
        });
        for reply in refused.chain([RenewReply::Renewed { certificate_der: vec![9] }]) {
            assert_eq!(RenewReply::from_bytes(&reply.to_bytes()).unwrap(), reply);
        }
        let newer = minicbor::to_vec((1u8, (77u8, "too old", 0u32))).unwrap();
        let expected = RenewReply::Refused {
            code: RenewRefusal::Other,
            message: "too old".to_owned(),
            retry_after_s: 0,
        };
        assert_eq!(RenewReply::from_bytes(&newer).unwrap(), expected);
    }

    #[test]
    fn cut_long_and_trailing_bytes_are_refused() {
        let good = RenewRequest { csr_der: vec![1; 300] }.to_bytes();
        assert!((0..good.len()).all(|len| RenewRequest::from_bytes(&good[..len]).is_err()));
        assert!(RenewRequest::from_bytes(&[good.as_slice(), &[0]].concat()).is_err());
        let long = RenewRequest { csr_der: vec![0; MAX_REQUEST_LEN] }.to_bytes();
        assert!(matches!(RenewRequest::from_bytes(&long), Err(InvalidMessage::TooLong(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = RenewRequest::from_bytes(&bytes);
            let _ = RenewReply::from_bytes(&bytes);
        }
    }
}
