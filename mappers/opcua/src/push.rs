//! Values that the server sends by itself: one subscription, one monitored item a point.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kubebus_sdk::{Error, Point, Sink};
use opcua::client::{MonitoredItem, OnSubscriptionNotification};
use opcua::sync::Mutex;
use opcua::types::{
    DataValue, MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters, NodeId, ReadValueId,
    StatusChangeNotification, TimestampsToReturn,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::address::Address;
use crate::link::{Heard, Link};
use crate::status;
use crate::value::reading;

/// How often the server may send: quick enough for people, and a hundred changes between are one message.
const PUBLISHING: Duration = Duration::from_millis(250);
/// After so many empty intervals the server says that it is still there: 5 s.
const KEEP_ALIVES: u32 = 20;
/// After so many without hearing of us the server forgets the subscription: a minute.
const LIFETIME: u32 = 240;
/// A server that was silent for so many times its own keep-alive has lost the subscription, whatever else it still answers.
const SILENCES: u32 = 4;
/// Longest time between two signs of life that is believed of a server.
const LONGEST_KEEP_ALIVE: Duration = Duration::from_secs(60);
/// For the server's own sampling interval (OPC 10000-4 §7.21): the publishing interval.
const AS_PUBLISHED: f64 = -1.0;

/// A subscription that is watched; it ends with this.
pub(crate) struct Pushing {
    subscription: u32,
    _forwarder: JoinSet<()>,
}

impl Pushing {
    /// Watches these points, whose nodes are known; what is `refused` already is told first.
    pub(crate) async fn begin(
        link: &Link,
        points: Vec<(Point<Address>, NodeId)>,
        mut refused: Vec<(String, Error)>,
        per_call: usize,
        sink: Sink,
    ) -> Result<Self, Error> {
        let inbox = Arc::new(Inbox::default());
        let created = link.session.create_subscription(
            PUBLISHING,
            LIFETIME,
            KEEP_ALIVES,
            0,
            0,
            true,
            Callback(Arc::clone(&inbox)),
        );
        let subscription = created.await.map_err(|error| status::call(&error))?;
        refused.extend(watch(link, subscription, &points, per_call).await?);
        let silence = silence(link, subscription);
        let mut forwarder = JoinSet::new();
        forwarder.spawn(forward(Forward { points, refused, inbox, sink, silence }, link.end(), link.heard()));
        Ok(Self { subscription, _forwarder: forwarder })
    }

    pub(crate) async fn end(self, link: &Link) -> Result<(), Error> {
        link.session.delete_subscription(self.subscription).await.map_err(|error| status::call(&error))?;
        Ok(())
    }
}

/// Asks for the points; a point's handle is its place in the list, from 1. Returns what was refused.
async fn watch(
    link: &Link,
    subscription: u32,
    points: &[(Point<Address>, NodeId)],
    per_call: usize,
) -> Result<Vec<(String, Error)>, Error> {
    let mut refused = Vec::new();
    let items: Vec<_> = (1u32..).zip(points).map(|(handle, (_, node))| item(handle, node)).collect();
    for (items, points) in items.chunks(per_call).zip(points.chunks(per_call)) {
        let created = link
            .session
            .create_monitored_items(subscription, TimestampsToReturn::Source, items.to_vec())
            .await;
        for (item, (point, node)) in created.map_err(|error| status::call(&error))?.iter().zip(points) {
            let status = item.result.status_code;
            if status.is_bad() {
                let error = status::point(&point.name, &node.to_string(), status, false);
                refused.push((point.name.clone(), error));
            }
        }
    }
    Ok(refused)
}

/// The newest value is enough: a queue of one, whose oldest goes.
fn item(handle: u32, node: &NodeId) -> MonitoredItemCreateRequest {
    let parameters = MonitoringParameters {
        client_handle: handle,
        sampling_interval: AS_PUBLISHED,
        queue_size: 1,
        discard_oldest: true,
        ..MonitoringParameters::default()
    };
    MonitoredItemCreateRequest::new(
        ReadValueId::new_value(node.clone()),
        MonitoringMode::Reporting,
        parameters,
    )
}

/// How long the server may say nothing, by the intervals that it has agreed to.
fn silence(link: &Link, subscription: u32) -> Duration {
    let state = link.session.subscription_state().lock();
    let agreed = state.get(subscription).map(|s| (s.publishing_interval(), s.max_keep_alive_count()));
    let (interval, keep_alives) = agreed.unwrap_or((PUBLISHING, KEEP_ALIVES));
    longest_silence(interval, keep_alives)
}

fn longest_silence(interval: Duration, keep_alives: u32) -> Duration {
    interval.saturating_mul(keep_alives.max(1)).min(LONGEST_KEEP_ALIVE) * SILENCES
}

/// What came and was not yet handed on, the newest value of each point: bounded by the number of points.
#[derive(Default)]
struct Inbox {
    news: Mutex<News>,
    came: Notify,
}

#[derive(Default)]
struct News {
    values: BTreeMap<u32, DataValue>,
    ended: Option<Error>,
}

struct Callback(Arc<Inbox>);

impl OnSubscriptionNotification for Callback {
    fn on_data_value(&mut self, value: DataValue, item: &MonitoredItem) {
        self.0.news.lock().values.insert(item.client_handle(), value);
        self.0.came.notify_one();
    }

    fn on_subscription_status_change(&mut self, change: StatusChangeNotification) {
        if change.status.is_bad() {
            self.0.news.lock().ended = Some(status::of(change.status));
            self.0.came.notify_one();
        }
    }
}

struct Forward {
    points: Vec<(Point<Address>, NodeId)>,
    refused: Vec<(String, Error)>,
    inbox: Arc<Inbox>,
    sink: Sink,
    silence: Duration,
}

/// Hands on what comes until the subscription, the connection or the session ends.
async fn forward(
    Forward { points, refused, inbox, sink, silence }: Forward,
    end: impl Future<Output = Error>,
    mut heard: watch::Receiver<Heard>,
) {
    for (point, error) in refused {
        sink.failed(&point, error).await;
    }
    let mut end = std::pin::pin!(end);
    let mut known = vec![false; points.len()];
    let mut since = Instant::now();
    loop {
        tokio::select! {
            error = &mut end => return sink.lost(error).await,
            () = sleep_until(since + silence) => {
                let why = format!("the server has not spoken of the subscription for {} s", silence.as_secs());
                return sink.lost(Error::Timeout(why)).await;
            }
            Ok(()) = heard.changed() => {
                if *heard.borrow_and_update() == Heard::Nothing {
                    return sink.lost(Error::transient("the server has forgotten the subscription")).await;
                }
                since = Instant::now();
            }
            () = inbox.came.notified() => {
                let News { values, ended } = std::mem::take(&mut *inbox.news.lock());
                for (handle, value) in values {
                    hand_on(&points, handle, &value, &mut known, &sink).await;
                }
                if let Some(error) = ended {
                    return sink.lost(error).await;
                }
            }
        }
    }
}

async fn hand_on(
    points: &[(Point<Address>, NodeId)],
    handle: u32,
    value: &DataValue,
    known: &mut [bool],
    sink: &Sink,
) {
    let place = usize::try_from(handle).unwrap_or_default().wrapping_sub(1);
    let (Some((point, node)), Some(known)) = (points.get(place), known.get_mut(place)) else { return };
    match reading(point, &node.to_string(), value, *known) {
        Ok((value, quality, time)) => {
            *known = true;
            sink.push(&point.name, value, quality, time).await;
        }
        Err(error) => sink.failed(&point.name, error).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_server_makes_us_wait_for_ever() {
        assert_eq!(longest_silence(PUBLISHING, KEEP_ALIVES), Duration::from_secs(20));
        assert_eq!(longest_silence(Duration::MAX, u32::MAX), LONGEST_KEEP_ALIVE * SILENCES);
    }
}
