//! The checks that a cloud asks an edge for: what `kubebus debug check` and `diagnose` do, in a thread of their own.
//!
//! It asks the node by its own console, like anybody on this machine, so that what it finds is what people would. A disk
//! that hangs, or a name server, holds up that thread and nothing else. The node's core lets one run at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::progress::Progress;
use super::{CheckArgs, DiagnoseArgs, check, facts};
use crate::checkup::{Check, LinkView, Report, Told};
use crate::config::Config;
use crate::diagnose::check::{Line, judge};
use crate::diagnose::{Facts, Finding, Link, diagnose};
use crate::io::cli::{AskArgs, Format, Place};

/// How long gathering may take: less than the core waits ([`crate::checkup::asked::LIMIT`]).
const LIMIT: Duration = Duration::from_secs(7);

/// Where the node's files are, and what it runs with.
#[derive(Debug, Clone)]
pub(in crate::io) struct Examiner {
    config: Option<PathBuf>,
    data_dir: PathBuf,
    /// The file may have been changed since.
    running: Arc<Config>,
}

impl Examiner {
    pub(in crate::io) fn new(config: Option<&Path>, data_dir: &Path, running: &Config) -> Self {
        let running = Arc::new(running.clone());
        Self { config: config.map(Path::to_owned), data_dir: data_dir.to_owned(), running }
    }

    /// `None`: the checks could not run. What hangs ends with the process, if not before.
    pub(in crate::io) async fn run(self) -> Option<Report> {
        let (tell, told) = oneshot::channel();
        let work = move || {
            let report = self.look();
            // The node may be gone.
            let _ = tell.send(report);
        };
        std::thread::Builder::new().name("examiner".to_owned()).spawn(work).ok()?;
        told.await.ok().flatten()
    }

    fn look(self) -> Option<Report> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let report = runtime.block_on(self.gather());
        // A lookup that hangs is not waited for.
        runtime.shutdown_background();
        report
    }

    async fn gather(self) -> Option<Report> {
        let Self { config, data_dir, running } = self;
        let place = Place { config, data_dir: Some(data_dir) };
        let ask = AskArgs { place, output: Format::Json };
        let progress = Progress::new();
        let to_find = DiagnoseArgs::of(ask.clone());
        let end = Instant::now() + LIMIT;
        let to_check = CheckArgs { role: None, cloud: None, node: None, ask };
        let found = facts::gather_until(end, &to_find, &running, &progress);
        // A file that makes no sense now is a line of these.
        let checked = timeout(LIMIT, check::measure(&to_check, &progress));
        let (found, checked) = tokio::join!(found, checked);
        let lines = checked.ok().and_then(Result::ok).map(|machine| judge(&machine)).unwrap_or_default();
        Some(report(&found.ok()?, &lines))
    }
}

fn report(facts: &Facts, lines: &[Line]) -> Report {
    let cloud = facts.upstream.as_ref().map(|upstream| upstream.cloud.as_str());
    Report {
        findings: diagnose(facts).into_iter().map(told).collect(),
        checks: lines.iter().map(checked).collect(),
        links: links_of(&facts.links, cloud.unwrap_or_default()),
        up: facts.looked.as_ref().and_then(|looked| looked.up),
        left_out: 0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The links of a node to a peer, as its console told them.
fn links_of(links: &[Link], peer: &str) -> Vec<LinkView> {
    let view = |link: &Link| LinkView {
        lane: link.lane.clone(),
        remote: String::new(),
        rtt_us: (link.rtt_ms * 1000.0) as u64,
        lost_ppm: (link.loss_percent * 10_000.0) as u64,
        mtu: link.mtu,
    };
    links.iter().filter(|link| link.peer == peer).map(view).collect()
}

fn told(finding: Finding) -> Told {
    let Finding { cause, says: _, certainty, node: _, about, evidence, advice } = finding;
    let (cause, certainty) = (cause.as_str().to_owned(), certainty.as_str().to_owned());
    Told { cause, certainty, about, evidence, advice }
}

fn checked(line: &Line) -> Check {
    let Line { check, grade, found, why, advice } = line;
    Check {
        check: (*check).to_owned(),
        grade: grade.as_str().to_owned(),
        found: found.clone(),
        why: (*why).to_owned(),
        advice: advice.clone(),
    }
}
