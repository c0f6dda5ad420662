//! How long a certificate lets its user stay: the node may say that he is let in no more, or has another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::{KeyHash, Name};
use tokio::sync::watch;

/// The key of each user that the node knows; none: he is let in by no certificate. Who is not in it is let in by any of
/// the cluster's.
pub type UserKeys = BTreeMap<Name, Option<KeyHash>>;

/// The node's last word.
pub type Register = watch::Receiver<Arc<UserKeys>>;

/// A user at the door, by his certificate.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    pub(super) user: Name,
    pub(super) key: KeyHash,
    pub(super) register: Register,
}

impl Pass {
    pub(super) fn holds(&self) -> bool {
        self.register.borrow().get(&self.user).is_none_or(|known| *known == Some(self.key))
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

    #[test]
    fn a_pass_holds_for_the_present_key_and_for_those_of_whom_nobody_says_anything() {
        let (say, register) = watch::channel(Arc::default());
        let user = Name::new("alice").unwrap();
        let pass = Pass { user: user.clone(), key: KeyHash([1; 32]), register };
        assert!(pass.holds());
        for (known, holds) in [(Some(KeyHash([1; 32])), true), (Some(KeyHash([2; 32])), false), (None, false)]
        {
            say.send_replace(Arc::new(UserKeys::from([(user.clone(), known)])));
            assert_eq!(pass.holds(), holds, "{known:?}");
        }
    }
}
