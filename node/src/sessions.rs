//! Who looks at the page without a certificate: one-time links, and the sessions that they become.
//!
//! ```text
//! offer --> link --5 min--> gone
//!             |
//!             redeem --> session --12 h, or leave--> gone
//! ```
//! Both are known by the SHA-256 of a secret of 256 random bits, and are in memory alone: a node that starts again has none.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{KeyHash, Mono, Name, NodeId, NodeKind, UnixMillis};
use controller::role::{Asker, Role};
use controller::user::{NotLetIn, Users};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Long enough to carry a link from a terminal to a browser.
pub const LINK_LIFE: Duration = Duration::from_secs(5 * 60);

/// A shift, and half of another.
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);

/// Links that nobody followed yet; one more takes the place of the oldest.
const MAX_LINKS: usize = 16;

/// Browsers of a control room and of those on call; one more takes the place of the oldest, which has to log in again.
const MAX_SESSIONS: usize = 64;

/// 256 random bits.
pub type Secret = [u8; 32];

/// What is kept of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    pub fn of(secret: &Secret) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

/// Who asked for a link. With him, his guests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub who: NodeId,
    /// Of the certificate that he had then; `None`: he has none, at the console. With another one he is another host.
    pub key: Option<KeyHash>,
}

/// Why somebody's guest is let in no more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoHost {
    #[error(transparent)]
    NotLetIn(#[from] NotLetIn),
    #[error(
        "{0}, who let this page in, has another certificate or role now: get another link with 'kubebus page'"
    )]
    Changed(NodeId),
}

impl Host {
    pub fn console() -> Self {
        Self { who: Asker::console().who, key: None }
    }

    /// Whether he may still have a guest of that role. Nobody lets in one who may more than he.
    pub fn check(&self, guest: Role, users: &Users, now: UnixMillis) -> Result<(), NoHost> {
        if *self == Self::console() {
            return Ok(());
        }
        let (role, key) = users.role_now(&self.who.name, now)?;
        match Some(key) == self.key && role <= guest {
            true => Ok(()),
            false => Err(NoHost::Changed(self.who.clone())),
        }
    }
}

/// Who may look, and who let him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    pub asker: Asker,
    pub host: Host,
}

#[derive(Debug)]
struct Kept {
    role: Role,
    host: Host,
    until: Mono,
}

/// All links and sessions of a node.
#[derive(Debug, Default)]
pub struct Sessions {
    links: BTreeMap<SecretHash, Kept>,
    sessions: BTreeMap<SecretHash, (Guest, Mono)>,
}

impl Sessions {
    /// Whoever comes with this secret in time may look.
    pub fn offer(&mut self, secret: &Secret, role: Role, host: Host, now: Mono) {
        self.forget(now);
        if self.links.len() >= MAX_LINKS {
            let oldest = self.links.iter().min_by_key(|(_, kept)| kept.until).map(|(hash, _)| *hash);
            oldest.map(|hash| self.links.remove(&hash));
        }
        self.links.insert(SecretHash::of(secret), Kept { role, host, until: now + LINK_LIFE });
    }

    /// Uses a link up; from now on `token` stands for the guest. `None`: there is no such link, or no more.
    pub fn redeem(&mut self, secret: &Secret, token: &Secret, now: Mono) -> Option<Guest> {
        self.forget(now);
        let Kept { role, host, until: _ } = self.links.remove(&SecretHash::of(secret))?;
        if self.sessions.len() >= MAX_SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, (_, until))| *until).map(|(hash, _)| *hash);
            oldest.map(|hash| self.sessions.remove(&hash));
        }
        let hash = SecretHash::of(token);
        let guest = Guest { asker: Asker { who: guest_of(&host.who, hash), role }, host };
        self.sessions.insert(hash, (guest.clone(), now + SESSION_LIFE));
        Some(guest)
    }

    pub fn find(&self, token: SecretHash, now: Mono) -> Option<&Guest> {
        self.sessions.get(&token).filter(|(_, until)| now < *until).map(|(guest, _)| guest)
    }

    /// Logs out, if he is here.
    pub fn leave(&mut self, token: SecretHash) -> Option<Guest> {
        self.sessions.remove(&token).map(|(guest, _)| guest)
    }

    /// Drops links and guests of those who are let in no more, as they were. That they come back lets no guest in again.
    pub fn handle_users(&mut self, users: &Users, now: UnixMillis) {
        self.links.retain(|_, kept| kept.host.check(kept.role, users, now).is_ok());
        self.sessions.retain(|_, (guest, _)| guest.host.check(guest.asker.role, users, now).is_ok());
    }

    fn forget(&mut self, now: Mono) {
        self.links.retain(|_, kept| now < kept.until);
        self.sessions.retain(|_, (_, until)| now < *until);
    }
}

