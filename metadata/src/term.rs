//! The cloud's terms: which run of the cloud made which revisions.
//!
//! A cloud put back to a backup counts revisions anew from there, so that number 80 may mean two different states. Each
//! start of the cloud therefore begins a *term* with an id of its own at the revision found on the disk; a position
//! (term, revision) is in our history if we know the term and the next one did not begin before that revision.

use bytes::Bytes;

use crate::key::{Key, Revision};
use crate::keyspace::Keyspace;
use crate::sync::Position;

const PREFIX: &str = "/sync/term/";

/// Terms remembered; an edge that slept through more restarts than that gets a snapshot.
const MAX_TERMS: usize = 256;

#[derive(Debug, Clone)]
struct Term {
    begins: Revision,
    id: u64,
}

/// All terms known, the present one last.
#[derive(Debug, Clone)]
pub(crate) struct Terms(Vec<Term>);

impl Terms {
    /// Begins a term, whose id comes from `seed`.
    pub(crate) fn begin(ks: &mut Keyspace, seed: u64) -> Self {
        let mut known: Vec<(Key, Term)> = ks.range(PREFIX).filter_map(parse).collect();
        while known.len() >= MAX_TERMS {
            ks.delete(&known.remove(0).0);
        }
        let begins = ks.revision();
        // 0 stands for an edge that has nothing yet.
        let id = seed.max(1);
        ks.put(Key::literal(&format!("{PREFIX}{:020}", begins.0)), Bytes::copy_from_slice(&id.to_be_bytes()));
        let mut terms: Vec<Term> =
            known.into_iter().map(|(_, term)| term).filter(|term| term.begins < begins).collect();
        terms.push(Term { begins, id });
        Self(terms)
    }

    /// The id of the present one.
    pub(crate) fn present(&self) -> u64 {
        self.0.last().map_or(0, |term| term.id)
    }

    /// A revision of now.
    pub(crate) fn position(&self, revision: Revision) -> Position {
        Position { term: self.present(), revision }
    }

    /// Whether `position` is a state that this cloud, whose last revision is `latest`, went through.
    pub(crate) fn contains(&self, position: Position, latest: Revision) -> bool {
        let Some(at) = self.0.iter().position(|term| term.id == position.term) else { return false };
        let ends = self.0.get(at + 1).map_or(latest, |next| next.begins);
        (self.0[at].begins..=ends).contains(&position.revision)
    }
}

fn parse((key, value): (&Key, &Bytes)) -> Option<(Key, Term)> {
    let begins = Revision(key.as_str().strip_prefix(PREFIX)?.parse().ok()?);
    let id = u64::from_be_bytes(value[..].try_into().ok()?);
    Some((key.clone(), Term { begins, id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(ks: &mut Keyspace, times: u64) {
        for _ in 0..times {
            let at = ks.revision();
            ks.put(Key::new("/c/x").unwrap(), Bytes::copy_from_slice(&at.0.to_be_bytes()));
            ks.seal();
        }
    }

    fn reload(ks: &Keyspace) -> Keyspace {
        Keyspace::load(ks.rows())
    }

    fn at(term: u64, revision: u64) -> Position {
        Position { term, revision: Revision(revision) }
    }

    #[test]
    fn a_restart_keeps_the_history() {
        let mut ks = Keyspace::new();
        Terms::begin(&mut ks, 11);
        write(&mut ks, 5);
        let mut ks = reload(&ks);
        let terms = Terms::begin(&mut ks, 12);
        write(&mut ks, 5);
        let known = |position| terms.contains(position, ks.revision());
        assert_eq!(terms.position(ks.revision()), at(12, 10));
        assert!(known(at(11, 0)) && known(at(11, 5)) && known(at(12, 5)) && known(at(12, 10)));
        assert!(!known(at(11, 6)) && !known(at(12, 11)) && !known(at(12, 4)) && !known(at(0, 0)));
    }

    #[test]
    fn a_revision_made_after_the_backup_is_foreign_even_when_the_number_is_used_again() {
        let mut ks = Keyspace::new();
        Terms::begin(&mut ks, 11);
        write(&mut ks, 5);
        let backup = reload(&ks);
        write(&mut ks, 5);
        let mut ks = backup;
        let terms = Terms::begin(&mut ks, 12);
        write(&mut ks, 20);
        assert!(!terms.contains(at(11, 10), ks.revision()));
        assert!(terms.contains(at(11, 5), ks.revision()));
    }

    #[test]
    fn terms_are_bounded() {
        let mut ks = Keyspace::new();
        for seed in 0..MAX_TERMS as u64 + 50 {
            Terms::begin(&mut ks, seed + 1);
            write(&mut ks, 1);
        }
        assert_eq!(ks.range(PREFIX).count(), MAX_TERMS);
    }
}
