//! `kubebus version`: which build this is.

use serde_json::{Value, json};

/// All that is known of it. The commit is what whoever built it said in `KUBEBUS_COMMIT`: a build from an archive has none.
pub(super) fn describe() -> Value {
    let features: Vec<&str> =
        [("etcd", cfg!(feature = "etcd")), ("virtual-clock", cfg!(feature = "virtual-clock"))]
            .into_iter()
            .filter_map(|(name, is_on)| is_on.then_some(name))
            .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("KUBEBUS_COMMIT"),
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "features": features,
        "protocols": router::io::shard::Lane::ALL.map(|lane| String::from_utf8_lossy(lane.alpn()).into_owned()),
    })
}

/// For people, one line first that scripts have read so far.
pub(super) fn told(document: &Value) -> String {
    let rest = ["commit", "target", "profile", "features", "protocols"].map(|key| {
        let value = super::table::cell(&document[key]);
        vec![key.to_owned(), if value.is_empty() { "-".to_owned() } else { value }]
    });
    let head = format!("kubebus {}", super::table::cell(&document["version"]));
    let rows = super::table::table(&["", ""], &rest);
    format!("{head}\n{}", rows.trim_start_matches('\n'))
}
