//! Keys and revisions of the store.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};
use thiserror::Error;

/// Where a value lives: `/` and printable ASCII, no space, at most [`Key::MAX_LEN`] bytes, for example
/// `/e/pump-house/device/default/pump-1`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// Why a text is no [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidKey {
    #[error("a key begins with '/' and names something")]
    NotRooted,
    #[error("key of {0} bytes is over the limit of {limit}", limit = Key::MAX_LEN)]
    TooLong(usize),
    #[error("a key is printable ASCII without spaces; byte {0:#04x} is not")]
    NotPrintable(u8),
}

impl Key {
    /// Two names of 63, a kind, and a long path below fit; a peer cannot fill the memory with names.
    pub const MAX_LEN: usize = 512;

    /// Checks `text` once; a `Key` is valid from then on.
    pub fn new(text: &str) -> Result<Self, InvalidKey> {
        if !text.starts_with('/') || text.len() < 2 {
            return Err(InvalidKey::NotRooted);
        }
        if text.len() > Self::MAX_LEN {
            return Err(InvalidKey::TooLong(text.len()));
        }
        match text.bytes().find(|b| !b.is_ascii_graphic()) {
            Some(byte) => Err(InvalidKey::NotPrintable(byte)),
            None => Ok(Self(text.into())),
        }
    }

    /// A key of ours whose text is valid by construction.
    pub(crate) fn literal(text: &str) -> Self {
        debug_assert!(Self::new(text).is_ok(), "{text}");
        Self(text.into())
    }

    /// Smaller than every key: the lower bound of a range.
    pub(crate) fn least() -> Self {
        Self("".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part that edges follow as a whole: `/e/<edge>/` of what is meant for one, `/all/` of what is meant for all.
    /// `None`: nobody follows this key.
    pub(crate) fn scope(&self) -> Option<&str> {
        let edge = self.0.strip_prefix("/e/").and_then(|rest| rest.find('/')).map(|at| &self.0[..at + 4]);
        edge.or_else(|| self.0.starts_with("/all/").then_some("/all/"))
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a commit, counted from 1 in one store; 0 is the empty store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Revision(#[n(0)] pub u64);

impl Revision {
    pub const ZERO: Self = Self(0);

    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One key's change; `None` deletes it and leaves a tombstone until compaction, for the edges that follow the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: Key,
    pub value: Option<Bytes>,
}

/// One transaction: all or nothing, and durable before anything that came of it is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub revision: Revision,
    pub writes: Vec<Write>,
    /// Rows to remove for good, before `writes` are done: keys that nobody follows, and tombstones told long ago.
    pub forgotten: Vec<Key>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rooted_printable_short_texts_are_keys() {
        assert!(Key::new("/e/pump-house/desired/default/p1/speed").is_ok());
        assert!(Key::new(&format!("/{}", "x".repeat(511))).is_ok());
        assert_eq!(Key::new(&format!("/{}", "x".repeat(512))), Err(InvalidKey::TooLong(513)));
        for bad in ["", "/", "e/x"] {
            assert_eq!(Key::new(bad), Err(InvalidKey::NotRooted), "{bad:?}");
        }
        assert_eq!(Key::new("/a b"), Err(InvalidKey::NotPrintable(b' ')));
        assert_eq!(Key::new("/ü"), Err(InvalidKey::NotPrintable(0xc3)));
    }

    #[test]
    fn a_scope_is_one_edge_or_all_of_them() {
        for (key, scope) in [
            ("/e/a/lease", Some("/e/a/")),
            ("/e/a/device/ns/x", Some("/e/a/")),
            ("/e/a", None),
            ("/all/route/x", Some("/all/")),
            ("/all", None),
            ("/c/node/a", None),
            ("/m/e/a/x", None),
            ("/x", None),
        ] {
            assert_eq!(Key::new(key).unwrap().scope(), scope, "{key}");
        }
    }
}
