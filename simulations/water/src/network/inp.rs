//! Reads EPANET's input format, as far as the hydraulics here go (EPANET 2.2 User Manual, appendix C).
//!
//! Supported: junctions, reservoirs, cylindrical tanks, pipes (also with check valves), pumps by a head curve of one
//! or three points, throttle valves, patterns, simple controls by tank level and time, and Hazen-Williams. Sections
//! about quality, energy, reports and drawings are passed over. What would change the hydraulics and is not supported
//! is an error: a network is read whole or not at all.

mod controls;
mod elements;
mod sections;
mod units;

use thiserror::Error;

use super::model::Network;
use sections::{Line, Sections};

/// Where and why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("line {line} in [{section}]: {problem}")]
pub struct InpError {
    pub line: usize,
    pub section: String,
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Problem {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0:?} is not {1}")]
    Invalid(String, &'static str),
    #[error("{0} {1:?} is not defined")]
    Undefined(&'static str, String),
    #[error("{0:?} is defined twice")]
    Twice(String),
    #[error("{0} is not supported")]
    Unsupported(String),
}

/// The network of an input file's text.
pub fn read(text: &str) -> Result<Network, InpError> {
    let sections = Sections::split(text)?;
    let options = units::Options::read(&sections)?;
    let network = Network { times: units::times(&sections)?, ..Network::default() };
    let mut reader = Reader { options, patterns: Vec::new(), network };
    reader.read_patterns(&sections)?;
    reader.nodes(&sections)?;
    reader.links(&sections)?;
    reader.status(&sections)?;
    reader.controls(&sections)?;
    Ok(reader.network)
}

/// What is read so far; sections refer to earlier ones by name.
#[derive(Debug)]
struct Reader {
    options: units::Options,
    /// Names of the network's patterns, in their order.
    patterns: Vec<String>,
    network: Network,
}

impl Reader {
    fn node(&self, line: &Line<'_>, word: usize) -> Result<usize, InpError> {
        let id = line.word(word, "a node")?;
        self.network.node(id).ok_or_else(|| line.error(Problem::Undefined("node", id.to_owned())))
    }

    fn link(&self, line: &Line<'_>, word: usize) -> Result<usize, InpError> {
        let id = line.word(word, "a link")?;
        self.network.link(id).ok_or_else(|| line.error(Problem::Undefined("link", id.to_owned())))
    }
}

#[cfg(test)]
#[path = "inp_tests.rs"]
mod tests;
