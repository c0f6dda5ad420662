//! Nodes, links, patterns and curves.

use std::collections::BTreeMap;

use super::sections::{Line, Sections};
use super::{InpError, Problem, Reader};
use crate::network::model::{Link, LinkKind, Node, NodeKind, Pattern, Pipe, PumpCurve, Setting, Tank};

type Curves<'a> = BTreeMap<&'a str, Vec<(f64, f64)>>;

impl Reader {
    /// A pattern's lines continue each other.
    pub(super) fn read_patterns(&mut self, sections: &Sections<'_>) -> Result<(), InpError> {
        let mut by_id: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for line in sections.of("PATTERNS") {
            let factors: Result<Vec<f64>, _> = line.words[1..].iter().map(|word| line.finite(word)).collect();
            by_id.entry(line.words[0]).or_default().extend(factors?);
        }
        (self.patterns, self.network.patterns) =
            by_id.into_iter().map(|(id, factors)| (id.to_owned(), Pattern(factors))).unzip();
        Ok(())
    }

    fn pattern(&self, line: &Line<'_>, index: usize) -> Result<Option<usize>, InpError> {
        let Some(id) = line.words.get(index) else { return Ok(None) };
        let found = self.patterns.iter().position(|p| p == id);
        found.map(Some).ok_or_else(|| line.error(Problem::Undefined("pattern", (*id).to_owned())))
    }

    pub(super) fn nodes(&mut self, sections: &Sections<'_>) -> Result<(), InpError> {
        for line in sections.of("JUNCTIONS") {
            let kind = self.junction(line)?;
            self.add_node(line, kind)?;
        }
        for line in sections.of("RESERVOIRS") {
            let head_m = line.number(1, "the head")? * self.options.length;
            let kind = NodeKind::Reservoir { head_m, pattern: self.pattern(line, 2)? };
            self.add_node(line, kind)?;
        }
        for line in sections.of("TANKS") {
            let kind = self.tank(line)?;
            self.add_node(line, kind)?;
        }
        Ok(())
    }

    fn junction(&self, line: &Line<'_>) -> Result<NodeKind, InpError> {
        let default = || self.patterns.iter().position(|p| *p == self.options.pattern);
        Ok(NodeKind::Junction {
            elevation_m: line.number(1, "the elevation")? * self.options.length,
            demand: line.number_or(2, 0.0)? * self.options.flow * self.options.demand_multiplier,
            pattern: self.pattern(line, 3)?.or_else(default),
        })
    }

    /// The volume below the lowest level (the seventh column) moves nothing and is passed over.
    fn tank(&self, line: &Line<'_>) -> Result<NodeKind, InpError> {
        let length = self.options.length;
        if line.words.get(7).is_some_and(|curve| *curve != "*") {
            return Err(line.unsupported("a volume curve"));
        }
        if line.says(8, "YES") {
            return Err(line.unsupported("a tank that overflows"));
        }
        let diameter = line.above_zero(5, "the diameter")? * length;
        let tank = Tank {
            elevation_m: line.number(1, "the elevation")? * length,
            start_level_m: line.number(2, "the first level")? * length,
            min_level_m: line.number(3, "the lowest level")? * length,
            max_level_m: line.number(4, "the highest level")? * length,
            area_m2: std::f64::consts::FRAC_PI_4 * diameter * diameter,
        };
        if !(tank.min_level_m..=tank.max_level_m).contains(&tank.start_level_m) {
            return Err(line.invalid(line.words[2], "between the lowest and the highest level"));
        }
        Ok(NodeKind::Tank(tank))
    }

    fn add_node(&mut self, line: &Line<'_>, kind: NodeKind) -> Result<(), InpError> {
        let id = line.word(0, "the name")?.to_owned();
        if self.network.node(&id).is_some() {
            return Err(line.error(Problem::Twice(id)));
        }
        self.network.nodes.push(Node { id, kind });
        Ok(())
    }

    pub(super) fn links(&mut self, sections: &Sections<'_>) -> Result<(), InpError> {
        for line in sections.of("PIPES") {
            let (kind, start) = self.pipe(line)?;
            self.add_link(line, kind, start)?;
        }
        let curves = curves(sections)?;
        for line in sections.of("PUMPS") {
            let (kind, start) = self.pump(line, &curves)?;
            self.add_link(line, kind, start)?;
        }
        for line in sections.of("VALVES") {
            let (kind, start) = self.valve(line)?;
            self.add_link(line, kind, start)?;
        }
        Ok(())
    }

