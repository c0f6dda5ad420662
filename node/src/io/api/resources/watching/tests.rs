use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bus::io::Clock;
use controller::api::call::{Form, Include};
use controller::api::index::Moved;
use controller::api::list::Lister;
use controller::api::read::{Read, Source};
use controller::api::selector::Selectors;
use controller::api::{Index, Layout};
use device_twin::io::recorder::{Limits, Recorder};
use metadata::{Key, Keyspace, Revision};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::super::super::audit;
use super::super::super::super::session::Doorkeeper;
use super::super::super::{Asked, Keeper, Question, Reply, Shared};
use super::super::now;
use super::*;
use crate::resources::{ApiAnswer, ApiRequest};

/// A store that answers as the owner loop does, and counts how often it is asked what is new.
struct Store {
    inner: Mutex<(Keyspace, Index)>,
    asked: AtomicUsize,
}

impl Store {
    fn new(devices: usize) -> Arc<Self> {
        let mut ks = Keyspace::new();
        (0..devices).for_each(|n| ks.put(key(n), manifest(0)));
        ks.seal();
        let index = Index::load(Layout::Cloud, &ks);
        Arc::new(Self { inner: Mutex::new((ks, index)), asked: AtomicUsize::new(0) })
    }

    /// Changes devices in one commit.
    fn change(&self, devices: std::ops::Range<usize>, to: u64, moved: &watch::Sender<Moved>) {
        let mut inner = self.inner.lock().unwrap();
        let (ks, index) = &mut *inner;
        devices.for_each(|n| ks.put(key(n), manifest(to)));
        index.before_seal(ks);
        ks.seal();
        index.after_seal(ks);
        let newest = index.moved(ks.revision(), ks);
        moved.send_replace(newest);
    }

