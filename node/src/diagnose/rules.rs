//! The ordered list of rules.
//!
//! 1. What the node stands on: its files, its disk, its ports, its certificate.
//! 2. Its process: one that does not run needs no other explanation.
//! 3. The way to the cloud, from this end outwards: name, host, port, the path's width, TLS, membership. Only while there
//!    is no link; an endpoint that works excuses those that do not.
//! 4. What the node says of itself: clock, overlay, broker, edges, devices, policies.
//! 5. Links that stand and are bad.

use bus::RENEWABLE_FOR;

use super::facts::{Endpoint, Facts, Lookup, Node, Role, Udp, Upstream};
use super::fault::LinkFault;
use super::finding::{Cause, Certainty, Finding};

/// Findings of one rule; of a thousand devices without their mapper ten tell the same as all.
const MOST_OF_A_KIND: usize = 10;

/// A failure that is older says nothing of now: two rounds of the slowest redial.
const RECENT_MS: u64 = 150_000;

/// From here on rules by the hour, certificates and logs are visibly off.
const SKEW_MS: u64 = 10_000;

/// Voice breaks up, TCP over a long way falls to a fraction.
const LOSS_PERCENT: f64 = 5.0;

/// Below, packets of 1,280 bytes do not fit in one datagram.
const NARROW_MTU: u64 = 1336;

/// What is wrong, the culprit first; empty: nothing that can be seen.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    const RULES: [fn(&Facts) -> Vec<Finding>; 19] = [
        identity,
        disk,
        ports,
        certificate,
        process,
        same_identity,
        superseded,
        endpoints,
        own_failures,
        clock,
        renewal,
        clash,
        broker,
        edges,
        troubled_edges,
        devices,
        wishes,
        reach,
        links,
    ];
    let mut findings: Vec<Finding> = Vec::new();
    for rule in RULES {
        let mut found = capped(rule(facts));
        // What was found at one end is no news at the other.
        found.retain(|one| findings.iter().all(|before| before.cause != one.cause));
        findings.append(&mut found);
    }
    findings
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

