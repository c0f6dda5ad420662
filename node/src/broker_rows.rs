//! What the MQTT broker has its node keep: rows of its own format, under keys of its own.

use device_twin::gate::Row;
use metadata::Keyspace;

pub(crate) fn write(rows: Vec<Row>, keyspace: &mut Keyspace) {
    for Row { key, value } in rows {
        match value {
            Some(value) => keyspace.put(key, value),
            None => keyspace.delete(&key),
        }
    }
}
