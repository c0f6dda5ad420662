//! Who is connected to which broker: devices with the same access share one connection.
//!
//! Not in `Context::bus`: nothing is asked and answered in turn here, and devices of one bus would wait while another one's
//! write is being confirmed.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use kubebus_sdk::Error;
use tokio::sync::Mutex as Turn;

use crate::config::Access;
use crate::link::Kept;

/// A place for one connection. Who finds it empty connects, while others wait.
type Place = Arc<Turn<Weak<Kept>>>;

static PLACES: LazyLock<Mutex<BTreeMap<Access, Place>>> = LazyLock::new(Mutex::default);

/// The connection of everybody with this access. It ends with the last session on it.
pub(crate) async fn connection(access: &Access) -> Result<Arc<Kept>, Error> {
    let place = place(access);
    let mut place = place.lock().await;
    if let Some(kept) = place.upgrade().filter(|kept| kept.link.exchange().ended().is_none()) {
        return Ok(kept);
    }
    let kept = Arc::new(Kept::connect(access).await?);
    *place = Arc::downgrade(&kept);
    Ok(kept)
}

/// Forgets the places that nobody uses.
fn place(access: &Access) -> Place {
    let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let is_used = |place: &Place| place.try_lock().map_or(true, |kept| kept.strong_count() > 0);
    places.retain(|_, place| Arc::strong_count(place) > 1 || is_used(place));
    Arc::clone(places.entry(access.clone()).or_default())
}
