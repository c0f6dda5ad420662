//! Virtual prefixes whose LANs are gone: `/c/lan/<prefix>`.
//!
//! They are kept for their edge and LAN, and from others, for as long as addresses are: so long may somebody take them for
//! the old LAN's.

use bus::{NodeId, Now, Route, UnixMillis};
use metadata::Keyspace;
use minicbor::{Decode, Encode};

use crate::lease::REUSE_AFTER;
use crate::record::{self, DamagedRecord};
use crate::route;

pub(crate) const PREFIX: &str = "/c/lan/";

#[derive(Encode, Decode)]
struct Record {
    #[n(0)]
    route: Route,
    /// When the LAN went.
    #[n(1)]
    released: UnixMillis,
}

impl Record {
    fn is_free(&self, now: Now) -> bool {
        now.wall.since(self.released) >= REUSE_AFTER
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", route::key_part(&self.route.prefix))
    }
}

/// Those that nobody else is given yet.
pub(crate) fn list(ks: &Keyspace, now: Now) -> Result<Vec<Route>, DamagedRecord> {
    let kept = record::list::<Record>(ks, PREFIX)?.into_iter().filter(|record| !record.is_free(now));
    Ok(kept.map(|record| record.route).collect())
}

/// To be called before `wanted` becomes all that lies behind `owner`: retires what is not among it, and forgets what is
/// in use again, or free.
pub(crate) fn update(
    owner: &NodeId,
    wanted: &[Route],
    ks: &mut Keyspace,
    now: Now,
) -> Result<(), DamagedRecord> {
    for record in record::list::<Record>(ks, PREFIX)? {
        if record.is_free(now) || wanted.iter().any(|route| route.prefix == record.route.prefix) {
            record::delete(ks, &record.key());
        }
    }
    let gone = route::translated(ks)?.into_iter().filter(|route| route.owner == *owner);
    for route in gone.filter(|old| !wanted.iter().any(|route| route.prefix == old.prefix)) {
        let record = Record { route, released: now.wall };
        record::put(ks, &record.key(), &record);
    }
    Ok(())
}
