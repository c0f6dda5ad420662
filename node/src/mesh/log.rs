//! Messages that wait at the cloud, each once, with the sites that it waits for.

use std::collections::{BTreeMap, BTreeSet};

use bus::Name;
use bytes::Bytes;
use metadata::{Key, Keyspace, Revision};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::{encode, key};

const PREFIX: &str = "/c/mesh/log/";

/// Numbers of one revision: more than one cycle takes.
const PER_REVISION: u64 = 1 << 20;

/// Who a message is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub(super) struct Targets {
    #[n(0)]
    pub(super) edges: BTreeSet<Name>,
    /// The cloud's own broker.
    #[n(1)]
    pub(super) here: bool,
}

impl Targets {
    fn len(&self) -> usize {
        self.edges.len() + usize::from(self.here)
    }
}

#[derive(Debug, Encode, Decode)]
pub(super) struct Logged {
    #[n(0)]
    pub(super) targets: Targets,
    #[n(1)]
    pub(super) parcel: ByteVec,
}

/// Which messages wait, and for how many sites each.
#[derive(Debug, Default)]
pub(super) struct Log {
    waiting: BTreeMap<u64, usize>,
    last: u64,
}

impl Log {
    /// The next number. They grow with the revision, so that no row is needed to know the last one.
    pub(super) fn number(&mut self, ks: &Keyspace) -> u64 {
        let Revision(revision) = ks.revision();
        self.last = (self.last + 1).max((revision + 1).saturating_mul(PER_REVISION));
        self.last
    }

    pub(super) fn put(&mut self, number: u64, targets: Targets, parcel: &Bytes, ks: &mut Keyspace) {
        self.waiting.insert(number, targets.len());
        let parcel = ByteVec::from(parcel.to_vec());
        ks.put(key_of(number), encode(&Logged { targets, parcel }));
    }

    /// All rows with what they wait for; `is_waiting` says which of the sites still do.
    pub(super) fn load(&mut self, ks: &mut Keyspace, mut is_waiting: impl FnMut(u64, &Logged) -> usize) {
        let rows: Vec<(Key, Bytes)> =
            ks.range(PREFIX).map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in rows {
            let number = key.as_str()[PREFIX.len()..].parse::<u64>().ok();
            let waits = number.zip(minicbor::decode::<Logged>(&value).ok());
            let waits = waits.map(|(number, logged)| (number, is_waiting(number, &logged)));
            match waits.filter(|(_, sites)| *sites > 0) {
                Some((number, sites)) => drop(self.waiting.insert(number, sites)),
                None => ks.delete(&key),
            }
        }
    }

    pub(super) fn get(number: u64, ks: &Keyspace) -> Option<Vec<u8>> {
        let logged: Logged = minicbor::decode(ks.get(key_of(number).as_str())?).ok()?;
        Some(logged.parcel.into())
    }

    /// One site waits no more.
    pub(super) fn release(&mut self, number: u64, ks: &mut Keyspace) {
        let Some(sites) = self.waiting.get_mut(&number) else { return };
        *sites -= 1;
        if *sites == 0 {
            self.waiting.remove(&number);
            ks.delete(&key_of(number));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn key_of(number: u64) -> Key {
    key(&format!("{PREFIX}{number:020}"))
}
