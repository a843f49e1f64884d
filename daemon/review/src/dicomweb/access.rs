//! Who may ask.
//!
//! In: a file of credentials, requests. Out: 401 for whoever shows none of them. Promise: what was shown is compared by its hash, so
//! time tells nothing of it; neither secrets nor their hashes are logged.
//! Standard: RFC 7617 (Basic), RFC 6750 (Bearer).

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fovea_core::Sha256;
use std::sync::Arc;

/// Most credentials in a file.
const CREDENTIALS_MAX: usize = 1_000;
/// Shortest token or password.
const SECRET_CHARS_MIN: usize = 12;

/// The credentials that are believed; empty, nobody is asked for any.
#[derive(Clone, Default)]
pub(super) struct Credentials(Arc<[Sha256]>);

impl Credentials {
    /// Reads lines `bearer TOKEN` and `basic USER:PASSWORD`; empty ones and those after `#` are none.
    ///
    /// # Errors
    /// What is wrong with which line, without its text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut shown = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (scheme, secret) = line.split_once(' ').unwrap_or((line, ""));
            let (secret, encoded) = match (scheme.to_ascii_lowercase().as_str(), secret.trim()) {
                ("bearer", token) => (token, token.to_owned()),
                ("basic", pair) => match pair.split_once(':') {
                    Some((user, password)) if !user.is_empty() => (password, BASE64_STANDARD.encode(pair)),
                    _ => return Err(format!("line {number}: basic needs USER:PASSWORD")),
                },
                _ => return Err(format!("line {number}: begin with bearer or basic")),
            };
            if secret.chars().count() < SECRET_CHARS_MIN {
                return Err(format!("line {number}: a secret has at least {SECRET_CHARS_MIN} characters"));
            }
            shown.push(digest(scheme, &encoded));
        }
        match shown.len() {
            0 => Err("it names no credentials".to_owned()),
            1..=CREDENTIALS_MAX => Ok(Self(shown.into())),
            _ => Err(format!("more than {CREDENTIALS_MAX} credentials")),
        }
    }

    pub(super) fn are_needed(&self) -> bool {
        !self.0.is_empty()
    }

    fn admit(&self, header: Option<&HeaderValue>) -> bool {
        let shown = header.and_then(|value| value.to_str().ok()).and_then(|text| text.split_once(' '));
        let Some((scheme, secret)) = shown else { return false };
        let digest = digest(scheme, secret.trim());
        self.0.iter().fold(false, |found, held| found | (*held == digest))
    }
}

fn digest(scheme: &str, secret: &str) -> Sha256 {
    Sha256::of(format!("{} {secret}", scheme.to_ascii_lowercase()).as_bytes())
}

/// Lets a request through, or not.
pub(super) async fn check(State(credentials): State<Credentials>, request: Request, next: Next) -> Response {
    if !credentials.are_needed() || credentials.admit(request.headers().get(header::AUTHORIZATION)) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer, Basic realm=\"fovea\"")];
    (StatusCode::UNAUTHORIZED, challenge).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_in_the_file_is_admitted() {
        let credentials =
            Credentials::parse("# viewers\nbearer 0123456789abcdef\n\nbasic ward:correct horse battery\n").unwrap();
        let admits = |text: &str| credentials.admit(Some(&HeaderValue::from_str(text).unwrap()));
        assert!(admits("Bearer 0123456789abcdef") && admits("BEARER  0123456789abcdef"));
        assert!(admits("Basic d2FyZDpjb3JyZWN0IGhvcnNlIGJhdHRlcnk="));
        assert!(!admits("Basic 0123456789abcdef") && !admits("Bearer 0123456789abcde") && !admits("Bearer"));
        assert!(!credentials.admit(None));
    }

    #[test]
    fn a_file_that_protects_nothing_is_refused_without_its_text() {
        for (text, told) in [
            ("", "names no"),
            ("bearer short", "line 1"),
            ("\nbasic nobody", "line 2"),
            ("secret0123456789", "begin with"),
        ] {
            let error = Credentials::parse(text).err().unwrap();
            assert!(error.contains(told) && !error.contains("secret0"), "{error}");
        }
    }
}
