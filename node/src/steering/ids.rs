//! Ids of wishes: whoever sends one twice, because the first answer was lost, moves nothing twice.
//!
//! `/c/wish-id/<namespace>/<device>/<id>` at a cloud, `/local/wish-id/..` at an edge, in the commit of the wish itself.

use std::time::Duration;

use bus::UnixMillis;
use bus::twin::DeviceId;
use bytes::Bytes;
use controller::api::object::uid;
use controller::api::{Kind, Layout, Refusal};
use device_twin::command::CommandId;
use metadata::{Key, Keyspace};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How long an id is remembered: longer than any client tries again.
const KEPT: Duration = Duration::from_secs(600);

/// Ids that are remembered, some 600 KiB. When there are so many within [`KEPT`], a wish with an id is refused: without one
/// it is taken.
const MAX_IDS: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Kept {
    /// Of what was wished.
    what: String,
    at: UnixMillis,
}

fn prefix(layout: Layout) -> &'static str {
    match layout {
        Layout::Cloud => "/c/wish-id/",
        Layout::Edge => "/local/wish-id/",
    }
}

#[expect(clippy::expect_used, reason = "names and ids are printable ASCII and 63 + 63 + 64 bytes long")]
fn key(layout: Layout, device: &DeviceId, id: &CommandId) -> Key {
    Key::new(&format!("{}{device}/{id}", prefix(layout))).expect("parts of the key are checked")
}

fn hash(values: &Map<String, Value>) -> String {
    uid(&["wish", &Value::Object(values.clone()).to_string()])
}

/// Whether this very wish was taken already.
///
/// # Errors
/// The id was another wish's, or there are too many.
pub(super) fn is_known(
    layout: Layout,
    device: &DeviceId,
    id: &CommandId,
    values: &Map<String, Value>,
    ks: &mut Keyspace,
    now: UnixMillis,
) -> Result<bool, Refusal> {
    let info = Kind::Device.info();
    let conflict = |why: &str| Err(Refusal::conflict(info.group, info.plural, device.name.as_str(), why));
    let old = |bytes: &Bytes| {
        let kept: Option<Kept> = serde_json::from_slice(bytes).ok();
        // Of a clock that was set back since, too.
        kept.is_none_or(|kept| kept.at > now || now.since(kept.at) >= KEPT)
    };
    let gone: Vec<Key> =
        ks.range(prefix(layout)).filter(|(_, bytes)| old(bytes)).map(|(key, _)| key.clone()).collect();
    gone.iter().for_each(|key| ks.delete(key));
    let known = ks.get(key(layout, device, id).as_str());
    match known.and_then(|bytes| serde_json::from_slice::<Kept>(bytes).ok()) {
        Some(kept) if kept.what == hash(values) => Ok(true),
        Some(_) => conflict(&format!("id {id} was another wish; ids are given once")),
        None if ks.range(prefix(layout)).count() >= MAX_IDS => {
            conflict("too many wishes with an id are remembered already; send it again later, or without one")
        }
        None => Ok(false),
    }
}

/// It is taken, in this very commit.
pub(super) fn remember(
    layout: Layout,
    device: &DeviceId,
    id: &CommandId,
    values: &Map<String, Value>,
    ks: &mut Keyspace,
    now: UnixMillis,
) {
    if let Ok(json) = serde_json::to_vec(&Kept { what: hash(values), at: now }) {
        ks.put(key(layout, device, id), json.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_for_a_while_and_is_of_one_wish() {
        let (mut ks, device) = (Keyspace::new(), "plant/valve".parse().unwrap());
        let id = CommandId::new("x").unwrap();
        let values = |position: u32| Map::from_iter([("position".to_owned(), position.into())]);
        let mut look = |position, at, is_taken: bool| {
            let (values, now) = (values(position), UnixMillis(at));
            let known = is_known(Layout::Cloud, &device, &id, &values, &mut ks, now);
            if is_taken {
                remember(Layout::Cloud, &device, &id, &values, &mut ks, now);
            }
            known.map_err(|refusal| refusal.code)
        };
        assert_eq!(look(1, 1000, true), Ok(false));
        assert_eq!(look(1, 600_999, false), Ok(true));
        assert_eq!(look(2, 600_999, false), Err(409));
        assert_eq!(look(2, 601_000, true), Ok(false), "the first is over");
        assert_eq!(look(2, 500_000, false), Ok(false), "the clock was set back");
    }
}
