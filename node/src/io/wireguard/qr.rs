//! A QR code for a terminal.

use qrcodegen::{QrCode, QrCodeEcc};

/// Light modules around the code, which scanners need (ISO/IEC 18004 wants four).
const MARGIN: i32 = 4;

/// `text` as lines of half blocks, two modules a character; `None` if it is too long for any code. With `colours` it is
/// black on white, whatever the terminal's are.
pub(super) fn code(text: &str, colours: bool) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let all = -MARGIN..code.size() + MARGIN;
    let line = |y: i32| -> String {
        let line: String =
            all.clone().map(|x| half_blocks(code.get_module(x, y), code.get_module(x, y + 1))).collect();
        if colours { format!("\x1b[30;107m{line}\x1b[0m") } else { line }
    };
    Some(all.clone().step_by(2).map(line).collect::<Vec<_>>().join("\n"))
}

/// Dark modules are drawn.
fn half_blocks(upper: bool, lower: bool) -> char {
    match (upper, lower) {
        (true, true) => '█',
        (true, false) => '▀',
        (false, true) => '▄',
        (false, false) => ' ',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_three_corners_and_its_margin() {
        let code = code("kubebus", false).unwrap();
        let lines: Vec<&str> = code.lines().collect();
        // Version 1 is 21 modules wide.
        assert!(lines.iter().all(|line| line.chars().count() == 29));
        assert!(lines[..2].iter().all(|line| line.trim().is_empty()));
        let corner = |line: &str, from: usize| line.chars().skip(from).take(7).collect::<String>();
        assert_eq!([4, 18].map(|from| corner(lines[2], from)), ["█▀▀▀▀▀█", "█▀▀▀▀▀█"]);
        assert_eq!(corner(lines[11], 4), "█ ▀▀▀ █");
    }

    #[test]
    fn what_is_too_long_has_no_code() {
        assert_eq!(code(&"x".repeat(4000), false), None);
    }
}
