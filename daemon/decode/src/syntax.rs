//! What a transfer syntax says of the data set and of the pixels. Standard: PS3.5 section 10 and annex A.

use fovea_core::Uid;

/// How the elements are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Elements {
    ImplicitLittle,
    ExplicitLittle,
    /// Explicit, the whole data set deflated (RFC 1951).
    Deflated,
}

/// How the pixels are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    Native,
    Rle,
    /// Any JPEG process: the stream's own marker says which (devices put baseline under extended and the reverse).
    Jpeg,
    JpegLs,
    Jpeg2000,
}

/// Both, none for a syntax that is not decoded here.
pub(crate) fn of(uid: &Uid) -> Option<(Elements, Code)> {
    let tail = uid.as_str().strip_prefix("1.2.840.10008.1.2")?;
    Some(match tail {
        "" => (Elements::ImplicitLittle, Code::Native),
        ".1" => (Elements::ExplicitLittle, Code::Native),
        ".1.99" => (Elements::Deflated, Code::Native),
        ".5" => (Elements::ExplicitLittle, Code::Rle),
        // Baseline, extended, lossless (process 14) and lossless first-order (process 14, selection value 1).
        ".4.50" | ".4.51" | ".4.57" | ".4.70" => (Elements::ExplicitLittle, Code::Jpeg),
        ".4.80" | ".4.81" => (Elements::ExplicitLittle, Code::JpegLs),
        // JPEG 2000 lossless and any; high-throughput lossless, lossless RPCL and any.
        ".4.90" | ".4.91" | ".4.201" | ".4.202" | ".4.203" => (Elements::ExplicitLittle, Code::Jpeg2000),
        _ => return None,
    })
}