fn identity(facts: &Facts) -> Vec<Finding> {
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

fn disk(facts: &Facts) -> Vec<Finding> {
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

fn ports(facts: &Facts) -> Vec<Finding> {
    let find = |taken: &super::Taken| {
        let by = taken.by.as_deref().unwrap_or("a program that only root can see");
        let advice = format!("stop {by}, or give {} another address in the configuration", taken.key);
        let told = format!("{} ({}) is in use by {by}", taken.address, taken.key);
        Finding::new(Cause::PortTaken, &taken.address, advice).since(told)
    };
    facts.taken.iter().map(find).collect()
}

fn certificate(facts: &Facts) -> Vec<Finding> {
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
const JOIN_AGAIN: &str = "if the clock is right ('timedatectl'): join again with a token of 'kubebus token create'; the data \
                          directory and what is in it stay";

/// For one that a cloud still renews.
const RENEWS: &str = "wait: the node renews it by itself as soon as it reaches its cloud, for 90 days after its end; the \
                      site works meanwhile";

/// Of a certificate that still holds: nobody is cut off yet.
fn renewal(facts: &Facts) -> Vec<Finding> {
    let failed = facts.certificate.as_ref().and_then(|own| own.not_renewed.as_ref());
    let Some(why) = failed else { return Vec::new() };
    let about = facts.identity.name.as_deref().unwrap_or_default();
    let advice = "the node tries again by itself; if the cloud refuses, its log says why";
    vec![Finding::new(Cause::CertificateNotRenewed, about, advice).since(why)]
}

fn process(facts: &Facts) -> Vec<Finding> {
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
fn same_identity(facts: &Facts) -> Vec<Finding> {
    let Some(upstream) = &facts.upstream else { return Vec::new() };
    let is_it = |failure: &&super::Failure| {
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

fn same_name(facts: &Facts, told: String) -> Finding {
    let about = facts.identity.name.as_deref().unwrap_or_default();
    let advice = "find the other machine that has a copy of this data directory and stop it, then join it under a name of \
                  its own";
    Finding::new(Cause::SameIdentity, about, advice).since(told)
}

fn superseded(facts: &Facts) -> Vec<Finding> {
    let Some(epoch) = facts.superseded_by else { return Vec::new() };
    let about = facts.identity.name.as_deref().unwrap_or_default();
    let told = format!("edges follow a cloud of epoch {epoch}, which was restored from this one's backup");
    vec![
        Finding::new(Cause::OutdatedCloud, about, "stop this cloud for good: the other one has taken over")
            .since(told),
    ]
}

fn endpoints(facts: &Facts) -> Vec<Finding> {
    let Some(upstream) = &facts.upstream else { return Vec::new() };
    if upstream.connected == Some(true) {
        return hardly_connected(upstream);
    }
    let is_fit = |endpoint: &Endpoint| endpoint.handshake == Some(Ok(()));
    if upstream.endpoints.iter().any(is_fit) {
        return Vec::new();
    }
    upstream.endpoints.iter().filter_map(|endpoint| knocked(endpoint, facts)).collect()
}

/// The host refuses what the link is to live on: the link has not noticed yet.
fn hardly_connected(upstream: &Upstream) -> Vec<Finding> {
    let is_refused = |endpoint: &Endpoint| endpoint.udp == Udp::Refused;
    if !upstream.endpoints.iter().all(is_refused) {
        return Vec::new();
    }
    let told = "the link counts as up until its idle time is over";
    let find = |endpoint: &Endpoint| nothing_listens(&endpoint.name).since(told);
    upstream.endpoints.iter().map(find).collect()
}

/// What knocking at one endpoint says.
fn knocked(endpoint: &Endpoint, facts: &Facts) -> Option<Finding> {
    let name = endpoint.name.as_str();
    match &endpoint.lookup {
        Lookup::Failed(why) => return Some(dns(name, Certainty::Certain).since(why)),
        Lookup::Silent => {
            return Some(dns(name, Certainty::Certain).since("no name server answered within 5 s"));
        }
        Lookup::NotTried => return None,
        Lookup::Found(_) => {}
    }
    match endpoint.udp {
        Udp::NotTried => None,
        Udp::Refused => Some(nothing_listens(name)),
        Udp::Forbidden => Some(forbidden(name)),
        Udp::TooLarge => Some(
            black_hole(name, Certainty::Certain)
                .since("this machine's kernel knows that a packet of 1,228 bytes does not fit the way"),
        ),
        Udp::NoWay => Some(unreachable(name).since("the network says that there is no way to it")),
        Udp::Silent => Some(silent(endpoint)),
        Udp::Answers => match &endpoint.handshake {
            Some(Err((fault, why))) => Some(failed(*fault, why, name, facts)),
            Some(Ok(())) | None => None,
        },
    }
}

/// No answer on UDP. Whether other packets are answered tells a filter from a host that is away.
fn silent(endpoint: &Endpoint) -> Finding {
    let (name, host) = (endpoint.name.as_str(), endpoint.host);
    let unanswered = "no answer to UDP packets of 1,200 bytes";
    if host.echo == Some(true) && host.large_echo == Some(false) {
        return black_hole(name, Certainty::Likely)
            .since(unanswered)
            .since("a ping of 56 bytes is answered, and one of 1,200 is not");
    }
    if host.is_alive() {
        let by = if host.tcp == Some(true) { "TCP" } else { "ping" };
        let advice = "let UDP to the cloud's port out (and answers in) at the firewall of this site, and in at the cloud's; \
                      a cloud whose process is down would refuse instead of being silent";
        return Finding::new(Cause::UdpBlocked, name, advice)
            .certain(Certainty::Likely)
            .since(unanswered)
            .since(format!("the host answers {by}"));
    }
    unreachable(name)
        .certain(Certainty::Likely)
        .since(unanswered)
        .since("nor does the host answer TCP or ping")
}

fn dns(name: &str, certainty: Certainty) -> Finding {
    let advice = "check the name in the cloud's 'cloud.endpoints', and this machine's name server (/etc/resolv.conf); an \
                  address works without one";
    Finding::new(Cause::Dns, name, advice).certain(certainty)
}

fn nothing_listens(name: &str) -> Finding {
    let advice = "start 'kubebus cloud' there, or check its 'cloud.listen' and the port that is forwarded to it; if it runs, a \
                  firewall before it rejects UDP (REJECT, not DROP): let the port in";
    Finding::new(Cause::NothingListens, name, advice)
        .certain(Certainty::Likely)
        .since("UDP to this port is refused by ICMP: no program has the port, or a firewall rejects it")
}

fn forbidden(name: &str) -> Finding {
    let advice = "let UDP to the cloud's port out at the firewall of this machine ('nft list ruleset', 'iptables -L OUTPUT')";
    Finding::new(Cause::UdpBlocked, name, advice)
        .since("this machine's own kernel does not let the packet out")
}

fn black_hole(name: &str, certainty: Certainty) -> Finding {
    let advice = "raise the MTU on the way to at least 1,280 (a tunnel or PPPoE before the cloud?), or let ICMP 'too big' \
                  pass";
    Finding::new(Cause::MtuBlackHole, name, advice).certain(certainty)
}

fn unreachable(name: &str) -> Finding {
    let advice = "check this site's line and default route, and whether the cloud's machine is up: other hosts of the \
                  internet tell the two apart";
    Finding::new(Cause::HostUnreachable, name, advice)
}

/// What a cloud says of a certificate that it would renew.
const RENEWABLE: &str = "it can only be renewed";

/// A handshake, or a link, and what became of it.
fn failed(fault: LinkFault, why: &str, at: &str, facts: &Facts) -> Finding {
    use Certainty::{Certain, Likely, Possible};
    let token = "join again into an empty data directory, with a token of 'kubebus token create'";
    let (cause, certainty, advice) = match fault {
        LinkFault::Lookup => return dns(at, Certain).since(why),
        LinkFault::Replaced => return same_name(facts, why.to_owned()).certain(Likely),
        LinkFault::NoAnswer => {
            return black_hole(at, Likely)
                .since("the cloud answers small packets, and its large ones do not arrive");
        }
        LinkFault::UnknownCa => (
            Cause::WrongAuthority,
            Certain,
            "if the cloud was set up anew, restore it from its backup or join this node again; if not, the address leads to \
             somebody else's cloud",
        ),
        LinkFault::OwnCertificateForeign => (Cause::WrongAuthority, Certain, token),
        LinkFault::ServerCertificate => (
            Cause::ClockSkew,
            Likely,
            "set this machine's clock ('timedatectl'); if it is right, see at the cloud why its certificate is not renewed",
        ),
        LinkFault::WrongNode => (
            Cause::WrongCloud,
            Certain,
            "check where the cloud's address leads: 'cloud.endpoints' at the cloud",
        ),
        LinkFault::OwnCertificateExpired if why.contains(RENEWABLE) => {
            (Cause::CertificateExpired, Certain, RENEWS)
        }
        LinkFault::OwnCertificateExpired => (Cause::CertificateExpired, Certain, JOIN_AGAIN),
        LinkFault::NotMember => (Cause::NotMember, Certain, token),
        LinkFault::OutdatedCloud => (
            Cause::OutdatedCloud,
            Certain,
            "stop the cloud that answers there: edges follow the one that was restored from its backup",
        ),
        LinkFault::Busy => (Cause::CloudBusy, Certain, "wait: the node tries again by itself"),
        LinkFault::Other => (Cause::LinkFails, Possible, "look at the logs of both ends ('--log debug')"),
    };
    Finding::new(cause, at, advice).certain(certainty).since(why)
}

/// What the node itself met last, where knocking from outside found nothing: it dials with its own certificate.
fn own_failures(facts: &Facts) -> Vec<Finding> {
    let Some(upstream) = facts.upstream.as_ref().filter(|upstream| upstream.connected == Some(false)) else {
        return Vec::new();
    };
    if !endpoints(facts).is_empty() || !same_identity(facts).is_empty() {
        return Vec::new();
    }
    match newest(upstream, facts) {
        Some(failure) => vec![failed(failure.fault, &failure.why, &failure.at, facts)],
        None if facts.is_cut_short => {
            let advice = "look at the logs of both ends ('--log debug')";
            let finding =
                Finding::new(Cause::LinkFails, &upstream.cloud, advice).certain(Certainty::Possible);
            vec![finding.since("there is no link, and why was not found out in time")]
        }
        None => Vec::new(),
    }
}

/// One that names its cause comes before one that only says that there is no link.
fn newest<'a>(upstream: &'a Upstream, facts: &Facts) -> Option<&'a super::Failure> {
    let recent = |failure: &&super::Failure| facts.now_ms.saturating_sub(failure.time) < RECENT_MS;
    let is_vague = |fault| matches!(fault, LinkFault::Other | LinkFault::NoAnswer);
    upstream.failures.iter().filter(recent).max_by_key(|failure| (!is_vague(failure.fault), failure.time))
}

fn clock(facts: &Facts) -> Vec<Finding> {
    let own = facts.upstream.as_ref().and_then(|upstream| upstream.clock_offset_ms);
    let advice = "set this machine's clock ('timedatectl set-ntp true'); twins are safe meanwhile, schedules and logs are not";
    let mut found = Vec::new();
    if let Some(offset) = own.filter(|offset| offset.unsigned_abs() > SKEW_MS) {
        let about = facts.identity.name.as_deref().unwrap_or_default();
        let mut finding =
            Finding::new(Cause::ClockSkew, about, advice).since(apart("the cloud's clock", offset));
        if facts.clock_synchronised == Some(false) {
            finding = finding.since("this machine's kernel says that nobody sets its clock");
        }
        found.push(finding);
    }
    let peers = facts.peers.iter().filter_map(|peer| Some((peer, peer.clock_offset_ms?)));
    for (peer, offset) in peers.filter(|(_, offset)| offset.unsigned_abs() > SKEW_MS) {
        let told = apart(&format!("the cloud's clock, seen from {},", peer.node), offset);
        found.push(Finding::new(Cause::ClockSkew, &peer.node, advice).since(told));
    }
    found
}

fn apart(whose: &str, offset: i64) -> String {
    let way = if offset > 0 { "ahead" } else { "behind" };
    format!("{whose} is {} {way}", period(offset.unsigned_abs()))
}

fn clash(facts: &Facts) -> Vec<Finding> {
    let Some(clash) = &facts.clash else { return Vec::new() };
    let told =
        format!("{} on {} and the overlay's {} overlap", clash.network, clash.interface, clash.overlay);
    let advice = "give the overlay another pool at the cloud ('overlay.pool', before the first edge joins), or this network \
                  other addresses; docs/overlapping-sites.md";
    vec![Finding::new(Cause::OverlayClash, &clash.interface, advice).certain(Certainty::Likely).since(told)]
}

fn broker(facts: &Facts) -> Vec<Finding> {
    let Some((broker, problem)) =
        facts.broker.as_ref().and_then(|broker| Some((broker, broker.problem.as_ref()?)))
    else {
        return Vec::new();
    };
    if facts.node != Node::Answers && !broker.is_external {
        return Vec::new();
    }
    let advice = match broker.is_external {
        true => {
            "start the site's broker, or correct 'mqtt.external' (address, username, password-file), and restart the node"
        }
        false => {
            "check 'mqtt.listen' and what stands before it; the node's log says what clients are refused for"
        }
    };
    vec![Finding::new(Cause::Broker, &broker.address, advice).since(problem)]
}

fn edges(facts: &Facts) -> Vec<Finding> {
    let away = facts.peers.iter().filter(|peer| !peer.connected);
    let find = |peer: &super::Peer| {
        let advice =
            "run 'kubebus debug diagnose' on that machine: it knocks here and says what stands in the way";
        let finding = Finding::new(Cause::EdgeAway, &peer.node, advice).since("it has no link to this cloud");
        match &peer.last_error {
            Some(error) => finding.since(format!("it said last: {error}")),
            None => finding,
        }
    };
    away.map(find).collect()
}

fn troubled_edges(facts: &Facts) -> Vec<Finding> {
    let advice = "run 'kubebus debug diagnose' on that machine";
    let told = |peer: &super::Peer| {
        let why = peer.disk.as_ref()?;
        Some(
            Finding::new(Cause::EdgeTrouble, &peer.node, advice)
                .since(format!("its disk refuses writes{why}")),
        )
    };
    facts.peers.iter().filter(|peer| peer.connected).filter_map(told).collect()
}

fn devices(facts: &Facts) -> Vec<Finding> {
    let is_away =
        |device: &&super::Device| device.state == "offline" && device.reason.ends_with("is not connected");
    let away = facts.devices.iter().filter(is_away).map(|device| {
        let advice = "start its mapper ('kubebus mapper run NAME', or the vendor's program) and let it connect to the node's \
                      MQTT broker; 'kubebus mapper list' names the bundled ones";
        Finding::new(Cause::MapperAway, &device.id, advice).since(&device.reason)
    });
    let is_troubled =
        |device: &&super::Device| matches!(device.state.as_str(), "offline" | "degraded") && !is_away(device);
    let troubled = facts.devices.iter().filter(is_troubled).map(|device| {
        let advice = "check the device, its line and its address in the manifest; the mapper's log says more";
        Finding::new(Cause::DeviceTrouble, &device.id, advice)
            .since(format!("{}: {}", device.state, device.reason))
    });
    away.chain(troubled).collect()
}

fn wishes(facts: &Facts) -> Vec<Finding> {
    let find = |device: &super::Device| {
        let advice = format!("'kubebus twin audit {}' says who wished it and why it was not done", device.id);
        let finding = Finding::new(Cause::WishRefused, &device.id, advice);
        device.refused.iter().cloned().fold(finding, Finding::since)
    };
    facts.devices.iter().filter(|device| !device.refused.is_empty()).map(find).collect()
}

fn reach(facts: &Facts) -> Vec<Finding> {
    let Some(reach) = &facts.reach else { return Vec::new() };
    let denied = reach.denied.as_ref().map(|why| {
        let advice =
            "allow it with an AccessPolicy (docs/access-policy.md); 'kubebus policy test' tries one out";
        Finding::new(Cause::PolicyDenies, &reach.to, advice).since(why)
    });
    let problem = reach.problem.as_ref().map(|why| {
        let advice = "'kubebus route list' shows what lies behind whom, 'kubebus trace' where packets end";
        Finding::new(Cause::NoRoute, &reach.to, advice).since(why)
    });
    problem.into_iter().chain(denied).collect()
}

fn links(facts: &Facts) -> Vec<Finding> {
    let lossy = facts.links.iter().filter(|link| link.loss_percent >= LOSS_PERCENT).map(|link| {
        let advice = "look for a bad line, a bad radio or a full one on the way; 'link.rate' keeps a thin line from being \
                      overrun";
        Finding::new(Cause::LossyLink, &link.peer, advice)
            .certain(Certainty::Possible)
            .since(format!("{}: {} % of the packets were lost", link.lane, link.loss_percent))
    });
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

/// As people say it, to two units.
fn period(ms: u64) -> String {
    let text = humantime::format_duration(std::time::Duration::from_secs(ms / 1000)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
