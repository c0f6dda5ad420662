//! Ids of wishes: whoever sends one twice, because the first answer was lost, moves nothing twice.
//!
//! `/c/wish-id/<namespace>/<device>/<id>` at a cloud, `/local/wish-id/..` at an edge, in the commit of the wish itself:
//! when it was taken, in 8 bytes of Unix milliseconds, and a hash of what was sent and to which device of that name.

use std::time::Duration;

use bus::UnixMillis;
use bus::twin::DeviceId;
use controller::api::object::uid;
use controller::api::{Kind, Layout, Refusal};
use device_twin::command::CommandId;
use metadata::{Key, Keyspace};
use serde_json::Value;

/// How long an id is remembered: longer than any client tries again. As long after, too, of a clock that was set back.
const KEPT: Duration = Duration::from_secs(600);

/// Ids that are remembered, some 600 KiB. When there are so many within [`KEPT`], a wish with an id is refused: without one
/// it is taken.
const MAX_IDS: usize = 4096;

/// A wish that has an id.
pub(super) struct Named {
    pub(super) id: CommandId,
    prefix: &'static str,
    key: Key,
    /// Of the device: made again under the same name, it is another one.
    uid: String,
    what: String,
}

fn prefix(layout: Layout) -> &'static str {
    match layout {
        Layout::Cloud => "/c/wish-id/",
        Layout::Edge => "/local/wish-id/",
    }
}

/// Of a row.
struct Kept<'a> {
    at: UnixMillis,
    /// What was wished, a uid; then the device's.
    rest: &'a [u8],
}

impl<'a> Kept<'a> {
    fn read(row: &'a [u8]) -> Option<Self> {
        let (at, rest) = row.split_first_chunk()?;
        Some(Self { at: UnixMillis(u64::from_be_bytes(*at)), rest })
    }

    /// A clock that was corrected by some seconds forgets nothing.
    fn is_old(&self, now: UnixMillis) -> bool {
        now.since(self.at) >= KEPT || self.at.since(now) >= KEPT
    }
}

fn is_old(row: &[u8], now: UnixMillis) -> bool {
    Kept::read(row).is_none_or(|kept| kept.is_old(now))
}

impl Named {
    #[expect(clippy::expect_used, reason = "names and ids are printable ASCII and 63 + 63 + 64 bytes long")]
    pub(super) fn new(layout: Layout, device: &DeviceId, of: &str, id: CommandId, what: &Value) -> Self {
        let prefix = prefix(layout);
        let key = Key::new(&format!("{prefix}{device}/{id}")).expect("parts of the key are checked");
        Self { id, prefix, key, uid: of.to_owned(), what: uid(&["wish", &what.to_string()]) }
    }

    /// Whether this very wish was taken already.
    ///
    /// # Errors
    /// The id was another wish's, or there are too many.
    pub(super) fn is_known(&self, ks: &Keyspace, now: UnixMillis) -> Result<bool, Refusal> {
        let row = ks.get(self.key.as_str());
        let kept = row.and_then(|row| Kept::read(row)).filter(|kept| !kept.is_old(now));
        match kept.and_then(|kept| kept.rest.strip_suffix(self.uid.as_bytes())) {
            Some(what) if what == self.what.as_bytes() => Ok(true),
            Some(_) => Err(self.conflict(&format!("id {} was another wish; ids are given once", self.id))),
            None if row.is_none() && self.is_full(ks, now) => Err(self.conflict(
                "too many wishes with an id are remembered already; send it again later, or without one",
            )),
            None => Ok(false),
        }
    }

    fn is_full(&self, ks: &Keyspace, now: UnixMillis) -> bool {
        ks.range(self.prefix).filter(|(_, row)| !is_old(row, now)).count() >= MAX_IDS
    }

    fn conflict(&self, why: &str) -> Refusal {
        let (info, name) = (Kind::Device.info(), self.key.as_str());
        let device = name.strip_prefix(self.prefix).and_then(|rest| rest.split('/').nth(1));
        Refusal::conflict(info.group, info.plural, device.unwrap_or_default(), why)
    }

    /// It is taken, in this very commit; what is old goes.
    pub(super) fn remember(&self, ks: &mut Keyspace, now: UnixMillis) {
        let old = ks.range(self.prefix).filter(|(_, row)| is_old(row, now));
        let old: Vec<Key> = old.map(|(key, _)| key.clone()).collect();
        old.iter().for_each(|key| ks.delete(key));
        let row = [&now.0.to_be_bytes()[..], self.what.as_bytes(), self.uid.as_bytes()].concat();
        ks.put(self.key.clone(), row.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_for_a_while_and_is_of_one_wish() {
        let (mut ks, device) = (Keyspace::new(), "plant/valve".parse().unwrap());
        let mut look = |position: u32, uid: &str, at, is_taken: bool| {
            let (what, now) = (serde_json::json!({ "position": position }), UnixMillis(at));
            let named = Named::new(Layout::Cloud, &device, uid, CommandId::new("x").unwrap(), &what);
            let known = named.is_known(&ks, now);
            if is_taken {
                named.remember(&mut ks, now);
            }
            known.map_err(|refusal| refusal.code)
        };
        assert_eq!(look(1, "u", 1_000_000, true), Ok(false));
        assert_eq!(look(1, "u", 1_599_999, false), Ok(true));
        assert_eq!(look(1, "u", 998_000, false), Ok(true), "the clock was corrected by two seconds");
        assert_eq!(look(2, "u", 1_599_999, false), Err(409));
        assert_eq!(look(2, "other", 1_599_999, false), Ok(false), "the device was made again");
        assert_eq!(look(2, "u", 1_600_000, true), Ok(false), "the first is over");
        assert_eq!(look(2, "u", 900_000, false), Ok(false), "the clock was set back by far");
    }

    #[test]
    fn so_many_are_remembered_and_what_is_old_makes_room() {
        let (mut ks, device) = (Keyspace::new(), "plant/valve".parse().unwrap());
        let named = |n: usize| {
            let id = CommandId::new(&format!("x{n}")).unwrap();
            Named::new(Layout::Edge, &device, "u", id, &Value::Null)
        };
        for n in 0..MAX_IDS {
            let row = [&1000u64.to_be_bytes()[..], named(n).what.as_bytes(), b"u"].concat();
            ks.put(named(n).key, row.into());
        }
        let known =
            |ks: &Keyspace, n, at| named(n).is_known(ks, UnixMillis(at)).map_err(|refusal| refusal.code);
        assert_eq!((known(&ks, 0, 2000), known(&ks, MAX_IDS, 2000)), (Ok(true), Err(409)));
        assert_eq!(known(&ks, MAX_IDS, 700_000), Ok(false));
        named(MAX_IDS).remember(&mut ks, UnixMillis(700_000));
        assert_eq!(ks.range("/local/wish-id/").count(), 1);
    }
}
