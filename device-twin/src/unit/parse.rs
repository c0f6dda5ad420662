//! UCUM's grammar (§§5-12), by recursive descent.
//!
//! ```text
//! main      = ["/"] term
//! term      = component {("." | "/") component}
//! component = symbol [exponent] [annotation] | digits [annotation] | annotation | "(" term ")"
//! ```

use super::dimension::Dimension;
use super::{MAX_CODE_LEN, UnitError, atom, nearest};

/// What a term comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Magnitude {
    pub(super) dimension: Dimension,
    pub(super) factor: f64,
    pub(super) offset: f64,
}

const ONE: Magnitude = Magnitude { dimension: Dimension::ONE, factor: 1.0, offset: 0.0 };

pub(super) fn magnitude(code: &str) -> Result<Magnitude, UnitError> {
    if code.is_empty() {
        return Err(UnitError::Empty);
    }
    if code.len() > MAX_CODE_LEN {
        return Err(UnitError::TooLong(code.chars().count()));
    }
    let mut parser = Parser { code, at: 0, special: None, components: 0 };
    let found = parser.main()?;
    if parser.at < code.len() {
        return Err(parser.syntax("'.', '/' or the end is expected"));
    }
    // A zero of its own has a meaning only where the unit is the whole term.
    match parser.special {
        Some(special) if parser.components > 1 => Err(UnitError::Special(special)),
        _ => Ok(found),
    }
}

struct Parser<'a> {
    code: &'a str,
    at: usize,
    /// The unit with an offset that was met.
    special: Option<&'static str>,
    /// Symbols and numbers that were met.
    components: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.code[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        if is_there {
            self.at += wanted.len_utf8();
        }
        is_there
    }

    fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn syntax(&self, expected: &'static str) -> UnitError {
        let at = self.code[..self.at].chars().count() + 1;
        UnitError::Syntax { code: self.code.to_owned(), at, expected }
    }

    fn main(&mut self) -> Result<Magnitude, UnitError> {
        if self.take('/') {
            self.components += 1;
            let first = self.component()?;
            let first = self.over(ONE, first)?;
            return self.more(first);
        }
        self.term()
    }

    fn term(&mut self) -> Result<Magnitude, UnitError> {
        let first = self.component()?;
        self.more(first)
    }

    /// What follows the first component; both operators bind alike, from the left.
    fn more(&mut self, mut so_far: Magnitude) -> Result<Magnitude, UnitError> {
        loop {
            if self.take('.') {
                let next = self.component()?;
                so_far = self.times(so_far, next)?;
            } else if self.take('/') {
                let next = self.component()?;
                so_far = self.over(so_far, next)?;
            } else {
                return Ok(so_far);
            }
        }
    }

    fn component(&mut self) -> Result<Magnitude, UnitError> {
        if self.take('(') {
            let inner = self.term()?;
            return if self.take(')') { Ok(inner) } else { Err(self.syntax("')' is expected")) };
        }
        let found = match self.peek() {
            Some('{') => ONE,
            Some(c) if c.is_ascii_digit() => self.number()?,
            Some(c) if is_symbol(c) => self.symbol()?,
            _ => return Err(self.syntax("a unit is expected")),
        };
        self.annotation()?;
        Ok(found)
    }

    /// `{what people should know}`: means nothing here.
    fn annotation(&mut self) -> Result<(), UnitError> {
        if !self.take('{') {
            return Ok(());
        }
        self.take_while(|c| c.is_ascii_graphic() && !matches!(c, '{' | '}') || c == ' ');
        if self.take('}') { Ok(()) } else { Err(self.syntax("'}' is expected")) }
    }

    fn number(&mut self) -> Result<Magnitude, UnitError> {
        let digits = self.take_while(|c| c.is_ascii_digit());
        self.components += 1;
        match digits.parse::<f64>() {
            Ok(factor) if factor > 0.0 => Ok(Magnitude { factor, ..ONE }),
            _ => Err(self.syntax("a number above zero is expected before this")),
        }
    }

    fn symbol(&mut self) -> Result<Magnitude, UnitError> {
        let written = self.symbol_text();
        let (symbol, exponent) = split_exponent(written);
        let Some(atom) = atom::find(symbol) else {
            let spelled = nearest::spelled(written).map(|code| (written, Some(code)));
            let (part, nearest) = spelled.unwrap_or_else(|| (symbol, nearest::code(symbol)));
            return Err(UnitError::Unknown { part: part.to_owned(), nearest });
        };
        self.components += 1;
        let base = Magnitude { dimension: atom.dimension, factor: atom.factor, offset: atom.offset };
        if atom.offset != 0.0 {
            self.special = Some(atom.code);
        }
        let Some(exponent) = exponent else { return Ok(base) };
        if atom.offset != 0.0 {
            return Err(UnitError::Special(atom.code));
        }
        let power: i8 = exponent.parse().map_err(|_| UnitError::Exponent(written.to_owned()))?;
        let dimension = base.dimension.power(power);
        let dimension = dimension.ok_or_else(|| UnitError::Exponent(written.to_owned()))?;
        self.sound(Magnitude { dimension, factor: base.factor.powi(power.into()), offset: 0.0 })
    }

    /// A symbol with its exponent; what stands in brackets belongs to it, whatever it is.
    fn symbol_text(&mut self) -> &'a str {
        let start = self.at;
        loop {
            self.take_while(|c| c != '[' && (is_symbol(c) || matches!(c, '+' | '-') || c.is_ascii_digit()));
            if self.peek() != Some('[') {
                return &self.code[start..self.at];
            }
            self.take_while(|c| c != ']');
            self.take(']');
        }
    }

    fn times(&self, a: Magnitude, b: Magnitude) -> Result<Magnitude, UnitError> {
        let dimension = a.dimension.times(b.dimension).ok_or_else(|| self.too_large())?;
        self.sound(Magnitude { dimension, factor: a.factor * b.factor, offset: a.offset + b.offset })
    }

    fn over(&self, a: Magnitude, b: Magnitude) -> Result<Magnitude, UnitError> {
        let dimension = a.dimension.over(b.dimension).ok_or_else(|| self.too_large())?;
        self.sound(Magnitude { dimension, factor: a.factor / b.factor, offset: a.offset + b.offset })
    }

    fn too_large(&self) -> UnitError {
        UnitError::Exponent(self.code.to_owned())
    }

    /// A factor beyond what a float holds would make every value zero or infinite.
    fn sound(&self, found: Magnitude) -> Result<Magnitude, UnitError> {
        if found.factor.is_normal() { Ok(found) } else { Err(self.too_large()) }
    }
}

/// What a symbol is written with, outside brackets. Letters beyond ASCII are no code's, and are named in the error.
fn is_symbol(c: char) -> bool {
    !matches!(c, '.' | '/' | '(' | ')' | '{' | '}' | '+' | '-' | ']')
        && !c.is_ascii_digit()
        && !c.is_control()
}

/// `m3` is `m` to the power of 3, `s-1` is `s` to the power of -1, `m[H2O]` has no exponent.
fn split_exponent(written: &str) -> (&str, Option<&str>) {
    let symbol = written.trim_end_matches(|c: char| c.is_ascii_digit());
    if symbol.len() == written.len() {
        return (written, None);
    }
    let symbol = symbol.strip_suffix(['+', '-']).unwrap_or(symbol);
    (symbol, Some(&written[symbol.len()..]))
}
