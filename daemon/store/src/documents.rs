//! Documents. Promise: what `put_document` answered `Ok` for is there after any cut, and what `remove_document` did is not.
//!
//! A document lies in its journal record and nowhere else; the index has a copy to answer from.

use crate::index::Fault;
use crate::record::{Content, Forgotten, Record, Remembered};
use crate::store::{Key, Store};
use crate::view::{View, key, write};
use fovea_core::{DOCUMENT_BYTES_MAX, DOCUMENT_KEY_BYTES_MAX, Document, DocumentKind, Documents, PortError};
use sled::IVec;
use std::ops::Bound;

impl Documents for Store {
    fn put_document(&self, kind: DocumentKind, document: Document) -> Result<(), PortError> {
        check(&document)?;
        let Document { key, content } = document;
        // So that a rebuild of the journal beside us does not write an older one after ours.
        let _one = self.reserved.take(Key::Document(kind, key.clone()));
        self.writable()?;
        let held = self.index.ask(|view| view.document(kind, &key))?;
        if held.is_some_and(|held| held.content == content) {
            return Ok(()); // durable already: a list that is fetched each minute costs nothing while it stays the same
        }
        let record = Remembered { number: 0, kind, key, content: Content(content) };
        self.commit(Record::Remembered(record)).map(drop)
    }

    fn remove_document(&self, kind: DocumentKind, key: &str) -> Result<(), PortError> {
        let _one = self.reserved.take(Key::Document(kind, key.to_owned()));
        if self.index.ask(|view| view.document_number(kind, key))?.is_none() {
            return Ok(());
        }
        self.commit(Record::Forgotten(Forgotten { number: 0, kind, key: key.to_owned() })).map(drop)
    }

    fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<Document>, PortError> {
        self.index.ask(|view| view.document(kind, key))
    }

    fn documents(&self, kind: DocumentKind, after: &str, limit: usize) -> Result<Vec<Document>, PortError> {
        self.index.ask(|view| view.documents(kind, after, limit))
    }
}

/// The port's bounds.
pub(crate) fn check(document: &Document) -> Result<(), PortError> {
    let (key, content) = (document.key.len(), document.content.len());
    if !(1..=DOCUMENT_KEY_BYTES_MAX).contains(&key) {
        let detail = format!("a document's key of {key} bytes, it must be 1 to {DOCUMENT_KEY_BYTES_MAX}");
        return Err(PortError::Damaged { detail });
    }
    if content > DOCUMENT_BYTES_MAX {
        let detail = format!("a document of {content} bytes, the limit is {DOCUMENT_BYTES_MAX}");
        return Err(PortError::Damaged { detail });
    }
    Ok(())
}

/// First byte of the index's keys of documents.
const KIND: u8 = b'D';

/// Before the keys of one kind's documents: its name, so that kinds may come and go.
fn prefix_of(kind: DocumentKind) -> Result<Vec<u8>, Fault> {
    let mut prefix = key(KIND, &write(&kind)?);
    prefix.push(0);
    Ok(prefix)
}

/// Key of a document in the index.
pub(crate) fn document_key(kind: DocumentKind, name: &str) -> Result<Vec<u8>, Fault> {
    let mut key = prefix_of(kind)?;
    key.extend_from_slice(name.as_bytes());
    Ok(key)
}

/// Its value: the number of the record that made it what it is, and its content.
pub(crate) fn document_value(number: u64, content: &[u8]) -> Vec<u8> {
    [number.to_be_bytes().as_slice(), content].concat()
}

/// The number in a value.
pub(crate) fn document_number(value: &[u8]) -> Result<u64, Fault> {
    let head = value.first_chunk::<8>().ok_or_else(broken)?;
    Ok(u64::from_be_bytes(*head))
}

fn broken() -> Fault {
    Fault::Broken("a document is cut".into())
}

/// Kind, number and document of one entry.
fn read(entry: Result<(IVec, IVec), Fault>) -> Result<(DocumentKind, u64, Document), Fault> {
    let (key, value) = entry?;
    let mut parts = key.get(1..).unwrap_or_default().splitn(2, |byte| *byte == 0);
    let kind = parts.next().and_then(|kind| serde_json::from_slice(kind).ok()).ok_or_else(broken)?;
    let name = parts.next().and_then(|name| std::str::from_utf8(name).ok()).ok_or_else(broken)?;
    let content = value.get(8..).ok_or_else(broken)?.to_vec();
    Ok((kind, document_number(&value)?, Document { key: name.to_owned(), content }))
}

impl View<'_> {
    pub(crate) fn document(&self, kind: DocumentKind, name: &str) -> Result<Option<Document>, Fault> {
        let Some(value) = self.bytes(&document_key(kind, name)?)? else { return Ok(None) };
        let content = value.get(8..).ok_or_else(broken)?.to_vec();
        Ok(Some(Document { key: name.to_owned(), content }))
    }

    /// Number of the record that made the document what it is.
    pub(crate) fn document_number(&self, kind: DocumentKind, name: &str) -> Result<Option<u64>, Fault> {
        self.bytes(&document_key(kind, name)?)?.map(|value| document_number(&value)).transpose()
    }

    fn documents(&self, kind: DocumentKind, after: &str, limit: usize) -> Result<Vec<Document>, Fault> {
        let mut end = prefix_of(kind)?;
        end.pop();
        end.push(1); // past the NUL: behind every key of the kind
        let range = (Bound::Excluded(document_key(kind, after)?), Bound::Excluded(end));
        let entries = self.overlay.range(self.tree, range).take(limit);
        entries.map(|entry| Ok(read(entry)?.2)).collect()
    }

    /// Documents of all kinds that come after `after`, none for all, each with its number.
    pub(crate) fn all_documents(
        &self,
        after: Option<(DocumentKind, &str)>,
        limit: usize,
    ) -> Result<Vec<(DocumentKind, u64, Document)>, Fault> {
        let from = after.map_or(Ok(vec![KIND]), |(kind, name)| document_key(kind, name))?;
        let range = (Bound::Excluded(from), Bound::Excluded(vec![KIND + 1]));
        self.overlay.range(self.tree, range).take(limit).map(read).collect()
    }
}
