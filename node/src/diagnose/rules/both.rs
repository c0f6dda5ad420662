//! The two ends of a link together: what the other one found, and how both see the link.

use serde::Serialize;

use super::super::facts::{Facts, Link};
use super::super::finding::{Cause, Certainty, Finding};
use super::links::lossy;
use crate::checkup::{Examined, LinkView, Outcome, Told, Way};

/// A cloud asked an edge in vain. One that is away has a finding already.
pub(super) fn not_asked(facts: &Facts) -> Vec<Finding> {
    let Some(Examined { node, outcome, .. }) = facts.far.as_deref() else { return Vec::new() };
    let there = "run 'kubebus debug diagnose' on that machine";
    let silent = |why: &str| {
        let advice = format!(
            "the process there hangs, or the line is full: look at its log, its disk and its load; {there}, which works \
             while the node hangs"
        );
        vec![Finding::new(Cause::EdgeSilent, node, advice).certain(Certainty::Likely).since(why)]
    };
    let unasked = |why: String, advice: &str| {
        vec![
            Finding::new(Cause::EdgeNotAsked, node, advice)
                .since(why)
                .since("what follows is what the cloud sees alone"),
        ]
    };
    match outcome {
        Outcome::Answered(_) | Outcome::NotConnected => Vec::new(),
        Outcome::Silent => silent("it was asked to look at itself, and did not answer within 11 s"),
        Outcome::LinkEnded => silent("its link ended while it was asked to look at itself"),
        Outcome::Cannot => {
            let why = "it runs a version from before an edge could be asked".to_owned();
            unasked(why, &format!("{there}, or upgrade it"))
        }
        Outcome::Refused(why) => unasked(why.to_string(), &format!("ask again in a few seconds; or {there}")),
        Outcome::Full => {
            let why = "this cloud asks as many edges as it may at a time".to_owned();
            unasked(why, &format!("ask again in a few seconds; or {there}"))
        }
    }
}

/// What the other end found, before what this one only heard. What both say is one finding, with the words of both.
pub(super) fn merged(near: Vec<Finding>, facts: &Facts) -> Vec<Finding> {
    let (mut findings, mut near) = (far(facts), near);
    near.extend(seen_loss(facts));
    for finding in near {
        match findings.iter_mut().find(|far| is_same(far, &finding)) {
            Some(far) => {
                let by = finding.node.as_deref().unwrap_or("this end");
                far.evidence.extend(finding.evidence.iter().map(|line| format!("{by}: {line}")));
            }
            None => findings.push(finding),
        }
    }
    findings
}

/// Of a link there are two ends, and of two clocks one difference; a disk that its edge names is named.
fn is_same(far: &Finding, near: &Finding) -> bool {
    if far.node == near.node {
        return false;
    }
    let is_shared = [Cause::ClockSkew, Cause::LossyLink, Cause::NarrowPath].contains(&near.cause);
    let names_the_disk = near.cause == Cause::EdgeTrouble && far.cause == Cause::DiskFull;
    names_the_disk || (far.cause == near.cause && (is_shared || far.about == near.about))
}

fn far(facts: &Facts) -> Vec<Finding> {
    let Some(Examined { node, outcome: Outcome::Answered(report), .. }) = facts.far.as_deref() else {
        return Vec::new();
    };
    report.findings.iter().map(|told| finding(node, told)).collect()
}

fn finding(node: &str, told: &Told) -> Finding {
    let Told { cause, certainty, about, evidence, advice } = told;
    let known = Cause::of(cause);
    let unknown = known.is_none().then(|| format!("it calls it '{cause}', which is of a later version"));
    Finding {
        node: Some(node.to_owned()),
        evidence: evidence.iter().cloned().chain(unknown).collect(),
        ..Finding::new(known.unwrap_or(Cause::EdgeTrouble), about, advice).certain(Certainty::of(certainty))
    }
}

/// At an edge: what is lost on the way down only the cloud can count.
fn seen_loss(facts: &Facts) -> Vec<Finding> {
    let (Some(looked), Some(upstream)) = (&facts.looked, &facts.upstream) else { return Vec::new() };
    let seen = looked.seen.iter().filter(|_| upstream.connected == Some(true)).flat_map(|seen| &seen.links);
    let links: Vec<Link> = seen.map(|view| link(&upstream.cloud, view)).collect();
    let found = lossy(&links);
    let by = |finding: Finding| Finding { node: Some(upstream.cloud.clone()), ..finding };
    found.into_iter().map(by).collect()
}

fn link(peer: &str, view: &LinkView) -> Link {
    let LinkView { lane, remote: _, rtt_us, lost_ppm, mtu } = view;
    Link {
        peer: peer.to_owned(),
        lane: lane.clone(),
        rtt_ms: *rtt_us as f64 / 1000.0,
        loss_percent: *lost_ppm as f64 / 10_000.0,
        mtu: *mtu,
        black_holes: 0,
    }
}

/// One lane of a link, from one of its ends.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct End {
    /// Who measured it: what he sent was lost, or not.
    pub from: String,
    pub lane: String,
    pub rtt_ms: f64,
    pub loss_percent: f64,
    pub mtu: u64,
    /// A message of the bus, there and back, over the bus lane.
    pub message_ms: Option<f64>,
    /// At which 8 KiB went.
    pub kbit_per_s: Option<u64>,
}

/// The link between a cloud and an edge from both ends, where the other one was heard.
pub fn ends(facts: &Facts) -> Vec<End> {
    let Some(me) = facts.identity.short_name() else { return Vec::new() };
    let heard = match (&facts.far, &facts.looked, &facts.upstream) {
        (Some(examined), ..) => match &examined.outcome {
            Outcome::Answered(report) => {
                Some((examined.node.clone(), &report.links, examined.down, report.up))
            }
            Outcome::NotConnected
            | Outcome::Cannot
            | Outcome::Silent
            | Outcome::LinkEnded
            | Outcome::Refused(_)
            | Outcome::Full => None,
        },
        (None, Some(looked), Some(upstream)) if upstream.connected == Some(true) => {
            let seen = looked.seen.as_ref();
            seen.map(|seen| (upstream.cloud.clone(), &seen.links, looked.up, None))
        }
        (None, ..) => None,
    };
    let Some((peer, views, near, far)) = heard else { return Vec::new() };
    let ours = facts.links.iter().filter(|link| link.peer == peer).map(|link| end(&me, link, near));
    let theirs = views.iter().map(|view| end(&peer, &link(&me, view), far));
    ours.chain(theirs).collect()
}

fn end(from: &str, link: &Link, way: Option<Way>) -> End {
    let way = way.filter(|_| link.lane == "bus");
    End {
        from: from.to_owned(),
        lane: link.lane.clone(),
        rtt_ms: link.rtt_ms,
        loss_percent: link.loss_percent,
        mtu: link.mtu,
        message_ms: way.map(|way| way.rtt_us as f64 / 1000.0),
        kbit_per_s: way.and_then(|way| Some(way.bytes_per_s?.saturating_mul(8) / 1000)),
    }
}
