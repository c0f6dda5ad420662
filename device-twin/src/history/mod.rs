//! What was read and what was decided, as an edge keeps it.
//!
//! Samples: what can be asked of them and what comes back is in [`query`], for a plot in [`overview`], and as a table in [`csv`]. Decisions: who set
//! what is a line of the [`audit`], and [`listing`] joins it with what became of it.
//!
//! How the files look is in `format`; the files themselves, and the thread that writes them, are in `io::recorder`.

pub mod audit;
pub mod csv;
#[cfg(feature = "io")]
pub(crate) mod format;
pub mod gaps;
pub mod listing;
pub mod overview;
pub mod query;

pub use audit::AuditEntry;
pub use listing::{AuditQuery, Listing};
pub use overview::{Overview, Survey};
pub use query::{Answer, Cursor, Gap, Order, Query, Row, Which};