/// A user's guest is himself at a browser; the console's has a name of his own, so that records tell them apart.
#[expect(clippy::expect_used, reason = "letters, digits and a hyphen are a name")]
fn guest_of(host: &NodeId, token: SecretHash) -> NodeId {
    if *host != Asker::console().who {
        return host.clone();
    }
    let [a, b, c, d, ..] = token.0;
    let name = Name::new(&format!("page-{a:02x}{b:02x}{c:02x}{d:02x}")).expect("a name");
    NodeId { kind: NodeKind::User, name }
}

#[cfg(test)]
mod tests {
    use controller::user;

    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_link_works_once_and_in_time_and_its_session_ends_by_itself() {
        let mut sessions = Sessions::default();
        let console = Host::console();
        sessions.offer(&[1; 32], Role::Viewer, console.clone(), at(0));
        assert_eq!(sessions.redeem(&[2; 32], &[9; 32], at(1)), None);
        let guest = sessions.redeem(&[1; 32], &[9; 32], at(299)).unwrap();
        assert_eq!((guest.asker.role, guest.asker.is_console()), (Role::Viewer, false));
        assert_eq!(sessions.redeem(&[1; 32], &[8; 32], at(299)), None, "used up");
        let token = SecretHash::of(&[9; 32]);
        assert_eq!(sessions.find(token, at(299 + 12 * 3600 - 1)), Some(&guest));
        assert_eq!(sessions.find(token, at(299 + 12 * 3600)), None);
        sessions.offer(&[3; 32], Role::Viewer, console, at(0));
        assert_eq!(sessions.redeem(&[3; 32], &[7; 32], at(300)), None, "too late");
    }

    #[test]
    fn a_guest_who_leaves_is_gone_and_the_oldest_gives_way() {
        let mut sessions = Sessions::default();
        let who: NodeId = "user/alice".parse().unwrap();
        let alice = Host { who, key: Some(KeyHash([1; 32])) };
        for number in 0..=MAX_SESSIONS as u8 {
            let (secret, token) = ([number; 32], [number + 100; 32]);
            sessions.offer(&secret, Role::Operator, alice.clone(), at(u64::from(number)));
            let guest = sessions.redeem(&secret, &token, at(u64::from(number))).unwrap();
            assert_eq!(guest.asker.who, alice.who);
        }
        assert_eq!(sessions.find(SecretHash::of(&[100; 32]), at(70)), None);
        let second = SecretHash::of(&[101; 32]);
        assert!(sessions.find(second, at(70)).is_some());
        sessions.leave(second);
        assert_eq!(sessions.find(second, at(70)), None);
        for number in 0..=MAX_LINKS as u8 {
            sessions.offer(&[number; 32], Role::Viewer, alice.clone(), at(100 + u64::from(number)));
        }
        assert_eq!(sessions.redeem(&[0; 32], &[1; 32], at(120)), None);
        assert!(sessions.redeem(&[1; 32], &[1; 32], at(120)).is_some());
    }
    #[test]
    fn with_a_host_who_changed_his_guests_go_for_good() {
        let mut ks = metadata::Keyspace::new();
        let name = Name::new("alice").unwrap();
        let user = |key, role| user::User {
            name: name.clone(),
            role,
            key: KeyHash([key; 32]),
            not_after: UnixMillis(1000),
            revoked: None,
        };
        let alice = |key| Host { who: user(key, Role::Admin).id(), key: Some(KeyHash([key; 32])) };
        let mut put = |key, role| {
            user::put(&user(key, role), true, &mut ks).unwrap();
            Users::load(user::PREFIX, &ks)
        };
        let (admin, operator, other) = (put(1, Role::Admin), put(1, Role::Operator), put(2, Role::Admin));
        let ends = UnixMillis(1000);
        for (role, users, now, stays) in [
            (Role::Admin, &admin, UnixMillis(0), true),
            (Role::Admin, &operator, UnixMillis(0), false),
            (Role::Viewer, &operator, UnixMillis(0), true),
            (Role::Viewer, &other, UnixMillis(0), false),
            (Role::Viewer, &admin, ends, false),
            (Role::Viewer, &Users::default(), UnixMillis(0), false),
        ] {
            let mut sessions = Sessions::default();
            sessions.offer(&[1; 32], role, alice(1), at(0));
            sessions.offer(&[2; 32], role, alice(1), at(0));
            sessions.offer(&[3; 32], role, Host::console(), at(0));
            sessions.redeem(&[1; 32], &[9; 32], at(0)).unwrap();
            sessions.redeem(&[3; 32], &[8; 32], at(0)).unwrap();
            sessions.handle_users(users, now);
            let found = |token| sessions.find(SecretHash::of(&[token; 32]), at(1)).is_some();
            assert_eq!((found(9), found(8)), (stays, true), "{role} {now:?}");
            assert_eq!(sessions.redeem(&[2; 32], &[7; 32], at(1)).is_some(), stays, "its link");
        }
    }
}
