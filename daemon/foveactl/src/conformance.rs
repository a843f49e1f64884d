//! The DICOM conformance statement, made from the tables that the box works by.
//!
//! In: nothing. Out: Markdown. Promise: what is accepted, and with which statuses, is read from the code that does it.
//! Standard: PS3.2.

use fovea_core::sop_class;
use fovea_dimse::commitment::REFERENCES_MAX;
use fovea_dimse::{COMMAND_BYTES_MAX, DATA_SET_BYTES_MAX, VERIFICATION, transfer_syntax};
use fovea_receive::{Conformance, Encoding, RawConfig, Service, ServiceStatus, Services, SyntaxEntry, conformance};
use std::fmt::{Result, Write};

/// The whole statement.
pub fn statement() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _infallible = write_statement(&mut text, &conformance(), &RawConfig::default());
    text
}

fn write_statement(out: &mut String, ours: &Conformance, defaults: &RawConfig) -> Result {
    writeln!(out, "# DICOM conformance statement\n")?;
    writeln!(out, "Fovea {}. Research use only, not a medical device.\n", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "This file is the output of `foveactl conformance`; do not edit it.\n")?;
    writeln!(out, "Fovea takes images from modalities as a storage SCP, commits itself to keep them, takes their")?;
    writeln!(out, "procedure steps, answers the queries and retrievals of viewers, and sends structured reports and")?;
    writeln!(out, "images to archives as a storage SCU. It offers no worklist and no print.\n")?;
    identity(out, ours)?;
    association(out, defaults)?;
    acceptor(out, ours)?;
    statuses(out, ours)?;
    services(out, ours)?;
    requestor(out)?;
    planned(out)?;
    web(out)?;
    security(out)
}

/// What is asked of a worklist provider.
fn planned(out: &mut String) -> Result {
    writeln!(out, "\n## What is planned, as SCU\n")?;
    writeln!(
        out,
        "With `[worklist]` its provider is asked every `interval_s` for Modality Worklist Information Model - FIND"
    )?;
    writeln!(
        out,
        "(1.2.840.10008.5.1.4.31), in Explicit or Implicit VR Little Endian, for the days around today. Matching keys:"
    )?;
    writeln!(
        out,
        "Scheduled Station AE Title and Modality where they are configured, and Scheduled Procedure Step Start Date, a"
    )?;
    writeln!(
        out,
        "range. Only an answer that is complete (0000) counts; an item stays `keep_days` after it was last told."
    )
}

/// DICOMweb, by PS3.18.
fn web(out: &mut String) -> Result {
    writeln!(out, "\n## DICOMweb\n")?;
    writeln!(
        out,
        "With `[dicomweb]`, below `/dicomweb`; HTTP/1.1, anywhere but on loopback over TLS and with credentials.\n"
    )?;
    writeln!(out, "| service | what | form |\n| --- | --- | --- |")?;
    writeln!(out, "| QIDO-RS | studies, series, instances; at most 1,000 rows a page | `application/dicom+json` |")?;
    writeln!(
        out,
        "| WADO-RS | study, series, instance | `multipart/related; type=\"application/dicom\"`; one instance also as `application/dicom` |"
    )?;
    writeln!(out, "| WADO-RS | metadata of these; long values by `BulkDataURI` | `application/dicom+json` |")?;
    writeln!(out, "| WADO-RS | frames, bulk data | `multipart/related` in the type of what is stored |")?;
    writeln!(
        out,
        "| STOW-RS | Part 10 files, 200 durable, 202 some, 409 none, 503 out of room | `multipart/related; type=\"application/dicom\"` |\n"
    )?;
    writeln!(
        out,
        "Nothing is converted: what is not taken as it is stored is refused with 406. Person names match without regard"
    )?;
    writeln!(out, "to case; fuzzy matching is not done and told so. Failure reasons are the statuses of C-STORE above.")
}

fn security(out: &mut String) -> Result {
    writeln!(out, "\n## Transport security\n")?;
    writeln!(out, "With `[receive.tls]` a second port (2762 by default) takes associations over TLS, and with")?;
    writeln!(out, "`[sync.destination.tls]` a destination is called over TLS; each side must show a certificate of a")?;
    writeln!(
        out,
        "configured authority. TLS 1.2 with ECDHE and AES-GCM or ChaCha20-Poly1305, and TLS 1.3: the BCP 195"
    )?;
    writeln!(
        out,
        "profiles of PS3.15 annex B without the suites for older peers. A calling AE title is served only with"
    )?;
    writeln!(
        out,
        "a certificate that bears it, or the name that `peers[].certificate` says. The plain port listens on a"
    )?;
    writeln!(out, "loopback address unless it is configured otherwise.")
}

