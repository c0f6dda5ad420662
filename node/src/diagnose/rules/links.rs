//! Links that stand and are bad.

use crate::diagnose::facts::{Facts, Link};
use crate::diagnose::finding::{Cause, Certainty, Finding};

/// Voice breaks up, TCP over a long way falls to a fraction.
const LOSS_PERCENT: f64 = 5.0;

/// Below, packets of 1,280 bytes do not fit in one datagram.
const NARROW_MTU: u64 = 1336;

pub(super) fn links(facts: &Facts) -> Vec<Finding> {
    let lossy = lossy(&facts.links).into_iter();
    let narrow =
        facts.links.iter().filter(|link| link.mtu < NARROW_MTU && link.black_holes > 0).map(|link| {
            Finding::new(
                Cause::NarrowPath,
                &link.peer,
                "raise the MTU on the way; until then packets are carried in two parts",
            )
            .certain(Certainty::Likely)
            .since(format!("{}: of {} bytes, after {} black holes", link.lane, link.mtu, link.black_holes))
        });
    let endpoints = facts.upstream.iter().flat_map(|upstream| &upstream.endpoints);
    let cut_short = endpoints.filter(|endpoint| endpoint.large_passes == Some(false)).map(|endpoint| {
        let advice = "raise the MTU on the way to 1,500, or let ICMP 'too big' pass; until then packets of full length are \
                      carried in two parts";
        Finding::new(Cause::NarrowPath, &endpoint.name, advice)
            .certain(Certainty::Likely)
            .since("UDP packets of 1,200 bytes are answered, and those of 1,400 are not")
    });
    lossy.chain(narrow).chain(cut_short).collect()
}

/// Of what one end sent.
pub(super) fn lossy(links: &[Link]) -> Vec<Finding> {
    let bad = links.iter().filter(|link| link.loss_percent >= LOSS_PERCENT);
    let find = |link: &Link| {
        let advice = "look for a bad line, a bad radio or a full one on the way; 'link.rate' keeps a thin line from being \
                      overrun";
        Finding::new(Cause::LossyLink, &link.peer, advice)
            .certain(Certainty::Possible)
            .since(format!("{}: {} % of the packets were lost", link.lane, link.loss_percent))
    };
    bad.map(find).collect()
}
