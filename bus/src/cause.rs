//! Errors as people read them.

use std::error::Error;

/// An error with its causes, as one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write the file")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn causes_follow_what_they_cause() {
        let error = Outer("x".parse::<u8>().unwrap_err());
        assert_eq!(with_causes(&error), "cannot write the file: invalid digit found in string");
    }
}
