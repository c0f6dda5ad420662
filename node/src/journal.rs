//! Persist, then speak: outputs wait for the writes they depend on.
//!
//! Cores write into the keyspace and speak freely; the journal keeps the order. After each handled input the node
//! closes the cycle: the cycle's writes become one commit, and whatever was said in it, or later, waits until that
//! commit is durable. Nothing that a crash could undo has been said to anybody.

use std::collections::VecDeque;

use metadata::{Commit, Keyspace, Revision};

/// Outputs held back, or commits under way, for one slow disk before the driver stops taking inputs. At 200 messages a second that is
/// twenty seconds of a stuck disk; beyond it MQTT clients and links feel back-pressure, and nothing is dropped.
pub const MAX_HELD: usize = 4096;

/// What comes out, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Ready<O> {
    Persist(Commit),
    Output(O),
}

#[derive(Debug)]
pub struct Journal<O> {
    commits: VecDeque<Commit>,
    /// Revisions that are sealed and not durable yet.
    underway: VecDeque<Revision>,
    held: VecDeque<(Revision, O)>,
    last: Revision,
    durable: Revision,
}

impl<O> Journal<O> {
    /// `loaded` is the revision that the store already holds.
    pub fn new(loaded: Revision) -> Self {
        Self {
            commits: VecDeque::new(),
            underway: VecDeque::new(),
            held: VecDeque::new(),
            last: loaded,
            durable: loaded,
        }
    }

    /// Ends a cycle: `outputs` were said in it.
    pub fn close_cycle(&mut self, keyspace: &mut Keyspace, outputs: impl IntoIterator<Item = O>) {
        if let Some(commit) = keyspace.seal() {
            self.last = commit.revision;
            self.underway.push_back(commit.revision);
            self.commits.push_back(commit);
        }
        let last = self.last;
        self.held.extend(outputs.into_iter().map(|output| (last, output)));
    }

    /// Everything up to `revision` survives a crash now.
    pub fn handle_persisted(&mut self, revision: Revision) {
        self.durable = self.durable.max(revision);
        while self.underway.front().is_some_and(|sealed| *sealed <= revision) {
            self.underway.pop_front();
        }
    }

    pub fn poll(&mut self) -> Option<Ready<O>> {
        if let Some(commit) = self.commits.pop_front() {
            return Some(Ready::Persist(commit));
        }
        let (revision, _) = self.held.front()?;
        if *revision > self.durable {
            return None;
        }
        self.held.pop_front().map(|(_, output)| Ready::Output(output))
    }

    /// Whether the driver may hand in more.
    pub fn is_full(&self) -> bool {
        self.held.len() >= MAX_HELD || self.underway.len() >= MAX_HELD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadata::Key;

    fn drain(journal: &mut Journal<&'static str>) -> Vec<Ready<&'static str>> {
        std::iter::from_fn(|| journal.poll()).collect()
    }

    #[test]
    fn what_is_said_waits_for_the_write_before_it_and_keeps_its_order() {
        let mut keyspace = Keyspace::new();
        let mut journal = Journal::new(Revision(0));
        journal.close_cycle(&mut keyspace, ["free"]);
        assert_eq!(drain(&mut journal), [Ready::Output("free")]);

        keyspace.put(Key::new("/t/a").unwrap(), "1".into());
        journal.close_cycle(&mut keyspace, ["held"]);
        journal.close_cycle(&mut keyspace, ["later"]);
        let seen = drain(&mut journal);
        let [Ready::Persist(commit)] = &seen[..] else { panic!("only the commit may come out: {seen:?}") };

        journal.handle_persisted(commit.revision);
        assert_eq!(drain(&mut journal), [Ready::Output("held"), Ready::Output("later")]);
    }
}
