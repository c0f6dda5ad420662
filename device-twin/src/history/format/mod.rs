//! How the recorder's files look, and what is chosen to be in them: pure, in both directions.
//!
//! # Samples
//!
//! ```text
//! 00000007.seg (oldest)        00000008.seg        00000009.seg (being written)
//! +------+-----------+-------+ +------+-----+----+ +------+-----+-----+
//! | head | carried.. | block | | head | ... |    | | head | ... | blk |<- a block a second, or of 64 KiB
//! +------+-----------+-------+ +------+-----+----+ +------+-----+-----+
//!    |
//!    +-- when it has to go, the newest samples of each property are carried into the next new segment
//! ```
//!
//! A block is framed by its length and a sum ([`segment`]). Its body is a run of entries ([`entry`]) with times and
//! property numbers as differences from the entry before, so that a reading takes 5 to 14 bytes. Property numbers are
//! those of the segment, which defines each where it first comes up: a segment can be read without the others. Each
//! sample is the *n*-th of its property, and *n* can be told from the segment; that says which samples are the newest,
//! orders those of one millisecond, and lets a page begin where the last one ended.
//!
//! # Lines
//!
//! The audit and the rules' log are lines whose sums are in lines between them ([`lines`]).

mod dictionary;
mod entry;
pub(crate) mod keep;
pub(crate) mod lines;
mod names;
pub(crate) mod segment;
mod selection;
mod sum;
mod value;
mod varint;

pub(crate) use dictionary::{Dictionary, Found};
pub(crate) use entry::{Block, Entry, Part, Reading};
pub(crate) use names::Names;
pub(crate) use selection::{Selection, Span};
pub(crate) use sum::Chain;
pub(crate) use value::Packed;
