//! The way to the cloud, from this end outwards.

use super::RECENT_MS;
use super::own::{JOIN_AGAIN, RENEWS, same_identity, same_name};
use crate::diagnose::facts::{Endpoint, Facts, Lookup, Udp, Upstream};
use crate::diagnose::fault::{Failure, LinkFault};
use crate::diagnose::finding::{Cause, Certainty, Finding};

pub(super) fn endpoints(facts: &Facts) -> Vec<Finding> {
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
pub(super) fn own_failures(facts: &Facts) -> Vec<Finding> {
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
fn newest<'a>(upstream: &'a Upstream, facts: &Facts) -> Option<&'a Failure> {
    let recent = |failure: &&Failure| facts.now_ms.saturating_sub(failure.time) < RECENT_MS;
    let is_vague = |fault| matches!(fault, LinkFault::Other | LinkFault::NoAnswer);
    upstream.failures.iter().filter(recent).max_by_key(|failure| (!is_vague(failure.fault), failure.time))
}
