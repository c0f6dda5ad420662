//! Where the cloud is dialled: `/all/cloud`, synced to every edge, which so learns of a new address before the old one
//! ends.

use metadata::Keyspace;
use minicbor::{Decode, Encode};

use crate::record;

/// Where the cloud keeps it.
pub const KEY: &str = "/all/cloud";

/// Where an edge finds it.
pub const TOLD: &str = "/m/cloud";

/// More than a cluster with one cloud has use for: an edge that tries them all in vain is through in minutes. Further
/// ones are not used.
pub const MAX_ENDPOINTS: usize = 16;

/// A struct, so that a later version can say more.
#[derive(Encode, Decode)]
struct Record {
    #[n(0)]
    endpoints: Vec<String>,
}

/// Tells the edges. None given: what they were told before stays, so that a cloud restored without this setting cuts
/// nobody off.
pub(crate) fn tell(endpoints: &[String], ks: &mut Keyspace) {
    if !endpoints.is_empty() {
        record::put(ks, KEY, &Record { endpoints: endpoints.to_vec() });
    }
}

/// What an edge was told, `host:port` in the order of trying; unchecked. Nothing if it was told nothing, or cannot read
/// it: the address that it joined by is left then.
pub fn told(ks: &Keyspace) -> Vec<String> {
    let record = ks.get(TOLD).and_then(|bytes| minicbor::decode::<Record>(bytes).ok());
    let endpoints = record.map(|Record { endpoints }| endpoints).unwrap_or_default();
    endpoints.into_iter().take(MAX_ENDPOINTS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use metadata::Key;

    fn texts(endpoints: &[&str]) -> Vec<String> {
        endpoints.iter().map(ToString::to_string).collect()
    }

    /// The cloud's record as an edge has it.
    fn synced(ks: &Keyspace) -> Keyspace {
        let mut edge = Keyspace::new();
        edge.put(Key::new(TOLD).unwrap(), ks.get(KEY).cloned().unwrap_or_default());
        edge
    }

    #[test]
    fn an_edge_reads_what_the_cloud_tells() {
        let mut ks = Keyspace::new();
        tell(&texts(&["a.example:10001", "203.0.113.9:10001"]), &mut ks);
        assert_eq!(told(&synced(&ks)), texts(&["a.example:10001", "203.0.113.9:10001"]));
    }

    #[test]
    fn a_cloud_without_the_setting_leaves_what_was_told() {
        let mut ks = Keyspace::new();
        tell(&texts(&["a.example:10001"]), &mut ks);
        tell(&[], &mut ks);
        assert_eq!(told(&synced(&ks)), texts(&["a.example:10001"]));
    }

    #[test]
    fn nonsense_is_no_endpoint_and_a_long_list_is_cut() {
        let mut edge = Keyspace::new();
        assert_eq!(told(&edge), texts(&[]));
        edge.put(Key::new(TOLD).unwrap(), Bytes::from_static(&[0xff, 0x9f]));
        assert_eq!(told(&edge), texts(&[]));
        let mut ks = Keyspace::new();
        tell(&vec!["a.example:10001".to_owned(); 1000], &mut ks);
        assert_eq!(told(&synced(&ks)).len(), MAX_ENDPOINTS);
    }
}
