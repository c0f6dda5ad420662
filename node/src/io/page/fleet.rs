//! How all nodes are, asked for once for all pages that look.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::api::{Desk, Question, Reply};
use crate::page::Nodes;

/// An answer serves every page for this long: it takes a measurement of all links, and a large one some milliseconds.
const GOOD_FOR: Duration = Duration::from_millis(1500);

/// The newest answer, and when it came. Nobody asks while nobody looks.
static NEWEST: Mutex<Option<(Instant, Arc<Nodes>)>> = Mutex::const_new(None);

/// The nodes of what `/kubebus/v1/fleet` answers; `None` if the node does not.
pub(super) async fn newest(desk: &Desk) -> Option<Arc<Nodes>> {
    let mut newest = NEWEST.lock().await;
    if let Some((_, known)) = newest.as_ref().filter(|(at, _)| at.elapsed() < GOOD_FOR) {
        return Some(Arc::clone(known));
    }
    let Some(Reply::Fleet(fleet)) = desk.forward(Question::Fleet).await else { return None };
    let made = Arc::new(tokio::task::spawn_blocking(move || Nodes::new(*fleet)).await.ok()?);
    *newest = Some((Instant::now(), Arc::clone(&made)));
    Some(made)
}
