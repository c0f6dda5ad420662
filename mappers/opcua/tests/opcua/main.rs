//! The mapper against servers that somebody else wrote: asyncua, from PyPI (`cargo xtask python`).

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

mod bench;
mod kit;
mod pushing;
mod reading;
mod security;
mod server;
mod writing;
