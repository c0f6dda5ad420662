//! The ordered list of rules.
//!
//! 1. What the node stands on ([`own`]): its files, its disk, its ports, its certificate.
//! 2. Its process: one that does not run needs no other explanation.
//! 3. The way to the cloud, from this end outwards ([`way`]): name, host, port, the path's width, TLS, membership. Only
//!    while there is no link; an endpoint that works excuses those that do not.
//! 4. What the node says of itself ([`told`]): clock, overlay, broker, edges, devices, policies.
//! 5. Links that stand and are bad ([`links`]), as this end measures them, and the other ([`both`]).
//!
//! Where the other end was asked, what it found comes behind what this node stands on and before what it only heard.

mod both;
mod links;
mod own;
mod told;
mod way;

pub use self::both::{End, ends};
use super::facts::Facts;
use super::finding::Finding;

/// Findings of one rule; of a thousand devices without their mapper ten tell the same as all.
const MOST_OF_A_KIND: usize = 10;

/// A failure that is older says nothing of now: two rounds of the slowest redial.
const RECENT_MS: u64 = 150_000;

type Rule = fn(&Facts) -> Vec<Finding>;

/// What nobody but the node itself can know.
const OWN: [Rule; 9] = [
    own::identity,
    own::disk,
    own::ports,
    own::certificate,
    own::process,
    own::same_identity,
    own::superseded,
    way::endpoints,
    way::own_failures,
];

/// What it heard of others, or shares with them.
const SHARED: [Rule; 11] = [
    told::clock,
    own::renewal,
    told::clash,
    told::broker,
    told::edges,
    both::not_asked,
    told::troubled_edges,
    told::devices,
    told::wishes,
    told::reach,
    links::links,
];

/// What is wrong, the culprit first; empty: nothing that can be seen.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    OWN.iter().for_each(|rule| extend(&mut findings, rule(facts)));
    let own = findings.len();
    SHARED.iter().for_each(|rule| extend(&mut findings, rule(facts)));
    let me = facts.identity.short_name();
    findings.iter_mut().for_each(|finding| finding.node = me.clone());
    let shared = findings.split_off(own);
    findings.extend(both::merged(shared, facts));
    findings
}

fn extend(findings: &mut Vec<Finding>, found: Vec<Finding>) {
    let mut found = capped(found);
    // What was found at one end is no news at the other.
    found.retain(|one| findings.iter().all(|before| before.cause != one.cause));
    findings.append(&mut found);
}

fn capped(mut found: Vec<Finding>) -> Vec<Finding> {
    let more = found.len().saturating_sub(MOST_OF_A_KIND);
    found.truncate(MOST_OF_A_KIND);
    if more > 0
        && let Some(last) = found.last_mut()
    {
        last.evidence.push(format!("and {more} more of the kind"));
    }
    found
}

/// As people say it, to two units.
fn period(ms: u64) -> String {
    let text = humantime::format_duration(std::time::Duration::from_secs(ms / 1000)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
