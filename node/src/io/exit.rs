//! What the exit code says.

use std::process::ExitCode;

/// Exit codes of `kubebus`; scripts may rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// Something went wrong that no other code names.
    Failure = 1,
    /// The command line or a file given by it makes no sense (clap uses 2 as well).
    Usage = 2,
    /// The node's admin socket does not answer: it is not running, or under another `--data-dir`.
    NotRunning = 3,
    /// The thing asked for does not exist.
    NotFound = 4,
    /// The request contradicts what is there: taken name, used token, stale version.
    Conflict = 5,
    /// The machine forbids what is needed: privileges, TUN, user namespaces.
    Forbidden = 6,
    /// `demo --check`: something did not hold.
    CheckFailed = 7,
    /// `policy test`: the policy denies it.
    Denied = 8,
    /// `ping`: nothing answers. `route get`: the link that leads there is down.
    Unreachable = 9,
    /// `debug check`: the machine is not fit. `debug diagnose`: something is wrong, and is named.
    Faulty = 10,
}

impl Exit {
    /// In their order.
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::Failure,
        Self::Usage,
        Self::NotRunning,
        Self::NotFound,
        Self::Conflict,
        Self::Forbidden,
        Self::CheckFailed,
        Self::Denied,
        Self::Unreachable,
        Self::Faulty,
    ];

    /// For people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failure => "something went wrong that no other code names",
            Self::Usage => "the command line, or a file that it names, makes no sense",
            Self::NotRunning => {
                "the node's admin socket does not answer: it is not running, or under another `--data-dir`"
            }
            Self::NotFound => "the thing asked for does not exist",
            Self::Conflict => {
                "the request contradicts what is there: a name that is taken, a token that was used, a stale version"
            }
            Self::Forbidden => "the machine forbids what is needed: privileges, TUN, user namespaces",
            Self::CheckFailed => "`demo --check`: something did not hold",
            Self::Denied => "`policy test`: the policy denies it",
            Self::Unreachable => {
                "`ping`, `trace`: nothing answers; `route get`: the link that leads there is down"
            }
            Self::Faulty => {
                "`debug check`: the machine is not fit; `debug diagnose`: something is wrong, and is named"
            }
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
