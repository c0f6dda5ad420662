//! Stateless reset: how a node that was restarted tells its old peers that it knows nothing of them any more.
//!
//! Both the tokens that a peer was given and the form of our connection ids must be those of the process before, so
//! they come from the node's own key. Then a crashed cloud's edges notice with their next packet, not after the idle
//! time (RFC 9000 §10.3). Two shards of one node must not share this while packets can reach the wrong one: the wrong
//! one would end the connection (RFC 9000 §21.11).

use std::sync::Arc;

use quinn_proto::crypto::{CryptoError, HmacKey};
use quinn_proto::{EndpointConfig, HashedConnectionIdGenerator};
use sha2::{Digest, Sha256};

use super::Credentials;

/// The parameters of our QUIC endpoint. A node without credentials has no past to remember.
pub(super) fn endpoint_config(credentials: Option<&Credentials>) -> EndpointConfig {
    let Some(credentials) = credentials else { return EndpointConfig::default() };
    let secret = |purpose: &str| hash(credentials.key.secret_der(), purpose.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = secret("kubebus connection ids");
    let ids = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let mut config = EndpointConfig::new(Arc::new(ResetKey(secret("kubebus stateless reset"))));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// Of two parts of known length: the first is the secret. Quinn shows half of the result, so that nobody can go on
/// hashing from it.
fn hash(secret: &[u8], what: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(secret).chain_update(what).finalize().into()
}

struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&hash(&self.0, data));
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if hash(&self.0, data) == signature { Ok(()) } else { Err(CryptoError) }
    }
}
