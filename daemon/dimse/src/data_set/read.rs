//! Reading a data set: one cursor over bounded bytes.

use super::{
    Coding, DATA_SET_BYTES_MAX, DATA_SET_DEPTH_MAX, DATA_SET_ELEMENTS_MAX, DataSet, DataSetError, Held, Value, vr_of,
};
use crate::part10::LONG_VRS;
use fovea_core::TagNumber;
use std::collections::BTreeMap;

/// A length that is told by a delimiter instead (PS3.5 section 7.5.1).
const UNDEFINED: u32 = 0xffff_ffff;
const ITEM: TagNumber = 0xfffe_e000;
const ITEM_END: TagNumber = 0xfffe_e00d;
const SEQUENCE_END: TagNumber = 0xfffe_e0dd;

pub(super) fn data_set(bytes: &[u8], coding: Coding) -> Result<DataSet, DataSetError> {
    if bytes.len() > DATA_SET_BYTES_MAX {
        return Err(DataSetError::TooLong { bytes_max: DATA_SET_BYTES_MAX });
    }
    let mut cursor = Cursor { bytes, position: 0, elements: 0 };
    cursor.data_set(bytes.len(), false, coding, 0)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    elements: usize,
}

struct Header {
    tag: TagNumber,
    vr: [u8; 2],
    length: u32,
}

impl<'a> Cursor<'a> {
    /// The next `count` bytes, which must end at `end` or before.
    fn take(&mut self, count: usize, end: usize, started: usize) -> Result<&'a [u8], DataSetError> {
        // No overflow: `count` is at most 32 bits wide, and the position lies within the bytes.
        if self.position + count > end {
            return Err(DataSetError::Truncated { position: started });
        }
        let taken = &self.bytes[self.position..self.position + count];
        self.position += count;
        Ok(taken)
    }

    /// Elements up to `end`, or to the delimiter of an item whose length is not told.
    fn data_set(&mut self, end: usize, delimited: bool, coding: Coding, depth: usize) -> Result<DataSet, DataSetError> {
        let mut elements = BTreeMap::new();
        loop {
            let started = self.position;
            if started == end && !delimited {
                return Ok(DataSet { elements });
            }
            let header = self.header(end, coding)?;
            if header.tag == ITEM_END && delimited && header.length == 0 {
                return Ok(DataSet { elements });
            }
            // Groups 0000 and 0002 belong to commands and files, FFFE to sequences.
            if matches!(header.tag >> 16, 0 | 2 | 0xfffe) {
                return Err(DataSetError::Malformed { position: started });
            }
            let held = self.value(&header, end, coding, depth, started)?;
            // Group lengths are retired, and wrong as soon as anything changes.
            if header.tag & 0xffff == 0 {
                continue;
            }
            self.elements += 1;
            if self.elements > DATA_SET_ELEMENTS_MAX {
                return Err(DataSetError::TooMany { elements_max: DATA_SET_ELEMENTS_MAX });
            }
            if elements.insert(header.tag, held).is_some() {
                return Err(DataSetError::Malformed { position: started });
            }
        }
    }

    fn header(&mut self, end: usize, coding: Coding) -> Result<Header, DataSetError> {
        let started = self.position;
        let head = self.take(8, end, started)?;
        let tag =
            u32::from(u16::from_le_bytes([head[0], head[1]])) << 16 | u32::from(u16::from_le_bytes([head[2], head[3]]));
        let long = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        // Items and delimiters have no VR in any coding.
        if coding == Coding::Implicit || tag >> 16 == 0xfffe {
            return Ok(Header { tag, vr: vr_of(tag), length: long });
        }
        let vr = [head[4], head[5]];
        if !vr.iter().all(u8::is_ascii_uppercase) {
            return Err(DataSetError::Malformed { position: started });
        }
        if !LONG_VRS.contains(&&vr) {
            return Ok(Header { tag, vr, length: u16::from_le_bytes([head[6], head[7]]).into() });
        }
        let long = self.take(4, end, started)?;
        Ok(Header { tag, vr, length: u32::from_le_bytes([long[0], long[1], long[2], long[3]]) })
    }

    fn value(
        &mut self,
        header: &Header,
        end: usize,
        coding: Coding,
        depth: usize,
        started: usize,
    ) -> Result<Held, DataSetError> {
        let is_sequence = &header.vr == b"SQ" || (header.length == UNDEFINED && &header.vr == b"UN");
        if !is_sequence {
            let bytes = self.take(header.length as usize, end, started)?;
            return Ok(Held { vr: header.vr, value: Value::Bytes(bytes.to_vec()) });
        }
        if depth >= DATA_SET_DEPTH_MAX {
            return Err(DataSetError::TooDeep { depth_max: DATA_SET_DEPTH_MAX });
        }
        // A sequence of unknown VR is in implicit VR whatever is round it (PS3.5 section 6.2.2, note 2).
        let coding = if &header.vr == b"UN" { Coding::Implicit } else { coding };
        let items = self.items(header.length, end, coding, depth + 1, started)?;
        Ok(Held { vr: *b"SQ", value: Value::Items(items) })
    }

    fn items(
        &mut self,
        length: u32,
        end: usize,
        coding: Coding,
        depth: usize,
        started: usize,
    ) -> Result<Vec<DataSet>, DataSetError> {
        let end = self.end_of(length, end, started)?;
        let mut items = Vec::new();
        loop {
            let position = self.position;
            if position == end && length != UNDEFINED {
                return Ok(items);
            }
            let header = self.header(end, Coding::Implicit)?;
            match header.tag {
                SEQUENCE_END if length == UNDEFINED && header.length == 0 => return Ok(items),
                ITEM => {}
                _ => return Err(DataSetError::Malformed { position }),
            }
            self.elements += 1;
            if self.elements > DATA_SET_ELEMENTS_MAX {
                return Err(DataSetError::TooMany { elements_max: DATA_SET_ELEMENTS_MAX });
            }
            let item_end = self.end_of(header.length, end, position)?;
            items.push(self.data_set(item_end, header.length == UNDEFINED, coding, depth)?);
        }
    }

    fn end_of(&self, length: u32, end: usize, started: usize) -> Result<usize, DataSetError> {
        if length == UNDEFINED {
            return Ok(end);
        }
        let own = self.position + length as usize;
        if own > end { Err(DataSetError::Truncated { position: started }) } else { Ok(own) }
    }
}
