//! Decides whether a licence expression can be met from a list of accepted licences.
//!
//! In: an SPDX expression as Cargo.toml has it, with the old `MIT/Apache-2.0` form. Out: yes, no, or not readable.
//! Promise: OR needs one side, AND both, WITH belongs to the licence before it; anything unreadable is an error, never a yes.
//! Source: SPDX specification 2.3, annex D.

use anyhow::{bail, ensure};

/// True when the licences in `accepted` are enough for `expression`.
///
/// # Errors
/// When the expression is not well formed.
pub fn satisfied(expression: &str, accepted: &[String]) -> anyhow::Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut parser = Parser { words: spaced.split_whitespace().collect(), at: 0, accepted };
    let answer = parser.any()?;
    ensure!(parser.at == parser.words.len(), "'{expression}' goes on after its end");
    Ok(answer)
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    accepted: &'a [String],
}

impl<'a> Parser<'a> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at) == Some(&word);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self) -> anyhow::Result<bool> {
        let mut answer = self.all()?;
        while self.take("OR") {
            answer |= self.all()?;
        }
        Ok(answer)
    }

    fn all(&mut self) -> anyhow::Result<bool> {
        let mut answer = self.one()?;
        while self.take("AND") {
            answer &= self.one()?;
        }
        Ok(answer)
    }

    fn one(&mut self) -> anyhow::Result<bool> {
        if self.take("(") {
            let answer = self.any()?;
            ensure!(self.take(")"), "a bracket is not closed");
            return Ok(answer);
        }
        let mut licence = self.word()?.to_owned();
        if self.take("WITH") {
            licence = format!("{licence} WITH {}", self.word()?);
        }
        Ok(self.accepted.contains(&licence))
    }

    fn word(&mut self) -> anyhow::Result<&'a str> {
        match self.words.get(self.at) {
            Some(&word) if !matches!(word, "OR" | "AND" | "WITH" | "(" | ")") => {
                self.at += 1;
                Ok(word)
            }
            other => bail!("a licence is expected, found {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::satisfied;

    #[test]
    fn expressions_mean_what_spdx_says() {
        let accepted = ["MIT".to_owned(), "Apache-2.0".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()];
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("GPL-3.0-only OR MIT", true),
            ("GPL-3.0-only AND MIT", false),
            ("MIT/GPL-3.0-only", true),
            ("(MIT OR GPL-3.0-only) AND Apache-2.0", true),
            ("MIT OR GPL-3.0-only AND OpenSSL", true),
            ("(MIT OR GPL-3.0-only) AND OpenSSL", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
        ] {
            assert_eq!(satisfied(expression, &accepted).unwrap(), expected, "{expression}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_never_accepted() {
        for expression in ["", "MIT OR", "(MIT", "MIT MIT", "AND MIT", "MIT WITH", ")"] {
            assert!(satisfied(expression, &["MIT".to_owned()]).is_err(), "{expression}");
        }
    }
}
