//! What the MQTT broker has its node keep: rows of its own format, under keys of its own.

use bytes::Bytes;
use device_twin::gate::Row;
use device_twin::gate::row::ROOT;
use metadata::{Key, Keyspace};

pub(crate) fn write(rows: Vec<Row>, keyspace: &mut Keyspace) {
    for Row { key, value } in rows {
        match value {
            Some(value) => keyspace.put(key, value),
            None => keyspace.delete(&key),
        }
    }
}

/// What the last process's broker had kept.
pub(crate) fn read(keyspace: &Keyspace) -> Vec<(Key, Bytes)> {
    keyspace.range(ROOT).map(|(key, value)| (key.clone(), value.clone())).collect()
}
