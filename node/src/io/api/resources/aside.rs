//! Work that takes milliseconds, beside the thread that owner loop and clients share.

use std::sync::Arc;

use bus::UnixMillis;
use bytes::Bytes;
use controller::api::Refusal;
use controller::api::feed::Segment;
use controller::api::list::{Lister, Piece};
use controller::api::read::Page;
use controller::api::watch::Watcher;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{busy, now, read_body};

/// Threads for it at a time: one more would take the last one from packets and devices where there are few.
static HANDS: Semaphore = Semaphore::const_new(2);

/// Objects that are rendered where they are: a quarter of a millisecond.
const FEW: usize = 8;

/// A body that is read where it is.
const SHORT: usize = 32 << 10;

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    // It is never closed.
    let _hand = HANDS.acquire().await.map_err(|_| busy())?;
    tokio::task::spawn_blocking(work).await.map_err(|_| busy())
}

/// What a list is to say of a page, and the list after it.
pub(super) async fn select(mut lister: Lister, page: Page) -> Result<(Lister, Piece), Refusal> {
    let is_short = page.items.len() <= FEW || lister.is_by_name();
    let work = move || {
        let piece = lister.handle_page(page);
        (lister, piece)
    };
    if is_short { Ok(work()) } else { aside(work).await }
}

/// The bytes of it.
pub(super) async fn write(piece: Piece) -> Result<Vec<u8>, Refusal> {
    if piece.objects() <= FEW { Ok(piece.write()) } else { aside(move || piece.write()).await }
}

/// Renders what a watcher is about to say, as of the time that it gives back. Of those who say the same one does it, and
/// the others wait.
pub(super) async fn prepare(watcher: &Watcher, segment: &Arc<Segment>) -> Result<UnixMillis, Refusal> {
    let (look, mut at) = (*watcher.look(), now());
    if segment.len() <= FEW || segment.is_prepared(watcher.selectors(), &look, at) {
        return Ok(at);
    }
    let _hand = HANDS.acquire().await.map_err(|_| busy())?;
    // A table that others rendered meanwhile is of a later second.
    at = now();
    if segment.is_prepared(watcher.selectors(), &look, at) {
        return Ok(at);
    }
    let (segment, selectors) = (Arc::clone(segment), watcher.selectors().clone());
    let work = move || segment.prepare(&selectors, &look, at);
    tokio::task::spawn_blocking(work).await.map_err(|_| busy())?;
    Ok(at)
}

/// What a body says.
pub(super) async fn body(bytes: Bytes) -> Result<Value, Refusal> {
    if bytes.len() <= SHORT { read_body(&bytes) } else { aside(move || read_body(&bytes)).await? }
}
