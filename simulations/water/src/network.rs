//! Pressurised pipe networks over hours: heads and flows from demands, tanks that fill and drain between.
//!
//! The model is EPANET's (Rossman et al., EPANET 2.2 User Manual, EPA/600/R-20/133, chapter 12): demand driven,
//! Hazen-Williams friction, pumps by their head curve, and the Global Gradient Algorithm of Todini and Pilati, which
//! solves mass and energy together by Newton's method. `tests/epanet.rs` compares it with EPANET itself.
//!
//! Reading order: [`model`] (what a network is made of, in SI units), [`loss`] (one equation a link), [`solver`] (one
//! instant), [`status`] (check valves, pumps and full tanks, which decide which links take part), [`run`] (an
//! extended period: patterns, controls, tanks), [`inp`] (EPANET's input format, the part that is supported).
//!
//! Two things differ from EPANET on purpose. Events (a tank full, a level control) are met to a fraction of a second
//! instead of in whole seconds, so that no volume has to be rounded and no water is invented. And Newton's iteration
//! goes on to a tolerance that is 10,000 times smaller than EPANET's default.
//!
//! ```
//! use water::network::{Run, inp};
//! let network = inp::read("
//! [JUNCTIONS]
//!  town  0  20
//! [RESERVOIRS]
//!  hill  50
//! [PIPES]
//!  main  hill  town  1000  150  120
//! [OPTIONS]
//!  Units  CMH
//!  Headloss  H-W
//! ")?;
//! let run = Run::start(network)?;
//! let town = run.network().node("town").expect("named above");
//! assert!((run.head_m(town) - 48.968).abs() < 0.001);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod inp;
pub mod loss;
mod matrix;
pub mod model;
pub mod run;
pub mod solver;
pub mod status;

pub use model::Network;
pub use run::Run;