    fn pipe(&self, line: &Line<'_>) -> Result<(LinkKind, Setting), InpError> {
        let check_valve = line.says(7, "CV");
        let start = match line.words.get(7) {
            Some(word) if !check_valve => {
                open_or_closed(word).ok_or_else(|| line.invalid(word, "Open, Closed or CV"))?
            }
            _ => Setting::Open,
        };
        let pipe = Pipe {
            length_m: line.above_zero(3, "the length")? * self.options.length,
            diameter_m: line.above_zero(4, "the diameter")? * self.options.diameter,
            roughness: line.above_zero(5, "the roughness")?,
            minor: line.number_or(6, 0.0)?,
            check_valve,
        };
        Ok((LinkKind::Pipe(pipe), start))
    }

    fn pump(&self, line: &Line<'_>, curves: &Curves<'_>) -> Result<(LinkKind, Setting), InpError> {
        let (mut curve, mut start) = (None, Setting::Open);
        for index in (3..line.words.len()).step_by(2) {
            if line.says(index, "HEAD") {
                curve = Some(self.pump_curve(line, index + 1, curves)?);
            } else if line.says(index, "SPEED") {
                start = speed(line.number(index + 1, "the speed")?);
            } else {
                return Err(line.unsupported(format!("a pump by {}", line.words[index])));
            }
        }
        let curve = curve.ok_or_else(|| line.error(Problem::Missing("the head curve")))?;
        Ok((LinkKind::Pump(curve), start))
    }

    fn pump_curve(&self, line: &Line<'_>, index: usize, curves: &Curves<'_>) -> Result<PumpCurve, InpError> {
        let id = line.word(index, "the curve")?;
        let points = curves.get(id).ok_or_else(|| line.error(Problem::Undefined("curve", id.to_owned())))?;
        let points: Vec<(f64, f64)> =
            points.iter().map(|(q, h)| (q * self.options.flow, h * self.options.length)).collect();
        let curve = match points[..] {
            [(flow, head)] => PumpCurve::through_point(flow, head),
            [a, b, c] => PumpCurve::through([a, b, c]),
            _ => return Err(line.unsupported(format!("a pump curve of {} points", points.len()))),
        };
        curve.ok_or_else(|| line.invalid(id, "a curve that falls from no flow on"))
    }

    fn valve(&self, line: &Line<'_>) -> Result<(LinkKind, Setting), InpError> {
        if !line.says(4, "TCV") {
            return Err(line.unsupported(format!("a valve {}", line.word(4, "the type")?)));
        }
        let diameter_m = line.above_zero(3, "the diameter")? * self.options.diameter;
        let kind = LinkKind::Throttle { diameter_m, minor: line.number_or(6, 0.0)? };
        Ok((kind, Setting::Value(line.number(5, "the setting")?)))
    }

    fn add_link(&mut self, line: &Line<'_>, kind: LinkKind, start: Setting) -> Result<(), InpError> {
        let id = line.word(0, "the name")?.to_owned();
        if self.network.link(&id).is_some() {
            return Err(line.error(Problem::Twice(id)));
        }
        let (from, to) = (self.node(line, 1)?, self.node(line, 2)?);
        self.network.links.push(Link { id, from, to, kind, start });
        Ok(())
    }
}

fn curves<'a>(sections: &Sections<'a>) -> Result<Curves<'a>, InpError> {
    let mut curves = Curves::new();
    for line in sections.of("CURVES") {
        let point = (line.number(1, "x")?, line.number(2, "y")?);
        curves.entry(line.words[0]).or_default().push(point);
    }
    Ok(curves)
}

pub(super) fn open_or_closed(word: &str) -> Option<Setting> {
    if word.eq_ignore_ascii_case("OPEN") {
        return Some(Setting::Open);
    }
    word.eq_ignore_ascii_case("CLOSED").then_some(Setting::Closed)
}

/// Of a pump: full speed is open, none is closed.
pub(super) fn speed(value: f64) -> Setting {
    match value {
        v if v <= 0.0 => Setting::Closed,
        1.0 => Setting::Open,
        v => Setting::Value(v),
    }
}
