//! Computing passwords' hashes: off the runtime's threads, one at a time, and in turn.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, pbkdf2};
use tokio::sync::Semaphore;

use crate::gate::access::passwords::HASH_LEN;
use crate::gate::access::{Claim, Hash, NotAdmitted, Passwords, Who};

/// Hashes computed at a time. The node goes on beside it, even with two cores.
const COMPUTED_AT_ONCE: usize = 1;

/// Logins of one address that wait: as many devices behind one gateway may come back at once. A further one is
/// answered with "server busy".
const MAX_WAITING: usize = 64;

/// How long a login may wait for its turn and its hash; then it is answered with "server busy".
const PATIENCE: Duration = Duration::from_secs(10);

/// As mosquitto: it takes no other length.
const SALT_LEN: usize = 12;

static ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA512;

/// Checks logins. Each address has one login at most in the queue for the hash, so that somebody who tries passwords
/// in a flood delays others by one hash an address, and only himself by more.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    passwords: Arc<Passwords>,
    computing: Arc<Semaphore>,
    waiting: Mutex<BTreeMap<IpAddr, Queue>>,
}

/// Logins from one address.
#[derive(Debug)]
struct Queue {
    turn: Arc<Semaphore>,
    waiting: usize,
}

/// A place in the queue of an address.
#[derive(Debug)]
struct Place<'a> {
    keeper: &'a Doorkeeper,
    peer: IpAddr,
    turn: Arc<Semaphore>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.keeper.lock();
        if let Some(queue) = waiting.get_mut(&self.peer) {
            queue.waiting -= 1;
            if queue.waiting == 0 {
                waiting.remove(&self.peer);
            }
        }
    }
}

impl Doorkeeper {
    pub(super) fn new(passwords: Passwords) -> Self {
        Self {
            passwords: Arc::new(passwords),
            computing: Arc::new(Semaphore::new(COMPUTED_AT_ONCE)),
            waiting: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Queue>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue_up(&self, peer: IpAddr) -> Result<Place<'_>, NotAdmitted> {
        let mut waiting = self.lock();
        let queue =
            waiting.entry(peer).or_insert_with(|| Queue { turn: Arc::new(Semaphore::new(1)), waiting: 0 });
        if queue.waiting >= MAX_WAITING {
            return Err(NotAdmitted::Busy);
        }
        queue.waiting += 1;
        Ok(Place { keeper: self, peer, turn: Arc::clone(&queue.turn) })
    }

    pub(super) async fn check(&self, peer: IpAddr, claim: Claim) -> Result<Who, NotAdmitted> {
        let place = self.queue_up(peer)?;
        match tokio::time::timeout(PATIENCE, self.compute(&place, claim)).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) | Err(_) => Err(NotAdmitted::Busy),
        }
    }

    /// `None`: the runtime stops.
    async fn compute(&self, place: &Place<'_>, claim: Claim) -> Option<Result<Who, NotAdmitted>> {
        let _turn = place.turn.acquire().await.ok()?;
        let computing = Arc::clone(&self.computing).acquire_owned().await.ok()?;
        let passwords = Arc::clone(&self.passwords);
        let computed = tokio::task::spawn_blocking(move || {
            // Held until it is done, also when nobody waits for it any more.
            let _computing = computing;
            judge(&passwords, &claim)
        });
        computed.await.ok()
    }
}

/// Takes as long for a name that is unknown as for the dearest that is known.
fn judge(passwords: &Passwords, claim: &Claim) -> Result<Who, NotAdmitted> {
    let entry = passwords.get(&claim.user);
    let right = entry.filter(|entry| is_right(&entry.hash, &claim.password));
    let spent = entry.map_or(0, |entry| entry.hash.iterations());
    spend(passwords.cost().saturating_sub(spent), &claim.password);
    right.map(|entry| entry.who.clone()).ok_or(NotAdmitted::Credentials)
}