fn identity(out: &mut String, ours: &Conformance) -> Result {
    writeln!(out, "## Implementation\n")?;
    writeln!(out, "| item | value |\n| --- | --- |")?;
    writeln!(out, "| implementation class UID | {} |", ours.implementation_class_uid)?;
    writeln!(out, "| implementation version name | {} |", ours.implementation_version_name)?;
    writeln!(out, "| application context | 1.2.840.10008.3.1.1.1 |")?;
    writeln!(out, "| character sets | any that the sender uses: data sets are kept byte for byte |\n")
}

fn association(out: &mut String, defaults: &RawConfig) -> Result {
    writeln!(out, "## Associations that are accepted\n")?;
    writeln!(out, "Each limit is a key of `[receive]`; the defaults are:\n")?;
    writeln!(out, "| key | default | meaning |\n| --- | --- | --- |")?;
    let mut row =
        |key: &str, value: &dyn std::fmt::Display, meaning: &str| writeln!(out, "| `{key}` | {value} | {meaning} |");
    row("listen", &defaults.listen, "address and port")?;
    row("ae_title", &defaults.ae_title, "our AE title")?;
    row("any_called_ae", &defaults.any_called_ae, "also serve who calls us by another title")?;
    row("peers", &"none", "calling AE titles that are served, each from any or from one IP address")?;
    row("associations_max", &defaults.associations_max, "associations at once")?;
    row("connections_max", &defaults.connections_max, "connections at once, before their association stands")?;
    row("associate_timeout_ms", &defaults.associate_timeout_ms, "from the connection to the association (ARTIM)")?;
    row("idle_timeout_ms", &defaults.idle_timeout_ms, "longest silence")?;
    row("object_timeout_ms", &defaults.object_timeout_ms, "from the first to the last byte of one object")?;
    row("object_bytes_per_s_min", &defaults.object_bytes_per_s_min, "lowest rate of one object")?;
    row(
        "give_way_after_ms",
        &defaults.give_way_after_ms,
        "silence after which an association gives way when all are taken",
    )?;
    row("pdu_bytes_max", &defaults.pdu_bytes_max, "longest P-DATA PDU, announced to the peer")?;
    row("object_mib_max", &defaults.object_mib_max, "longest data set, MiB")?;
    writeln!(
        out,
        "\nA command set has at most {COMMAND_BYTES_MAX} bytes, an association at most 128 presentation contexts."
    )?;
    writeln!(
        out,
        "One operation is outstanding at a time; an asynchronous operations window is answered with 1 and 1."
    )?;
    writeln!(
        out,
        "A data set of a message (identifier, action or event information, attributes) has at most {DATA_SET_BYTES_MAX} bytes.\n"
    )?;
    writeln!(out, "| rejected | when |\n| --- | --- |")?;
    writeln!(
        out,
        "| permanent, called AE title not recognized | the called title is not ours, unless `any_called_ae` |"
    )?;
    writeln!(out, "| permanent, calling AE title not recognized | the caller is not among `peers` |")?;
    writeln!(out, "| permanent, application context name not supported | another application context |")?;
    writeln!(out, "| permanent, no reason given | the user identity is not the peer's `username` and `passcode` |")?;
    writeln!(
        out,
        "| transient, local limit exceeded | `associations_max` are busy, or those of the peer: try again later |\n"
    )?;
    writeln!(out, "Without `peers` any title may call, which is allowed on a loopback address only.\n")?;
    peers(out)
}

