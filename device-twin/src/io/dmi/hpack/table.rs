//! The fields that an HPACK block can name by a number.

use std::collections::VecDeque;

use super::{Field, OVERHEAD};

/// What a decoder offers where it says nothing (RFC 9113 §6.5.2), and h2 says nothing.
const MAX_SIZE: usize = 4096;

/// RFC 7541 Appendix A, from 1 on.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The static table and, behind it, one connection's dynamic one (§2.3): the newest field first, the oldest go when it is
/// full.
#[derive(Debug)]
pub(super) struct Table {
    fields: VecDeque<Field>,
    size: usize,
    max_size: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { fields: VecDeque::new(), size: 0, max_size: MAX_SIZE }
    }
}

impl Table {
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let at = index.checked_sub(1)?;
        match STATIC.get(at) {
            Some((name, value)) => Some((name.as_bytes(), value.as_bytes())),
            None => self.fields.get(at - STATIC.len()).map(|(name, value)| (&name[..], &value[..])),
        }
    }

    /// §4.4: one that is larger than the table empties it.
    pub(super) fn add(&mut self, field: Field) {
        let size = size_of(&field);
        self.shrink(self.max_size.saturating_sub(size));
        if size <= self.max_size {
            self.size += size;
            self.fields.push_front(field);
        }
    }

    /// False if that is more than was offered.
    pub(super) fn resize(&mut self, max_size: usize) -> bool {
        if max_size > MAX_SIZE {
            return false;
        }
        self.max_size = max_size;
        self.shrink(max_size);
        true
    }

    fn shrink(&mut self, to: usize) {
        while self.size > to {
            let Some(oldest) = self.fields.pop_back() else { return };
            self.size -= size_of(&oldest);
        }
    }
}

/// §4.1.
fn size_of((name, value): &Field) -> usize {
    name.len() + value.len() + OVERHEAD
}
