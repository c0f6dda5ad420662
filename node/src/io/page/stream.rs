//! What a page shows, live: one task a client, that asks the owner loop once a second and sends what is new.
//!
//! | event | data |
//! |---|---|
//! | `hello` | `{"who", "role", "may_set", "version"}`, once |
//! | `devices`, `twins`, `rules`, `fleet` | `{"time", "whole", "rows": {key: row}, "gone": [key], ..}`: [`crate::page`] |
//! | `tick` | `{"time"}`: the node answers, and nothing else may be new |
//!
//! A client begins anew with each connection, so nothing is kept for those that are away.

use std::time::Duration;

use bus::UnixMillis;
use bus::io::Clock;
use bytes::Bytes;
use controller::role::{Asker, Role};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::super::api::{AnswerBody, Desk, Question, Reply, failure, refusal};
use super::assets::guard;
use super::fleet;
use crate::admin::AdminRequest;
use crate::page::{Look, Query, Sent, tables};

/// Pages that are served at a time: screens of a control room and some phones. One more hears 503, and its browser tries
/// again. Each asks the owner loop once a second, for a hundred devices at most, and searches all of them every five.
const MAX_CLIENTS: usize = 16;

/// Answers on their way to one client. There is one: while it waits, nothing else is asked for, and a slow client then
/// gets what is true by that time.
const WAITING: usize = 1;

/// Between two looks at what a page shows.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A page that hears nothing for somewhat longer says that it lost its node.
const TICK_EVERY: Duration = Duration::from_secs(3);

/// A client that takes nothing for so long is gone, though its connection may not know it.
const PATIENCE: Duration = Duration::from_secs(30);

static CLIENTS: Semaphore = Semaphore::const_new(MAX_CLIENTS);

/// Opens a stream for one page.
pub(super) async fn open(desk: &Desk, asker: &Asker, query: &str) -> Response<AnswerBody> {
    let query = match Query::parse(query) {
        Ok(query) => query,
        Err(error) => return failure(&error),
    };
    let Ok(slot) = CLIENTS.try_acquire() else {
        let why = format!("{MAX_CLIENTS} pages are open at this node, the most it serves: close one");
        return refusal(StatusCode::SERVICE_UNAVAILABLE, &why);
    };
    // A replica that waits for its turn says so here: in a stream it could only be silent.
    match desk.forward(Question::Document(AdminRequest::Page(query.clone()))).await {
        Some(Reply::Document(Err(error))) => return failure(&error),
        None => return refusal(StatusCode::SERVICE_UNAVAILABLE, "the node is busy or stopping; try again"),
        Some(_) => {}
    }
    let (pieces, taken) = mpsc::channel(WAITING);
    let client = Client::new(desk.clone(), query);
    start(client.serve(hello(asker), pieces, slot));
    let mut response = Response::new(AnswerBody::Pieces(taken));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy in between passes each event on as it comes.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    guard(headers);
    response
}

#[expect(
    clippy::disallowed_methods,
    reason = "in the table of ARCHITECTURE.md; ends with its client or the owner loop"
)]
fn start(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(tracing::Instrument::instrument(task, tracing::info_span!("task", name = "page")));
}

