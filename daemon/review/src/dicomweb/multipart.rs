//! A multipart body, part by part, piece by piece.
//!
//! In: a body and its boundary. Out: heads and bytes of its parts. Promise: what is held is one piece of the body and one head; a body
//! that stands still, or is none, ends with an error.
//! Standard: RFC 2046 section 5.1, RFC 2387, PS3.18 section 8.6.1.2.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header;
use http_body_util::BodyExt;
use std::time::Duration;

/// Longest head of a part.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest boundary (RFC 2046 section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;
/// A client that sends nothing for so long has gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Why a body cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MultipartError {
    #[error("the body ends within a part, or came to a stop")]
    Cut,
    #[error("a part's head is too long or none")]
    Head,
}

/// The boundary of a `multipart/related` body whose parts are `part`; none for any other content type.
pub(super) fn boundary(headers: &HeaderMap, part: &str) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let (media, parameters) = text.split_once(';')?;
    if !media.trim().eq_ignore_ascii_case("multipart/related") {
        return None;
    }
    let parameter = |name: &str| {
        let pairs = parameters.split(';').filter_map(|pair| pair.split_once('='));
        let mut named = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.trim().trim_matches('"').to_owned())
    };
    if parameter("type").is_some_and(|kind| !kind.eq_ignore_ascii_case(part)) {
        return None;
    }
    parameter("boundary").filter(|text| (1..=BOUNDARY_BYTES_MAX).contains(&text.len()))
}

/// A body that is read.
pub(super) struct Multipart {
    body: Body,
    buffer: Vec<u8>,
    delimiter: Vec<u8>,
}

impl Multipart {
    pub(super) fn new(body: Body, boundary: &str) -> Self {
        // As if a line had ended before the first one: all delimiters look the same.
        Self { body, buffer: b"\r\n".to_vec(), delimiter: format!("\r\n--{boundary}").into_bytes() }
    }

    /// Goes to the next part; its content type in lower case, without parameters. None behind the last.
    pub(super) async fn part(&mut self) -> Result<Option<String>, MultipartError> {
        while self.piece().await?.is_some() {}
        self.buffer.drain(..self.delimiter.len());
        self.at_least(2).await?;
        if self.buffer.starts_with(b"--") {
            return Ok(None);
        }
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(MultipartError::Head);
            }
            self.fill().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        // The line end behind the head belongs to a delimiter that follows at once: an empty part.
        self.buffer.drain(..end + 4);
        let line = head.lines().filter_map(|line| line.split_once(':'));
        let mut kinds = line.filter(|(name, _)| name.trim().eq_ignore_ascii_case("content-type"));
        let kind =
            kinds.next().map(|(_, value)| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        Ok(Some(kind.unwrap_or_default()))
    }

    /// The next bytes of the part, none at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Vec<u8>>, MultipartError> {
        loop {
            if let Some(at) = find(&self.buffer, &self.delimiter) {
                let piece: Vec<u8> = self.buffer.drain(..at).collect();
                return Ok((!piece.is_empty()).then_some(piece));
            }
            // A delimiter may have begun.
            let sure = (self.buffer.len() + 1).saturating_sub(self.delimiter.len());
            if sure > 0 {
                let rest = self.buffer.split_off(sure);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            self.fill().await?;
        }
    }

    async fn at_least(&mut self, bytes: usize) -> Result<(), MultipartError> {
        while self.buffer.len() < bytes {
            self.fill().await?;
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), MultipartError> {
        let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
        let Ok(Some(Ok(frame))) = frame else { return Err(MultipartError::Cut) };
        if let Ok(data) = frame.into_data() {
            self.buffer.extend_from_slice(&data);
        }
        Ok(())
    }
}

/// The first place of `delimiter`, which begins with a line end.
fn find(buffer: &[u8], delimiter: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = buffer[from..].iter().position(|byte| *byte == b'\r') {
        from += at;
        if buffer[from..].starts_with(delimiter) {
            return Some(from);
        }
        from += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body in pieces of `step` bytes.
    fn body(text: &[u8], step: usize) -> Body {
        let pieces: Vec<Vec<u8>> = text.chunks(step).map(<[u8]>::to_vec).collect();
        super::super::stream::body(move |sender| async move {
            for piece in pieces {
                sender.send(piece).await?;
            }
            Ok(())
        })
    }

    async fn parts(text: &[u8], step: usize) -> Result<Vec<(String, Vec<u8>)>, MultipartError> {
        let mut multipart = Multipart::new(body(text, step), "B");
        let mut parts = Vec::new();
        while let Some(kind) = multipart.part().await? {
            let mut bytes = Vec::new();
            while let Some(piece) = multipart.piece().await? {
                bytes.extend(piece);
            }
            parts.push((kind, bytes));
        }
        Ok(parts)
    }

    #[tokio::test]
    async fn parts_come_whole_however_the_body_is_cut_into_pieces() {
        let text = b"preamble\r\n--B\r\nContent-Type: Application/DICOM; x=y\r\n\r\none\r\n-\r\r\n--A two\r\n--B\r\nA: b\r\n\r\n\r\n--B--\r\nepilogue";
        for step in 1..=text.len() {
            let parts = parts(text, step).await.unwrap();
            let expected =
                [("application/dicom".to_owned(), b"one\r\n-\r\r\n--A two".to_vec()), (String::new(), vec![])];
            assert_eq!(parts, expected, "in pieces of {step}");
        }
    }

    #[tokio::test]
    async fn inv_08_a_body_that_is_cut_or_has_an_endless_head_is_an_error() {
        assert_eq!(parts(b"--B\r\n\r\nhalf a part", 5).await, Err(MultipartError::Cut));
        assert_eq!(parts(b"no delimiter", 5).await, Err(MultipartError::Cut));
        let endless = [b"--B\r\nA: ".as_slice(), &vec![b'x'; HEAD_BYTES_MAX + 1000]].concat();
        assert_eq!(parts(&endless, 1000).await, Err(MultipartError::Head));
    }

    #[test]
    fn the_boundary_is_that_of_dicom_parts() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, text.parse().unwrap());
            boundary(&headers, "application/dicom")
        };
        assert_eq!(of("multipart/related; type=\"application/dicom\"; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(of("Multipart/Related; boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(of("multipart/related; type=\"application/dicom+json\"; boundary=abc"), None);
        assert_eq!((of("application/dicom"), of("multipart/related; type=\"application/dicom\"")), (None, None));
    }
}