    fn read(&self, read: &Read) -> Found {
        if let Read::Changes { .. } = read {
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
        let inner = self.inner.lock().unwrap();
        let (ks, index) = &*inner;
        let durable = ks.revision();
        Source { index, ks, durable, twins: &|_| Vec::new(), placement: &|_, _| None, alive: &|_, _, _| {} }
            .read(read)
    }

    async fn serve(self: Arc<Self>, mut asked: mpsc::Receiver<Asked>) {
        while let Some(Asked { question, reply }) = asked.recv().await {
            let Question::Api(ApiRequest::Read(read)) = question else { panic!("{question:?}") };
            let _ = reply.send(Reply::Api(ApiAnswer::Found(self.read(&read))));
        }
    }
}

fn key(n: usize) -> Key {
    Key::new(&format!("/c/resource/device/plant/d{n:05}")).unwrap()
}

fn manifest(change: u64) -> Bytes {
    Bytes::from(format!(r#"{{"metadata":{{"labels":{{}}}},"spec":{{"nodeName":"a","change":{change}}}}}"#))
}

fn of(version: Option<u64>) -> Listing {
    let (selectors, version) = (Selectors::default(), version.map(Revision));
    Listing { namespace: None, selectors, limit: None, proceed: None, version }
}

struct Room {
    desk: Desk,
    moved: watch::Sender<Moved>,
    store: Arc<Store>,
    tasks: JoinSet<()>,
    _recorder: Recorder,
    _dir: tempfile::TempDir,
}

impl Room {
    fn new(devices: usize) -> Self {
        let (dir, store) = (tempfile::tempdir().unwrap(), Store::new(devices));
        let recorder = Recorder::start(dir.path(), Limits::default()).unwrap();
        let clock = Clock::start();
        let (doorkeeper, _) = Doorkeeper::new(clock);
        let (ask, asked) = mpsc::channel(4);
        let (moved, watched) = watch::channel(Moved::default());
        let desk = Desk {
            ask,
            data_dir: dir.path().into(),
            recorder: recorder.handle().clone(),
            history: Keeper::Recorder,
            doorkeeper,
            moved: watched,
            audit: audit::start(&dir.path().join("access"), clock).unwrap(),
            shared: Shared::default(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&store).serve(asked));
        store.change(0..0, 0, &moved);
        Self { desk, moved, store, tasks, _recorder: recorder, _dir: dir }
    }

    /// A watch from a version on, or of all that is there.
    fn task(&self, version: Option<u64>, patience: Duration) -> (Task, mpsc::Receiver<Bytes>) {
        let (pieces, answer) = mpsc::channel(PIECES);
        let watcher = Watcher::new(Kind::Device, of(version), Look::whole(Form::Object));
        let watch = Watch { bookmarks: false, initial: false, timeout: Duration::from_secs(600) };
        let desk = self.desk.clone();
        (Task { desk, kind: Kind::Device, watcher, watch, pieces, patience }, answer)
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(60), test).await.expect("the test hangs") });
}

fn events(piece: &Bytes) -> usize {
    piece.split(|byte| *byte == b'\n').filter(|line| line.starts_with(br#"{"type":""#)).count()
}

#[test]
fn a_watch_whose_client_takes_nothing_ends() {
    run(async {
        let room = Room::new(1500);
        let (task, mut unread) = room.task(None, Duration::from_millis(300));
        assert!(task.run().await.is_err());
        // What was sent before is all that waited for it.
        let mut taken = 0;
        while let Some(piece) = unread.recv().await {
            taken += events(&piece);
        }
        assert_eq!(taken, PIECES * controller::api::read::PAGE);
    });
}

#[test]
fn of_a_hundred_watches_one_question_is_asked() {
    run(async {
        const WATCHES: usize = 100;
        let mut room = Room::new(300);
        // As at a node's start, before it has written anything.
        room.moved.send_replace(Moved::default());
        let mut answers = Vec::new();
        for _ in 0..WATCHES {
            let (task, answer) = room.task(Some(1), Duration::from_secs(30));
            room.tasks.spawn(async move { drop(task.run().await) });
            answers.push(answer);
        }
        // Each looks once whether its version is too old.
        while room.store.asked.load(Ordering::Relaxed) < WATCHES {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let before = room.store.asked.load(Ordering::Relaxed);
        room.store.change(0..200, 1, &room.moved);
        for answer in &mut answers {
            let mut seen = 0;
            while seen < 200 {
                seen += events(&answer.recv().await.expect("the watch goes on"));
            }
            assert_eq!(seen, 200);
        }
        let asked = room.store.asked.load(Ordering::Relaxed) - before;
        assert_eq!(asked, 1, "by the feed, for all of them");
        drop(answers);
        // With the last watch the feed ends, and the next one gets another.
        let (task, mut answer) = room.task(Some(2), Duration::from_secs(30));
        room.tasks.spawn(async move { drop(task.run().await) });
        room.store.change(7..8, 2, &room.moved);
        assert_eq!(events(&answer.recv().await.expect("the watch goes on")), 1);
    });
}

#[test]
fn a_watch_that_fell_behind_its_feed_asks_for_itself_and_misses_nothing() {
    run(async {
        let mut room = Room::new(3000);
        let (fast, mut answer) = room.task(Some(1), Duration::from_secs(30));
        let (slow, mut unread) = room.task(Some(1), Duration::from_secs(30));
        room.tasks.spawn(async move { drop(fast.run().await) });
        room.tasks.spawn(async move { drop(slow.run().await) });
        for change in 1..=3 {
            room.store.change(0..3000, change, &room.moved);
            let mut seen = 0;
            while seen < 3000 {
                seen += events(&answer.recv().await.expect("the watch goes on"));
            }
        }
        let last = r#""change":3"#.to_owned();
        let mut newest = std::collections::BTreeSet::new();
        while newest.len() < 3000 {
            let piece = unread.recv().await.expect("the watch goes on");
            let text = String::from_utf8(piece.to_vec()).unwrap();
            let of_last = text.lines().filter(|line| line.contains(&last));
            newest.extend(of_last.map(|line| line.split(r#""name":""#).nth(1).unwrap()[..6].to_owned()));
        }
    });
}

/// CPU time of this process, in ticks of 10 ms.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Figures for people: a hundred watches of a hundred devices that change ten times, with one feed and with one each.
#[test]
#[ignore = "prints figures"]
fn figures_of_a_hundred_watches() {
    for shares in [false, true] {
        run(async {
            let mut room = Room::new(100);
            let mut answers = Vec::new();
            for _ in 0..100 {
                let (mut task, answer) = room.task(Some(1), Duration::from_secs(30));
                if !shares {
                    task.desk.shared = Shared::default();
                }
                room.tasks.spawn(async move { drop(task.run().await) });
                answers.push(answer);
            }
            while room.store.asked.load(Ordering::Relaxed) < 100 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (before, asked) = (cpu(), room.store.asked.load(Ordering::Relaxed));
            for change in 1..=10 {
                room.store.change(0..100, change, &room.moved);
                for answer in &mut answers {
                    let mut seen = 0;
                    while seen < 100 {
                        seen += events(&answer.recv().await.expect("the watch goes on"));
                    }
                }
            }
            let (took, asked) = (10 * (cpu() - before), room.store.asked.load(Ordering::Relaxed) - asked);
            println!("one feed for all: {shares}: {took} ms of CPU, {asked} questions to the owner loop");
        });
    }
}

/// Figures for people: what ten thousand devices take to read and to render.
#[test]
#[ignore = "prints figures"]
fn figures_of_ten_thousand_devices() {
    let store = Store::new(10_000);
    for form in [Form::Table(Include::Metadata), Form::Object] {
        let (mut lister, mut bytes) = (Lister::new(Kind::Device, of(None), Look::whole(form), now()), 0);
        let (mut reading, mut rendering) = (Duration::ZERO, Duration::ZERO);
        while !lister.is_done() {
            let start = Instant::now();
            let Found::Page(page) = store.read(&lister.wants()) else { panic!("a page") };
            reading += start.elapsed();
            let start = Instant::now();
            bytes += lister.handle_page(page).write().len();
            rendering += start.elapsed();
        }
        println!("{form:?}: read in {reading:?}, rendered in {rendering:?}, {bytes} bytes");
    }
}
