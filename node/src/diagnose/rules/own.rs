//! What the node stands on: its files, its disk, its ports, its certificate, its process, its name.

use bus::RENEWABLE_FOR;

use super::{RECENT_MS, period};
use crate::diagnose::facts::{Facts, Node, Role, Taken};
use crate::diagnose::fault::{Failure, LinkFault};
use crate::diagnose::finding::{Cause, Certainty, Finding};

pub(super) fn identity(facts: &Facts) -> Vec<Finding> {
    let identity = &facts.identity;
    if let Some(problem) = &identity.problem {
        let advice =
            "restore the directory from a backup ('kubebus cloud restore'), or join again into an empty one";
        return vec![Finding::new(Cause::DataDir, &identity.data_dir, advice).since(problem)];
    }
    if identity.role.is_some() {
        return Vec::new();
    }
    let advice = "join with 'kubebus join <cloud> --token <token>', or name the node's --data-dir";
    let told = format!("{} holds no identity", identity.data_dir);
    vec![Finding::new(Cause::NotJoined, &identity.data_dir, advice).since(told)]
}

/// A store needs this much to write its next commit, and logs beside it.
const LEAST_FREE: u64 = 4 << 20;

pub(super) fn disk(facts: &Facts) -> Vec<Finding> {
    let dir = &facts.identity.data_dir;
    let advice = format!(
        "make room on the file system of {dir} ('df -h {dir}'), or replace a disk that fails; the node goes on by itself"
    );
    let found = |evidence: String| vec![Finding::new(Cause::DiskFull, dir, advice.clone()).since(evidence)];
    match (&facts.disk.refuses, facts.disk.free_bytes) {
        (Some(why), _) => found(why.clone()),
        (None, Some(free)) if free < LEAST_FREE => found(format!("{free} bytes are free")),
        (None, _) => Vec::new(),
    }
}

pub(super) fn ports(facts: &Facts) -> Vec<Finding> {
    let find = |taken: &Taken| {
        let by = taken.by.as_deref().unwrap_or("a program that only root can see");
        let advice = format!("stop {by}, or give {} another address in the configuration", taken.key);
        let told = format!("{} ({}) is in use by {by}", taken.address, taken.key);
        Finding::new(Cause::PortTaken, &taken.address, advice).since(told)
    };
    facts.taken.iter().map(find).collect()
}

pub(super) fn certificate(facts: &Facts) -> Vec<Finding> {
    let Some(own) = &facts.certificate else { return Vec::new() };
    let about = facts.identity.name.as_deref().unwrap_or_default();
    let found = |cause, advice: &str, told: String| vec![Finding::new(cause, about, advice).since(told)];
    if let Some(problem) = &own.problem {
        let advice = "join again into an empty data directory, with a new token";
        return found(Cause::CertificateUnusable, advice, problem.clone());
    }
    if facts.now_ms < own.not_before_ms {
        let told = format!("it begins {} from now", period(own.not_before_ms - facts.now_ms));
        return found(Cause::CertificateNotYetValid, "set this machine's clock ('timedatectl')", told);
    }
    if facts.now_ms > own.not_after_ms {
        let over_for = facts.now_ms - own.not_after_ms;
        let told = format!("it ended {} ago", period(over_for));
        let advice = if u128::from(over_for) > RENEWABLE_FOR.as_millis() { JOIN_AGAIN } else { RENEWS };
        let found = found(Cause::CertificateExpired, advice, told).into_iter();
        return found.map(|one| own.not_renewed.iter().cloned().fold(one, Finding::since)).collect();
    }
    Vec::new()
}

/// For a certificate that no cloud renews any more.
pub(super) const JOIN_AGAIN: &str = "if the clock is right ('timedatectl'): join again with a token of 'kubebus token create', then \
                                restart the node; the data directory and what is in it stay";

/// For one that a cloud still renews.
pub(super) const RENEWS: &str = "wait: the node renews it by itself as soon as it reaches its cloud, for 90 days after its end; the \
                      site works meanwhile";

/// Of a certificate that still holds: nobody is cut off yet.
pub(super) fn renewal(facts: &Facts) -> Vec<Finding> {
    let failed = facts.certificate.as_ref().and_then(|own| own.not_renewed.as_ref());
    let Some(why) = failed else { return Vec::new() };
    let about = facts.identity.name.as_deref().unwrap_or_default();
    let advice = "the node tries again by itself; if the cloud refuses, its log says why";
    vec![Finding::new(Cause::CertificateNotRenewed, about, advice).since(why)]
}

pub(super) fn process(facts: &Facts) -> Vec<Finding> {
    let dir = &facts.identity.data_dir;
    let Some(role) = facts.identity.role else { return Vec::new() };
    let command = match role {
        Role::Cloud => "kubebus cloud",
        Role::Edge => "kubebus edge",
    };
    match &facts.node {
        Node::Answers if facts.unanswered.is_empty() => Vec::new(),
        Node::Answers => {
            let advice = "ask again; if that repeats, look at its log and at the disk: 'kubebus debug collect' keeps what is known";
            let finding = Finding::new(Cause::NodeHangs, dir, advice).certain(Certainty::Likely);
            vec![facts.unanswered.iter().cloned().fold(finding, Finding::since)]
        }
        Node::NotRunning => {
            let advice = format!("start it with '{command}', and read what it says if it ends");
            let told = format!("nobody answers at {dir}/admin.sock");
            vec![Finding::new(Cause::NodeDown, dir, advice).since(told)]
        }
        Node::Hangs(why) => {
            let advice = "look at its log and at the disk; 'kubebus debug collect' keeps what is known, then restart it";
            vec![Finding::new(Cause::NodeHangs, dir, advice).since(why)]
        }
        Node::Forbidden(why) => {
            vec![
                Finding::new(Cause::NodeForbidden, dir, "run this as the user that runs the node").since(why),
            ]
        }
    }
}

/// Two nodes of one name take the link from each other, so whether it stands at this moment does not matter.
pub(super) fn same_identity(facts: &Facts) -> Vec<Finding> {
    let Some(upstream) = &facts.upstream else { return Vec::new() };
    let is_it = |failure: &&Failure| {
        failure.fault == LinkFault::Replaced && facts.now_ms.saturating_sub(failure.time) < RECENT_MS
    };
    let replaced: Vec<_> = upstream.failures.iter().filter(is_it).collect();
    let times: u32 = replaced.iter().map(|failure| failure.times).sum();
    if times < 2 {
        return Vec::new();
    }
    vec![same_name(
        facts,
        format!("the cloud gave this node's link to a newer one of the same name, {times} times"),
    )]
}

pub(super) fn same_name(facts: &Facts, told: String) -> Finding {
    let about = facts.identity.name.as_deref().unwrap_or_default();
    let advice = "find the other machine that has a copy of this data directory and stop it, then join it under a name of \
                  its own";
    Finding::new(Cause::SameIdentity, about, advice).since(told)
}

pub(super) fn superseded(facts: &Facts) -> Vec<Finding> {
    let Some(epoch) = facts.superseded_by else { return Vec::new() };
    let about = facts.identity.name.as_deref().unwrap_or_default();
    let told = format!("edges follow a cloud of epoch {epoch}, which was restored from this one's backup");
    vec![
        Finding::new(Cause::OutdatedCloud, about, "stop this cloud for good: the other one has taken over")
            .since(told),
    ]
}