fn peers(out: &mut String) -> Result {
    writeln!(out, "| key of `peers` | meaning |\n| --- | --- |")?;
    let granted = |modality: bool| {
        let all = Service::ALL.iter().filter(|service| !modality || Services::MODALITY.has(**service));
        all.map(|service| format!("`{}`", service.name())).collect::<Vec<_>>().join(", ")
    };
    writeln!(out, "| `ae_title` | calling AE title |")?;
    writeln!(out, "| `address` | only from this IP address |")?;
    writeln!(out, "| `certificate` | only over TLS, with this name in its certificate |")?;
    writeln!(out, "| `services` | what it may ask, of {}; {} where absent |", granted(false), granted(true))?;
    writeln!(
        out,
        "| `reply_to`, `reply_tls` | where it listens, for commitments told later and as a destination of C-MOVE |"
    )?;
    writeln!(
        out,
        "| `username`, `passcode` | the user identity (type 1 or 2) that it must send; confirmed where it asks |"
    )?;
    writeln!(out, "| `associations_max` | its associations at once |")?;
    writeln!(out, "| `bytes_per_s_max` | bytes a second of its objects |\n")?;
    writeln!(out, "A user identity of a peer without `username` is ignored, and not confirmed.\n")
}

fn acceptor(out: &mut String, ours: &Conformance) -> Result {
    writeln!(out, "## Classes, as SCP\n")?;
    writeln!(out, "| SOP class | UID | granted by | the requestor may be |\n| --- | --- | --- | --- |")?;
    writeln!(out, "| Verification | {VERIFICATION} | nothing | SCU |")?;
    for class in ours.storage_classes {
        writeln!(out, "| {} | {} | `store`, `retrieve` | SCU; SCP in C-GET |", class.name, class.uid)?;
    }
    for class in ours.given_classes {
        writeln!(out, "| {} | {} | `retrieve` | SCP in C-GET |", class.name, class.uid)?;
    }
    for class in ours.service_classes {
        let service = class.service.name();
        writeln!(out, "| {} | {} | `{service}` | {} |", class.name, class.uid, class.requestor)?;
    }
    writeln!(out, "\n## Transfer syntaxes, as SCP\n")?;
    writeln!(out, "For every storage class, best first: of those in one presentation context the first of this table")?;
    writeln!(
        out,
        "is accepted. All other classes take the native ones. Objects are stored as they came (level 2, full).\n"
    )?;
    writeln!(out, "| transfer syntax | UID | layout | use |\n| --- | --- | --- | --- |")?;
    for entry in ours.transfer_syntaxes {
        let SyntaxEntry { uid, name, encoding, store_only } = entry;
        let layout = match encoding {
            Encoding::Implicit => "implicit VR, native",
            Encoding::Explicit => "explicit VR, native",
            Encoding::Deflated => "explicit VR, deflated",
            Encoding::Encapsulated => "encapsulated",
        };
        let used = if *store_only {
            "stored, forwarded as original, not analysed"
        } else {
            "decoded, and analysed where a model serves the class"
        };
        writeln!(out, "| {name} | {uid} | {layout} | {used} |")?;
    }
    writeln!(out)
}

fn statuses(out: &mut String, ours: &Conformance) -> Result {
    writeln!(out, "## Statuses of C-STORE, as SCP\n")?;
    writeln!(
        out,
        "Success is sent only when the object is durable. After any other status the association goes on.\n"
    )?;
    writeln!(out, "| status | name | when |\n| --- | --- | --- |")?;
    let mut rows = ours.store_statuses.iter();
    rows.try_for_each(|(status, when)| writeln!(out, "| {:04X} | {} | {when} |", status.0, status.words()))?;
    writeln!(out)
}

fn services(out: &mut String, ours: &Conformance) -> Result {
    writeln!(out, "## The other services, as SCP\n")?;
    writeln!(
        out,
        "A commitment request is durable before it is answered. Its report says what is held at that moment"
    )?;
    writeln!(
        out,
        "with that very class; it goes over the same association when that stays open and silent for a moment,"
    )?;
    writeln!(
        out,
        "else over a new one to `reply_to`, on which the box proposes itself as SCP, or over the next one that"
    )?;
    writeln!(out, "the peer opens with that class. It is told again with growing pauses, for a week, until the peer")?;
    writeln!(out, "acknowledges it. At most {REFERENCES_MAX} references are taken in one request.\n")?;
    writeln!(
        out,
        "Queries match as PS3.4 section C.2.2.2 says, at the levels PATIENT (patient root only), STUDY, SERIES and"
    )?;
    writeln!(out, "IMAGE; relational queries are served without negotiation. Answers are in the character set of the")?;
    writeln!(
        out,
        "query where it has the letters, else in ISO_IR 192. Instances are sent in the syntax that they are stored"
    )?;
    writeln!(
        out,
        "in; one that the other side does not take in it counts as failed. Destinations of C-MOVE are peers with"
    )?;
    writeln!(out, "`reply_to`.\n")?;
    writeln!(out, "| request | status | name | when |\n| --- | --- | --- | --- |")?;
    for ServiceStatus { of, status, when } in ours.service_statuses {
        writeln!(out, "| {of} | {:04X} | {} | {when} |", status.0, status.words())?;
    }
    writeln!(out)
}

