//! Settings at the start, and simple controls.

use super::elements::{open_or_closed, speed};
use super::sections::{Line, Sections};
use super::units::seconds;
use super::{InpError, Reader};
use crate::network::model::{Condition, Control, LinkKind, Pipe, Setting};

impl Reader {
    pub(super) fn status(&mut self, sections: &Sections<'_>) -> Result<(), InpError> {
        for line in sections.of("STATUS") {
            let link = self.link(line, 0)?;
            self.network.links[link].start = self.setting(line, link, 1)?;
        }
        Ok(())
    }

    /// `LINK x OPEN|CLOSED|value IF NODE y ABOVE|BELOW z`, or `.. AT TIME t`.
    pub(super) fn controls(&mut self, sections: &Sections<'_>) -> Result<(), InpError> {
        for line in sections.of("CONTROLS") {
            let link = self.link(line, 1)?;
            let control =
                Control { link, setting: self.setting(line, link, 2)?, when: self.condition(line)? };
            self.network.controls.push(control);
        }
        Ok(())
    }

    fn setting(&self, line: &Line<'_>, link: usize, index: usize) -> Result<Setting, InpError> {
        let word = line.word(index, "a setting")?;
        let number = || line.finite(word).map_err(|_| line.invalid(word, "Open, Closed or a number"));
        match (&self.network.links[link].kind, open_or_closed(word)) {
            (LinkKind::Pipe(Pipe { check_valve: true, .. }), _) => {
                Err(line.unsupported("setting a check valve"))
            }
            (_, Some(setting)) => Ok(setting),
            (LinkKind::Pipe(_), None) => Err(line.invalid(word, "Open or Closed")),
            (LinkKind::Pump(_), None) => number().map(speed),
            (LinkKind::Throttle { .. }, None) => number().map(Setting::Value),
        }
    }

    fn condition(&self, line: &Line<'_>) -> Result<Condition, InpError> {
        if line.says(3, "AT") && line.says(4, "TIME") {
            return Ok(Condition::At { time_s: seconds(line, 5)? });
        }
        if !line.says(3, "IF") || !line.says(4, "NODE") {
            return Err(line.unsupported("a control other than IF NODE .. or AT TIME .."));
        }
        let tank = self.node(line, 5)?;
        if self.network.nodes[tank].tank().is_none() {
            return Err(line.unsupported("a control by a node that is no tank"));
        }
        let level_m = line.number(7, "the level")? * self.options.length;
        match line.word(6, "ABOVE or BELOW")? {
            word if word.eq_ignore_ascii_case("ABOVE") => Ok(Condition::Above { tank, level_m }),
            word if word.eq_ignore_ascii_case("BELOW") => Ok(Condition::Below { tank, level_m }),
            word => Err(line.invalid(word, "ABOVE or BELOW")),
        }
    }
}