fn is_right(hash: &Hash, password: &[u8]) -> bool {
    match hash {
        Hash::Pbkdf2 { iterations, salt, hash } => {
            pbkdf2::verify(ALGORITHM, *iterations, salt, password, hash).is_ok()
        }
        Hash::Sha512 { salt, hash } => {
            let mut digest = digest::Context::new(&digest::SHA512);
            digest.update(password);
            digest.update(salt);
            let found = digest.finish();
            // Every byte is looked at, whichever differs.
            found.as_ref().iter().zip(hash).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
        }
    }
}

fn spend(iterations: u32, password: &[u8]) {
    if let Some(iterations) = NonZeroU32::new(iterations) {
        let mut thrown_away = [0; HASH_LEN];
        pbkdf2::derive(ALGORITHM, iterations, &[0; SALT_LEN], password, &mut thrown_away);
        std::hint::black_box(thrown_away);
    }
}

/// A new hash of a password, for a password file. `None`: the system has no randomness.
pub fn hash(password: &[u8], iterations: NonZeroU32) -> Option<Hash> {
    let mut salt = vec![0; SALT_LEN];
    SystemRandom::new().fill(&mut salt).ok()?;
    let mut hash = [0; HASH_LEN];
    pbkdf2::derive(ALGORITHM, iterations, &salt, password, &mut hash);
    Some(Hash::Pbkdf2 { iterations, salt, hash })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::access::passwords::line;

    fn claim(user: &str, password: &str) -> Claim {
        Claim { user: user.to_owned(), password: password.as_bytes().to_vec() }
    }

    fn users() -> Passwords {
        let hash = hash(b"right", NonZeroU32::new(101).unwrap()).unwrap();
        Passwords::parse(&(line("alice", &hash) + &line("mapper/modbus", &hash))).unwrap()
    }

    /// Of mosquitto 1.6: `mosquitto_passwd -b -c FILE old secret`, computed by its documentation.
    #[test]
    fn a_salted_sha512_of_old_is_still_known() {
        let mut digest = digest::Context::new(&digest::SHA512);
        digest.update(b"secret");
        digest.update(b"saltsaltsalt");
        let hash = digest.finish().as_ref().try_into().unwrap();
        let old = Hash::Sha512 { salt: b"saltsaltsalt".to_vec(), hash };
        let passwords = Passwords::parse(&line("old", &old)).unwrap();
        assert_eq!(judge(&passwords, &claim("old", "secret")).unwrap().to_string(), "user/old");
        assert_eq!(judge(&passwords, &claim("old", "Secret")), Err(NotAdmitted::Credentials));
    }

    #[test]
    fn only_the_right_password_of_a_known_user_is_let_in() {
        let passwords = users();
        let table = [
            ("alice", "right", Some("user/alice")),
            ("mapper/modbus", "right", Some("mapper/modbus")),
            ("alice", "wrong", None),
            ("alice", "", None),
            ("bob", "right", None),
            ("", "", None),
        ];
        for (user, password, who) in table {
            let judged = judge(&passwords, &claim(user, password)).ok().map(|who| who.to_string());
            assert_eq!(judged.as_deref(), who, "{user} {password}");
        }
        assert_eq!(judge(&Passwords::default(), &claim("alice", "right")), Err(NotAdmitted::Credentials));
    }

    #[tokio::test]
    async fn a_flood_from_one_address_leaves_the_queue_to_others() {
        let keeper = Doorkeeper::new(users());
        let (attacker, honest) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        // All of the attacker's places are taken, one of them has the turn and is held up.
        let places: Vec<_> = (0..MAX_WAITING).map(|_| keeper.queue_up(attacker).unwrap()).collect();
        let _turn = places[0].turn.acquire().await.unwrap();
        assert_eq!(keeper.check(attacker, claim("alice", "right")).await, Err(NotAdmitted::Busy));
        assert_eq!(keeper.check(honest, claim("alice", "right")).await.unwrap().to_string(), "user/alice");
        drop(_turn);
        drop(places);
        assert!(keeper.lock().is_empty(), "a queue without anybody in it is kept");
    }
}
