//! Two machines that reach each other, made of namespaces: who is root there is nobody outside.

use std::process::Command;

use crate::page::Machine;
use crate::shell::Shell;

/// What a new machine lacks: places of its own for what a node keeps, and a loopback that is up.
const INSTALL: &str = "\
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc
ip link set lo up
";

/// A cloud at 192.0.2.10 and an edge at 192.0.2.20, on one line.
pub(crate) struct Machines {
    // First, so that it is gone before the namespace that it lies in.
    edge: Shell,
    cloud: Shell,
}

impl Machines {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let mut own = Command::new("unshare");
        own.args(["--user", "--map-root-user", "--net", "--mount", "bash"]);
        let mut cloud = Shell::start(own);
        let mut beside = Command::new("nsenter");
        beside.args(["--target", &cloud.pid().to_string(), "--user", "--preserve-credentials"]);
        beside.args(["unshare", "--net", "--mount", "bash"]);
        let mut edge = Shell::start(beside);
        cloud.run(INSTALL);
        edge.run(INSTALL);
        cloud.run(&format!("ip link add eth0 type veth peer name eth0 netns {}\n", edge.pid()));
        cloud.run("ip addr add 192.0.2.10/24 dev eth0; ip link set eth0 up\n");
        edge.run("ip addr add 192.0.2.20/24 dev eth0; ip link set eth0 up\n");
        Self { edge, cloud }
    }

    /// The token that a page's commands print at the cloud is carried to the edge, as its reader does.
    #[track_caller]
    pub(crate) fn run(&mut self, machine: Machine, commands: &str) -> String {
        if machine == Machine::Edge {
            return self.edge.run(commands);
        }
        let printed = self.cloud.run(commands);
        if let Some(token) = printed.lines().find(|line| line.starts_with("kb1.")) {
            self.edge.run(&format!("TOKEN={token}\n"));
        }
        printed
    }
}
