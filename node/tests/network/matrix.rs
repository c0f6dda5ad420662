//! All ordered pairs of hosts, by ping, UDP and TCP over both families: with a policy for all sites, and without one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use lab::io::probe::{EchoServer, ping, tcp_echo, udp_echo};

use crate::lab_node::{Node, eventually};
use crate::town::{Host, Town};
use crate::{IN_VAIN, PORT};

/// A probe that is lost, as on a machine with other work, is tried again this often.
const TRIES: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(2);

/// Every site may begin to talk to every other.
const POLICY: &str = "
apiVersion: kubebus.io/v1alpha1
kind: AccessPolicy
metadata: {name: one-network}
spec:
  from: [{site: hq}, {site: site-a}, {site: site-b}, {site: site-c}]
  to: [{site: hq}, {site: site-a}, {site: site-b}, {site: site-c}]
";

/// What answered: ping, UDP and TCP over IPv4, then over IPv6.
type Answers = [bool; 6];

pub(crate) fn all_kinds_of_hosts() {
    let town = Town::build();
    let _servers: Vec<EchoServer> = town.hosts.iter().flat_map(servers).collect();
    let [lan_a, lan_b] = ["lan-a", "lan-b"].map(|label| find(&town, label));
    assert_eq!(lan_a.home(), lan_b.home(), "two sites have one LAN, and hosts of one address");
    for (a, b) in lan_a.addresses_from("hq").into_iter().zip(lan_b.addresses_from("hq")) {
        assert_ne!(a, b, "and other sites tell them apart");
    }

    town.cloud.apply(POLICY);
    eventually("the policy is in force", || is_answered(lan_a, lan_b).then_some(()));
    Table::of(&town.hosts, TRIES, TIMEOUT).expect("with a policy", &town, |_, _| true);

    town.cloud.command(&["delete", "accesspolicy", "one-network"]).expect(0);
    eventually("the policy is gone", || (!is_answered(lan_a, lan_b)).then_some(()));
    let before = dropped(&town);
    let table = Table::of(&town.hosts, 1, IN_VAIN);
    let after = dropped(&town);
    table.expect("without a policy", &town, |from, to| from.site == to.site);
    only_the_policy_dropped(&before, &after, table.silent());
}

/// Each probe of another site cost one packet at least, and nothing was dropped for another reason. Kernels' chatter in
/// their own networks may have been meanwhile.
fn only_the_policy_dropped(before: &Dropped, after: &Dropped, probes: usize) {
    let mut grown: BTreeMap<&str, u64> = BTreeMap::new();
    for ((node, reason), count) in after {
        let more = count - before.get(&(node.clone(), reason.clone())).copied().unwrap_or_default();
        *grown.entry(reason).or_default() += more;
    }
    let denied = grown.remove("denied").unwrap_or_default();
    assert!(denied >= probes as u64, "{denied} packets denied, {probes} probes were not answered: {after:?}");
    let others: Vec<_> =
        grown.iter().filter(|(reason, more)| **more > 0 && !CHATTER.contains(reason)).collect();
    assert!(others.is_empty(), "also dropped: {others:?}");
}

const CHATTER: [&str; 2] = ["multicast", "link_local"];

/// Packets dropped, by node and reason.
type Dropped = BTreeMap<(String, String), u64>;

fn dropped(town: &Town) -> Dropped {
    let of_node = |node: &Node| -> Vec<_> {
        let status = node.status();
        let reasons = status["counters"]["router_packets_dropped"].as_object().unwrap();
        let name = node.network.name();
        let count = |(reason, count): (&String, &serde_json::Value)| {
            ((name.to_owned(), reason.clone()), count.as_u64().unwrap())
        };
        reasons.iter().map(count).collect()
    };
    std::iter::once(&town.cloud).chain(&town.edges).flat_map(of_node).collect()
}

fn servers(host: &Host) -> [EchoServer; 2] {
    host.home().map(|address| EchoServer::start(&host.network, SocketAddr::new(address, PORT)).unwrap())
}

fn find<'a>(town: &'a Town, label: &str) -> &'a Host {
    town.hosts.iter().find(|host| host.label == label).unwrap()
}

