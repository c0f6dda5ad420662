//! How long a certificate lets its client stay: the node may say that it is let in no more, or has another one.

use std::sync::Arc;

use bus::{KeyHash, NodeId};
use tokio::sync::watch;

use crate::gate::access::ClientKeys;

/// The node's last word.
pub type Register = watch::Receiver<Arc<ClientKeys>>;

/// A client at the door, by its certificate.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    pub(super) client: NodeId,
    pub(super) key: KeyHash,
    pub(super) register: Register,
}

impl Pass {
    pub(super) fn holds(&self) -> bool {
        self.register.borrow().get(&self.client).is_none_or(|keys| keys.has(&self.key))
    }

    /// Returns when it holds no more. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        while self.holds() {
            if self.register.changed().await.is_err() {
                // A node that says no more has said its last word.
                std::future::pending().await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::access::Keys;

    #[test]
    fn a_pass_holds_for_the_present_key_and_for_those_of_whom_nobody_says_anything() {
        let (say, register) = watch::channel(Arc::default());
        let client: NodeId = "mapper/modbus".parse().unwrap();
        let pass = Pass { client: client.clone(), key: KeyHash([1; 32]), register };
        assert!(pass.holds());
        let keys = |number: u8| [KeyHash([number; 32])].into();
        for (known, holds) in [
            (Keys::Only(keys(1)), true),
            (Keys::Only(keys(2)), false),
            (Keys::Only([].into()), false),
            (Keys::AllBut(keys(1)), false),
            (Keys::AllBut(keys(2)), true),
        ] {
            say.send_replace(Arc::new(ClientKeys::from([(client.clone(), known.clone())])));
            assert_eq!(pass.holds(), holds, "{known:?}");
        }
    }
}
