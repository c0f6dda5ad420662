//! A real etcd of three members on loopback, for tests: its processes end with it.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// For one thing to come true: many times what an idle machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct EtcdCluster {
    room: TempDir,
    members: Vec<Member>,
}

struct Member {
    client: String,
    peer: String,
    process: Option<Child>,
}

impl EtcdCluster {
    /// Three members that have elected a leader.
    pub(crate) fn start() -> Self {
        let held: Vec<TcpListener> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let at = |n: usize| format!("http://{}", held[n].local_addr().unwrap());
        let members = (0..3).map(|n| Member { client: at(n), peer: at(n + 3), process: None }).collect();
        drop(held);
        let mut cluster = Self { room: tempfile::tempdir().unwrap(), members };
        (0..3).for_each(|n| cluster.run(n));
        cluster.leader();
        cluster
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// Starts a member, or starts it again on its files.
    pub(crate) fn run(&mut self, n: usize) {
        let name = |n: usize| format!("m{n}");
        let all: Vec<String> =
            self.members.iter().enumerate().map(|(n, m)| format!("{}={}", name(n), m.peer)).collect();
        let log = File::options().create(true).append(true).open(self.log(n)).unwrap();
        let member = &mut self.members[n];
        let mut command = Command::new("etcd");
        command
            .args(["--name", &name(n), "--data-dir", &name(n), "--log-level", "warn"])
            .args(["--listen-client-urls", &member.client, "--advertise-client-urls", &member.client])
            .args(["--listen-peer-urls", &member.peer, "--initial-advertise-peer-urls", &member.peer])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
            .current_dir(self.room.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let started = command.spawn().unwrap_or_else(|why| {
            panic!("cannot start etcd ({why}): apt-get install etcd-server etcd-client, or cargo xtask test")
        });
        member.process = Some(started);
    }

    fn log(&self, n: usize) -> PathBuf {
        self.room.path().join(format!("m{n}.log"))
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, n: usize) {
        let mut process = self.members[n].process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Which member leads, as itself says.
    pub(crate) fn leader(&self) -> usize {
        let start = Instant::now();
        loop {
            let running = (0..3).filter(|n| self.members[*n].process.is_some());
            if let Some(leader) = running.into_iter().find(|n| self.leads(*n)) {
                return leader;
            }
            let log = |n| std::fs::read_to_string(self.log(n)).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "no leader in\n{}\n{}\n{}", log(0), log(1), log(2));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn leads(&self, n: usize) -> bool {
        let status = self.ctl(n, &["endpoint", "status", "-w", "fields"]);
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" : ").map(str::to_owned))
        };
        field("\"Leader\"").is_some_and(|leader| leader != "0" && Some(leader) == field("\"MemberID\""))
    }

    /// What etcdctl says when it asks one member; nothing if the member does not answer.
    pub(crate) fn ctl(&self, n: usize, args: &[&str]) -> String {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.members[n].client]);
        let ran = command.args(["--command-timeout", "3s"]).args(args).output();
        let ran =
            ran.unwrap_or_else(|why| panic!("cannot start etcdctl ({why}): apt-get install etcd-client"));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