/// Who looks, and what he may do. The node refuses all else whatever the page shows.
fn hello(asker: &Asker) -> Value {
    json!({
        "who": asker.who.to_string(),
        "role": asker.role.as_str(),
        "may_set": matches!(asker.role, Role::Admin | Role::Operator),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// One page that is open.
struct Client {
    desk: Desk,
    look: Look,
    clock: Clock,
    sent: Sent,
    said: Instant,
}

impl Client {
    fn new(desk: Desk, query: Query) -> Self {
        let (look, clock) = (Look::new(query), Clock::start());
        Self { desk, look, clock, sent: Sent::default(), said: Instant::now() }
    }

    async fn serve(mut self, hello: Value, pieces: mpsc::Sender<Bytes>, _slot: SemaphorePermit<'static>) {
        let mut text = self.sent.event("hello", hello).to_string();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = pieces.closed() => return,
            }
            let Ok(Ok(room)) = timeout(PATIENCE, pieces.reserve()).await else { return };
            self.look(&mut text).await;
            if !text.is_empty() {
                room.send(Bytes::from(std::mem::take(&mut text)));
            }
            if self.desk.ask.is_closed() {
                return;
            }
        }
    }

    /// Adds what is new. Nothing is where the node does not answer, so that the page sees it silent.
    async fn look(&mut self, text: &mut String) {
        let query = self.look.poll_query(self.clock.now().mono);
        let Some(mut shown) = self.ask(AdminRequest::Page(query)).await else { return };
        self.look.handle_answer(&mut shown, self.clock.now().mono);
        let time = UnixMillis(shown["time"].as_u64().unwrap_or_default());
        let before = text.len();
        let wanted = self.look.nodes(&shown);
        let fleet = fleet::newest(&self.desk).await.map(|nodes| nodes.table(&wanted));
        let tables = tables(shown).into_iter().chain(fleet);
        let events = tables.filter_map(|table| self.sent.news(table, time));
        events.for_each(|event| text.push_str(&event.to_string()));
        if text.len() == before && self.said.elapsed() >= TICK_EVERY {
            text.push_str(&self.sent.event("tick", json!({ "time": time })).to_string());
        }
        if text.len() > before {
            self.said = Instant::now();
        }
    }

    async fn ask(&self, request: AdminRequest) -> Option<Value> {
        let reply = self.desk.forward(Question::Document(request)).await;
        if let Some(Reply::Document(Ok(value))) = reply { Some(value) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use controller::api::index::Moved;
    use device_twin::io::recorder::{Limits, Recorder};
    use tokio::sync::watch;

    use super::super::super::api::{Asked, Keeper, Shared};
    use super::super::super::audit;
    use super::super::super::session::Doorkeeper;
    use super::*;

    /// Answers that something is new each time it is asked, and counts how often that is.
    async fn busy_owner(mut asked: mpsc::Receiver<Asked>, count: Arc<AtomicU64>) {
        while let Some(Asked { question, reply }) = asked.recv().await {
            let answer = match question {
                Question::Document(AdminRequest::Page(_)) => {
                    let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                    let device =
                        json!({ "device": "a/b", "properties": [{ "property": "p", "number": number }] });
                    Reply::Document(Ok(json!({ "time": number, "devices": [device], "rules": [] })))
                }
                // As from a replica that waits for its turn.
                Question::Document(_)
                | Question::Order { .. }
                | Question::Backup
                | Question::Api(_)
                | Question::Alive
                | Question::Fleet => Reply::Document(Ok(Value::Null)),
            };
            let _ = reply.send(answer);
        }
    }

    fn number(piece: &Bytes) -> u64 {
        let text = String::from_utf8_lossy(piece);
        let (_, after) = text.rsplit_once("\"number\":").unwrap();
        after.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    }

    fn desk(ask: mpsc::Sender<Asked>, records: &Path) -> (Desk, Recorder) {
        let recorder = Recorder::start(records, Limits::default()).unwrap();
        let clock = Clock::start();
        let (doorkeeper, _) = Doorkeeper::new(clock);
        let audit = audit::start(&records.join("access"), clock).unwrap();
        let (_, moved) = watch::channel(Moved::default());
        let recording = recorder.handle().clone();
        (
            Desk {
                ask,
                data_dir: records.into(),
                recorder: recording,
                history: Keeper::Recorder,
                doorkeeper,
                moved,
                audit,
                shared: Shared::default(),
            },
            recorder,
        )
    }

    #[test]
    fn a_slow_client_gets_what_is_true_and_no_queue_of_what_was() {
        static SLOT: Semaphore = Semaphore::const_new(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let room = tempfile::tempdir().unwrap();
            let (ask, asked) = mpsc::channel(1);
            let (desk, _recorder) = desk(ask, room.path());
            let count = Arc::new(AtomicU64::new(0));
            let (pieces, mut taken) = mpsc::channel::<Bytes>(WAITING);
            let query = Query::parse("q=").unwrap();
            let client = Client::new(desk, query);
            let sleeps = async {
                tokio::time::sleep(LOOK_EVERY * 5 / 2).await;
                assert_eq!(count.load(Ordering::Relaxed), 1, "nothing is asked for while an answer waits");
                let first = taken.recv().await.unwrap();
                assert!(first.starts_with(b"id: 1\nevent: hello\n"), "{first:?}");
                assert_eq!(number(&first), 1);
                let second = taken.recv().await.unwrap();
                assert_eq!(number(&second), count.load(Ordering::Relaxed), "what is true by now");
                // A client that hangs up ends its task.
                drop(taken);
            };
            let served = client.serve(json!({}), pieces, SLOT.try_acquire().unwrap());
            tokio::select! {
                ((), ()) = async { tokio::join!(sleeps, served) } => {}
                () = busy_owner(asked, Arc::clone(&count)) => panic!("the owner is asked no more"),
            }
        });
    }
}
