//! How soon a write must be on the disk: each sync wears a flash card and costs milliseconds, and not every write is
//! worth one of its own.

use crate::key::{Commit, Key};

/// What may be waited for before a commit is made durable. The last counts: a commit is as urgent as its most urgent
/// row, and takes all that waited before it along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing said rests on it; it may be seconds late, and a crash may forget it.
    Lazy,
    /// Outputs wait for it, and nobody waits for those: it may wait for company for a moment.
    Soon,
    /// People, devices or another site wait.
    Now,
}

/// All other rows are [`Durability::Now`]: desired values, the applied position, what rules and writes are at, results,
/// the cloud's resources, tokens and nodes.
const CLASSES: [(&str, Durability); 14] = [
    // Samples are worth less by the second, and their numbers are reserved: none is given twice.
    ("/o/telemetry/", Durability::Lazy),
    // Carries the revision of a commit that only removes rows, which count by themselves.
    ("/sync/revision", Durability::Lazy),
    // A mapper goes on reading its device while a report waits; what a rule makes of it is written at once.
    ("/t/reported/", Durability::Soon),
    // What happened, for people: an edge's flash is not worn for it.
    ("/local/event/", Durability::Lazy),
    ("/c/event/", Durability::Soon),
    ("/o/state/", Durability::Soon),
    // What edges told the cloud they keep until it is stored.
    ("/c/reported/", Durability::Soon),
    ("/c/state/", Durability::Soon),
    ("/c/result/", Durability::Soon),
    ("/sync/in/", Durability::Soon),
    // Messages on their way through the broker: one by one they would cost a sync each, and another to go.
    ("/mqtt/queue/", Durability::Soon),
    ("/mqtt/received/", Durability::Soon),
    // That a broker has a message of another site safe: those who wait for it are the slots of the next ones.
    ("/mesh/position", Durability::Soon),
    ("/c/mesh/here", Durability::Soon),
];

impl Durability {
    fn of(key: &Key) -> Self {
        let class = CLASSES.iter().find(|(prefix, _)| key.as_str().starts_with(prefix));
        class.map_or(Self::Now, |(_, class)| *class)
    }
}

impl Commit {
    /// How soon this is to be durable.
    pub fn durability(&self) -> Durability {
        let keys = self.writes.iter().map(|write| &write.key).chain(&self.forgotten);
        keys.map(Durability::of).max().unwrap_or(Durability::Lazy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Keyspace;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn class_of(ks: &mut Keyspace, puts: &[&str]) -> Durability {
        puts.iter().for_each(|at| ks.put(key(at), "1".into()));
        ks.seal().unwrap().durability()
    }

    #[test]
    fn a_commit_is_as_urgent_as_its_most_urgent_row() {
        let mut ks = Keyspace::new();
        assert_eq!(class_of(&mut ks, &["/o/telemetry/1"]), Durability::Lazy);
        assert_eq!(
            class_of(&mut ks, &["/o/telemetry/2", "/o/state/1", "/t/reported/w/p/x"]),
            Durability::Soon
        );
        assert_eq!(class_of(&mut ks, &["/t/reported/w/p/y", "/t/rule/w/r"]), Durability::Now);
        assert_eq!(class_of(&mut ks, &["/e/a/desired/w/p/x"]), Durability::Now);
        assert_eq!(class_of(&mut ks, &["/o/event/1"]), Durability::Now);
    }

    #[test]
    fn a_commit_that_only_removes_rows_is_as_urgent_as_they_are() {
        for (at, class) in [
            ("/o/telemetry/1", Durability::Lazy),
            ("/o/state/1", Durability::Soon),
            ("/c/token/1", Durability::Now),
        ] {
            let mut ks = Keyspace::new();
            class_of(&mut ks, &[at]);
            ks.delete(&key(at));
            assert_eq!(ks.seal().unwrap().durability(), class, "{at}");
        }
    }
}
