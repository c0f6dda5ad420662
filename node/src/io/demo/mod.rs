//! `kubebus demo`: a small internet, one cloud, two sites behind NAT, a water utility on top.
//!
//! The nodes are processes of this same binary, started and asked with the same commands that the narration prints.
//! `stage` builds machines and networks, `cluster` and `cast` hold the processes, `plant` is the physical world,
//! `app` two MQTT clients, `page` the socket that the web page is served at, `matrix` probes the overlay, `story` is what happens, `report` what is said.

mod app;
mod cast;
mod cluster;
mod kills;
mod matrix;
mod page;
mod plant;
mod report;
mod stage;
mod story;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use self::page::Doorstep;
use self::report::Narrator;
use self::stage::Stage;
use self::story::Story;
use super::cli::DemoArgs;
use super::exit::Exit;

/// What the demo is without flags.
pub fn default_args() -> DemoArgs {
    DemoArgs { duration: None, check: false, keep: None, kills: 0, no_packets: false, calm: false, page: 0 }
}

/// Set by the first signal; looked at between two steps of the story.
static STOP: AtomicBool = AtomicBool::new(false);

/// Whether Ctrl-C was pressed.
fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Runs the demo to its end.
pub fn run(args: &DemoArgs) -> Result<Exit> {
    let narrator = Narrator::start();
    narrator.print("KubeBus demo: one cloud, two sites behind NAT, a water utility. Ctrl-C ends it.");
    let doorstep = Doorstep::open(args.page)?;
    let stage = build_stage(args, &narrator)?;
    catch_signals()?;
    let room = Room::open(args.keep.as_deref())?;
    narrator.say(format_args!("files of the nodes, with their logs: {}", room.path.display()));
    let mut story = Story::open(stage, &room.path, narrator, doorstep)?;
    let report = story.tell(args)?;
    if args.duration.is_none() && args.kills == 0 && !stopped() {
        story.stay()?;
    }
    story.close();
    story.narrator().print(format_args!("\n{report}"));
    let bad = args.check && !report.all_held();
    Ok(if bad { Exit::CheckFailed } else { Exit::Ok })
}

/// Whether this machine lets us have networks of our own: exit code 0 if so. A process of its own, since a try that
/// fails half-way leaves it without its user.
pub fn probe() -> Result<Exit> {
    lab::io::enter_user_namespace()?;
    router::io::Tun::open("probe0", 1280)?;
    Ok(Exit::Ok)
}

fn build_stage(args: &DemoArgs, narrator: &Narrator) -> Result<Option<Stage>> {
    if args.no_packets {
        narrator.print("Without packets, as asked: the nodes run on loopback.");
        return Ok(None);
    }
    let mut probing = cast::kubebus(&["demo-probe"])?;
    let probed = probing.stdout(Stdio::null()).output().context("look what this machine allows")?;
    if !probed.status.success() {
        let why = String::from_utf8_lossy(&probed.stderr);
        narrator.print(format_args!("{}", why.trim().trim_start_matches("kubebus: ")));
        narrator.print("So this runs on loopback: twins, rules and messages, but no NATs and no packets.");
        return Ok(None);
    }
    lab::io::enter_user_namespace()?;
    let seed = u64::from(std::process::id());
    Ok(Some(Stage::build(seed)?))
}

/// The first SIGINT or SIGTERM ends the story in order, the second at once: a thread waits for them.
fn catch_signals() -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("listen for signals")?;
    let mut shutdown = {
        let _guard = runtime.enter();
        super::shutdown::Shutdown::listen().context("listen for signals")?
    };
    let wait = move || {
        runtime.block_on(async {
            shutdown.requested().await;
            STOP.store(true, Ordering::Relaxed);
            // Keeps the runtime, and with it the wait for the second signal.
            std::future::pending::<()>().await;
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).context("listen for signals")?;
    Ok(())
}

/// Sleeps, but not through a signal.
fn pause(time: Duration) {
    let step = Duration::from_millis(50);
    let mut left = time;
    while !stopped() && !left.is_zero() {
        let now = left.min(step);
        std::thread::sleep(now);
        left -= now;
    }
}

/// The directory of the demo's files.
struct Room {
    path: PathBuf,
    is_ours: bool,
}

impl Room {
    fn open(keep: Option<&Path>) -> Result<Self> {
        let (path, is_ours) = match keep {
            Some(dir) => (dir.to_owned(), false),
            // Short, because a Unix socket's path has 108 bytes.
            None => (std::env::temp_dir().join(format!("kubebus-demo-{}", std::process::id())), true),
        };
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path: path.canonicalize().with_context(|| path.display().to_string())?, is_ours })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
