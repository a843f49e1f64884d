//! An error as one line, for logs and reasons.

use std::error::Error;

/// `error` and all that lies behind it, joined by `: `. Whether that may be shown is for the error's types to promise:
/// ours carry no patient identity (invariant 9).
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::PortError;

    #[test]
    fn the_cause_stands_behind_what_we_were_doing() {
        let error = PortError::Io { doing: "open a file".into(), source: std::io::Error::other("too many") };
        assert_eq!(super::chain(&error), "open a file: too many");
    }
}