/// What is said of STOW-RS and of proofs, below the table of answers.
const SENT_BESIDES: &str = "
With `kind = \"dicomweb\"` the same objects go by STOW-RS (PS3.18 section 10.5): Part 10 files in multipart/related of known length, several in
one request, each settled by its own row in the answer. Redirects are not followed.

With `custody = \"commitment\"` a destination is asked for storage commitment (1.2.840.10008.1.20.1, N-ACTION type 1) after delivery; its
N-EVENT-REPORT is taken on the same association or on one of its own to our port. With `custody = \"query\"` it is asked by C-FIND at instance
level (1.2.840.10008.5.1.4.1.2.2.1) or by QIDO-RS. What it does not keep is sent again under the same UIDs.
";

fn requestor(out: &mut String) -> Result {
    let (sr, explicit) = (sop_class::COMPREHENSIVE_SR, transfer_syntax::EXPLICIT_VR_LE);
    writeln!(out, "## What is sent, as SCU\n")?;
    writeln!(out, "To each `[[sync.destination]]`, by its own AE title, what it asks for in `what`:\n")?;
    writeln!(out, "| `what` | SOP class | transfer syntax |\n| --- | --- | --- |")?;
    writeln!(out, "| findings | Comprehensive SR Storage ({sr}), TID 1500 | Explicit VR Little Endian ({explicit}) |")?;
    writeln!(
        out,
        "| deidentified | that of the object | as received; Explicit VR Little Endian where that was deflated; what cannot be looked into (video) stays in quarantine |"
    )?;
    writeln!(out, "| originals | that of the object | as received |\n")?;
    writeln!(
        out,
        "One association at a time for each destination, and one operation outstanding. A presentation context is"
    )?;
    writeln!(
        out,
        "proposed for each pair of class and transfer syntax that waits, with that one syntax: nothing is converted to"
    )?;
    writeln!(
        out,
        "suit an archive. The called title and address are those of the destination, the calling title is our"
    )?;
    writeln!(out, "`ae_title`.\n")?;
    writeln!(out, "| answer of the archive | what follows |\n| --- | --- |")?;
    writeln!(out, "| success, a warning (0001, 0107, 0116, Bxxx), or 0111: it is there already | delivered |")?;
    writeln!(out, "| A7xx, 0110, 0213, an abort, silence | the same object later, with growing pauses, without end |")?;
    writeln!(
        out,
        "| any other status, or the context is not accepted | later, with growing pauses; set aside after `refusals_max` refusals over at least `refuse_after_min_s` |"
    )?;
    out.write_str(SENT_BESIDES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_in_the_documents_is_what_this_version_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/conformance.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == statement(),
            "docs/conformance.md has drifted; regenerate it: cargo run -p foveactl -- conformance > docs/conformance.md"
        );
    }

    #[test]
    fn every_class_syntax_and_status_of_the_tables_is_stated() {
        let (text, ours) = (statement(), conformance());
        let uids = ours.storage_classes.iter().map(|class| class.uid);
        for uid in uids.chain(ours.transfer_syntaxes.iter().map(|syntax| syntax.uid)) {
            assert!(text.contains(&format!("| {uid} |")), "{uid}");
        }
        for code in ["0000", "0110", "0111", "0122", "0124", "A700", "A900", "C000"] {
            assert!(text.contains(&format!("\n| {code} |")), "{code}");
        }
        for class in ours.service_classes {
            assert!(text.contains(&format!("| {} | `{}` |", class.uid, class.service.name())), "{}", class.uid);
        }
        for ServiceStatus { of, status, .. } in ours.service_statuses {
            assert!(text.contains(&format!("\n| {of} | {:04X} |", status.0)), "{of} {status}");
        }
    }
}