fn is_answered(from: &Host, to: &Host) -> bool {
    let [v4, _] = to.addresses_from(&from.site);
    from.network.run(|| udp_echo(SocketAddr::new(v4, PORT), IN_VAIN).is_ok()).unwrap()
}

/// Who was answered by whom.
struct Table<'a> {
    hosts: &'a [Host],
    /// By source, then destination; `None` on the diagonal.
    rows: Vec<Vec<Option<Answers>>>,
}

impl<'a> Table<'a> {
    /// All pairs side by side.
    fn of(hosts: &'a [Host], tries: usize, timeout: Duration) -> Self {
        let rows = thread::scope(|scope| {
            let probe = |from: &'a Host, to: &'a Host| {
                let targets = to.addresses_from(&from.site);
                let work = move || targets.map(|target| answers(target, tries, timeout));
                scope.spawn(move || from.network.run(work).unwrap())
            };
            let row = |from: usize| -> Vec<_> {
                let cell = |to| (from != to).then(|| probe(&hosts[from], &hosts[to]));
                (0..hosts.len()).map(cell).collect()
            };
            let rows: Vec<_> = (0..hosts.len()).map(row).collect();
            let join = |cell: Option<thread::ScopedJoinHandle<'_, [[bool; 3]; 2]>>| {
                cell.map(|cell| cell.join().unwrap().concat().try_into().unwrap())
            };
            rows.into_iter().map(|row| row.into_iter().map(join).collect()).collect()
        });
        Self { hosts, rows }
    }

    /// Probes that nobody answered.
    fn silent(&self) -> usize {
        let cells = self.rows.iter().flatten().flatten();
        cells.flatten().filter(|is_answered| !**is_answered).count()
    }

    /// Each pair is answered by everything or by nothing.
    fn expect(&self, what: &str, town: &Town, is_meant: impl Fn(&Host, &Host) -> bool) {
        let is_right = |from: usize, to: usize, answers: Answers| {
            answers == [is_meant(&self.hosts[from], &self.hosts[to]); 6]
        };
        let cells = self.rows.iter().enumerate().flat_map(|(from, row)| {
            row.iter().enumerate().filter_map(move |(to, cell)| Some((from, to, (*cell)?)))
        });
        let wrong: Vec<_> = cells.filter(|(from, to, answers)| !is_right(*from, *to, *answers)).collect();
        if wrong.is_empty() {
            return;
        }
        let mut told = format!("{what}: {} pairs are not as they should be\n{}", wrong.len(), self.render());
        for (from, to, answers) in wrong {
            let (from, to) = (&self.hosts[from], &self.hosts[to]);
            let targets = to.addresses_from(&from.site);
            let _ = write!(told, "\n{} to {} {targets:?}: {}", from.label, to.label, letters(answers));
        }
        panic!("{told}\ndropped: {:?}", dropped(town));
    }

    fn render(&self) -> String {
        let mut text = format!("{:<11}", "from \\ to");
        for host in self.hosts {
            let _ = write!(text, "{:>11}", host.label);
        }
        for (host, row) in self.hosts.iter().zip(&self.rows) {
            let _ = write!(text, "\n{:<11}", host.label);
            for cell in row {
                let _ = write!(text, "{:>11}", cell.map_or_else(String::new, letters));
            }
        }
        text + "\nping, UDP, TCP over IPv4, then IPv6; a dot is no answer"
    }
}

fn letters(answers: Answers) -> String {
    "put"
        .chars()
        .chain("PUT".chars())
        .zip(answers)
        .map(|(letter, is)| if is { letter } else { '.' })
        .collect()
}

/// Ping, UDP and TCP.
fn answers(target: IpAddr, tries: usize, timeout: Duration) -> [bool; 3] {
    let echo = SocketAddr::new(target, PORT);
    let tried = |probe: &dyn Fn() -> bool| (0..tries).any(|_| probe());
    [
        tried(&|| ping(target, timeout).is_ok()),
        tried(&|| udp_echo(echo, timeout).is_ok()),
        tried(&|| tcp_echo(echo, timeout).is_ok()),
    ]
}
