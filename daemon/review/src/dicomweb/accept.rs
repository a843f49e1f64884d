//! What a client takes.
//!
//! In: the `Accept` header. Out: whether a media type may be sent. Promise: nothing is converted, so what is stored is sent or
//! refused with 406.
//! Standard: PS3.18 section 8.7 (media types, the transfer-syntax parameter), RFC 9110 section 12.5.1.

use axum::http::{HeaderMap, header};

/// Ranges that are looked at.
const RANGES_MAX: usize = 64;

/// One range of the header.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Range {
    media: String,
    /// `type` of a multipart range.
    part: Option<String>,
    transfer_syntax: Option<String>,
}

/// What a client takes; without the header everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Accept(Vec<Range>);

impl Accept {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let texts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        Self(texts.flat_map(|text| text.split(',')).take(RANGES_MAX).map(range).collect())
    }

    /// Whether JSON by the DICOM model may be sent.
    pub(super) fn takes_json(&self) -> bool {
        self.any(|range| {
            matches!(range.media.as_str(), "*/*" | "application/*" | "application/json" | "application/dicom+json")
        })
    }

    /// Whether parts of type `part` in `transfer_syntax` may be sent as multipart/related.
    pub(super) fn takes_parts(&self, part: &str, transfer_syntax: &str) -> bool {
        self.any(|range| {
            let is_multipart = matches!(range.media.as_str(), "*/*" | "multipart/*" | "multipart/related");
            is_multipart
                && range.part.as_deref().is_none_or(|wanted| fits(wanted, part))
                && range.takes(transfer_syntax)
        })
    }

    /// Whether one such thing is asked for as a body of its own.
    pub(super) fn takes_single(&self, media: &str, transfer_syntax: &str) -> bool {
        self.0.iter().any(|range| range.media == media && range.takes(transfer_syntax))
    }

    fn any(&self, fits: impl Fn(&Range) -> bool) -> bool {
        self.0.is_empty() || self.0.iter().any(fits)
    }
}

impl Range {
    fn takes(&self, transfer_syntax: &str) -> bool {
        self.transfer_syntax.as_deref().is_none_or(|wanted| wanted == "*" || wanted == transfer_syntax)
    }
}

fn fits(wanted: &str, media: &str) -> bool {
    let kind = media.split('/').next().unwrap_or_default();
    wanted == "*/*" || wanted == media || wanted.strip_suffix("/*") == Some(kind)
}

fn range(text: &str) -> Range {
    let mut parts = text.split(';').map(str::trim);
    let mut range = Range { media: parts.next().unwrap_or_default().to_ascii_lowercase(), ..Range::default() };
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim().trim_matches('"').to_owned();
        match name.trim().to_ascii_lowercase().as_str() {
            "type" => range.part = Some(value.to_ascii_lowercase()),
            "transfer-syntax" => range.transfer_syntax = Some(value),
            _ => {}
        }
    }
    range
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Accept {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, text.parse().unwrap());
        Accept::of(&headers)
    }

    #[test]
    fn what_is_stored_is_sent_where_it_is_taken() {
        let (dicom, jpeg, plain) = ("application/dicom", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1");
        assert!(Accept(Vec::new()).takes_parts(dicom, jpeg) && accept("*/*").takes_parts(dicom, jpeg));
        let any = accept("multipart/related; type=\"application/dicom\"; transfer-syntax=*");
        assert!(any.takes_parts(dicom, jpeg) && !any.takes_parts("image/jpeg", jpeg) && !any.takes_json());
        let plain_only = accept(&format!("multipart/related; type=application/dicom; transfer-syntax={plain}"));
        assert!(plain_only.takes_parts(dicom, plain) && !plain_only.takes_parts(dicom, jpeg));
        assert!(accept("image/png, multipart/related; type=\"image/*\"").takes_parts("image/jpeg", jpeg));
        assert!(accept("application/dicom").takes_single(dicom, jpeg) && !accept("*/*").takes_single(dicom, jpeg));
        assert!(accept("application/json").takes_json() && !accept("text/html").takes_json());
    }
}
