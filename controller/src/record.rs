//! Minicbor records of this crate in the keyspace.

use bytes::Bytes;
use metadata::{Key, Keyspace};
use minicbor::{Decode, Encode};
use thiserror::Error;

/// A record of ours that cannot be read back. Nothing is guessed in its place: an address plan with a hole would
/// give one address to two nodes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the record {key} cannot be read; restore the cloud's store from a backup or a newer kubebus wrote it"
)]
pub struct DamagedRecord {
    pub key: String,
    pub source: DecodeFailure,
}

/// minicbor's error as text: its own type cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct DecodeFailure(String);

pub(crate) fn get<T>(ks: &Keyspace, key: &str) -> Result<Option<T>, DamagedRecord>
where
    T: for<'b> Decode<'b, ()>,
{
    ks.get(key).map(|bytes| decode(key, bytes)).transpose()
}

pub(crate) fn list<T>(ks: &Keyspace, prefix: &str) -> Result<Vec<T>, DamagedRecord>
where
    T: for<'b> Decode<'b, ()>,
{
    ks.range(prefix).map(|(key, bytes)| decode(key.as_str(), bytes)).collect()
}

fn decode<T>(key: &str, bytes: &[u8]) -> Result<T, DamagedRecord>
where
    T: for<'b> Decode<'b, ()>,
{
    minicbor::decode(bytes)
        .map_err(|e| DamagedRecord { key: key.to_owned(), source: DecodeFailure(e.to_string()) })
}

pub(crate) fn put<T: Encode<()>>(ks: &mut Keyspace, key: &str, value: &T) {
    ks.put(own_key(key), Bytes::from(encode(value)));
}

pub(crate) fn delete(ks: &mut Keyspace, key: &str) {
    ks.delete(&own_key(key));
}

/// Deletes every key that begins with `prefix`, but not those that go on with one of `kept`.
pub(crate) fn delete_all_but(ks: &mut Keyspace, prefix: &str, kept: &[&str]) {
    let goes = |key: &Key| !kept.iter().any(|kept| key.as_str()[prefix.len()..].starts_with(kept));
    let keys: Vec<Key> = ks.range(prefix).map(|(key, _)| key.clone()).filter(goes).collect();
    keys.iter().for_each(|key| ks.delete(key));
}

pub(crate) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("a Vec takes every byte")
}

/// Our keys are built of names, numbers and prefixes: at most four of 63 characters, all ASCII.
pub(crate) fn own_key(text: &str) -> Key {
    Key::new(text).expect("keys built of names are short and printable")
}
