//! Takes words out of compressed frames: comments and application data become zeros of the same length.
//!
//! In: the bytes of a frame stream, in pieces of any size. Out: the same bytes, scrubbed in place.
//! Promise: lengths never change, so offset tables stay true; what is not a codestream of the expected family is an error.
//! Kept are the three markers that colour decoding needs, in one constant form each: JFIF (APP0), HP colour transform of
//! JPEG-LS (APP8), Adobe (APP14, its transform byte stays). Bytes between frames become zeros.
//! Standard: ITU-T T.81 annex B, T.87 annex C, T.800 annex A, T.814.

/// Why a stream is not scrubbed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the compressed frames are not a clean codestream: {0}")]
pub struct NotScrubbed(pub &'static str);

/// Which grammar the frames follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// T.81 and T.87.
    Jpeg {
        /// T.87: after FF, bytes below 80 are data.
        is_ls: bool,
    },
    /// T.800 and T.814.
    Jpeg2000,
}

/// Where in the grammar the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before SOI; `true` after an FF.
    Between(bool),
    /// The FF of a marker is due.
    MarkerPrefix,
    /// The code of a marker is due.
    MarkerCode,
    /// High, then low byte of a segment's length.
    LengthHigh(u8),
    LengthLow(u8, u8),
    /// Inside a segment: code, position, bytes left.
    Segment {
        code: u8,
        at: u32,
        left: u32,
    },
    /// Entropy-coded data up to a marker; `true` after an FF.
    Scan(bool),
    /// JPEG 2000 tile data of known length.
    Tile(u64),
}

/// A scrubber for one stream of frames.
#[derive(Debug)]
pub struct Scrubber {
    family: Family,
    state: State,
    /// Of the marker segment in hand, whether it still equals its known form.
    is_known_form: bool,
    /// JPEG 2000: bytes since the start of the tile part in hand, and its length (0: up to the end).
    tile_at: u64,
    tile_length: u64,
    in_tile: bool,
    frames: u32,
}

const JFIF: [u8; 14] = *b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0";
const ADOBE: [u8; 11] = *b"Adobe\0\x64\0\0\0\0";

impl Scrubber {
    /// Before the first frame.
    pub fn new(family: Family) -> Self {
        let state = State::Between(false);
        Self { family, state, is_known_form: false, tile_at: 0, tile_length: 0, in_tile: false, frames: 0 }
    }

    /// Scrubs the next piece.
    ///
    /// # Errors
    /// [`NotScrubbed`]; the piece must then not be used.
    pub fn feed(&mut self, bytes: &mut [u8]) -> Result<(), NotScrubbed> {
        for byte in bytes {
            self.tile_at += 1;
            *byte = match self.family {
                Family::Jpeg { is_ls } => self.jpeg(*byte, is_ls)?,
                Family::Jpeg2000 => self.jpeg2000(*byte)?,
            };
        }
        Ok(())
    }

    /// The number of whole frames, once all was fed.
    ///
    /// # Errors
    /// [`NotScrubbed`] inside a frame.
    pub fn finish(self) -> Result<u32, NotScrubbed> {
        if matches!(self.state, State::Between(_)) { Ok(self.frames) } else { Err(NotScrubbed("a frame has no end")) }
    }

    /// Looks for FF and `soi`; all other bytes become zeros.
    fn between(&mut self, byte: u8, seen_ff: bool, soi: u8) -> u8 {
        self.state = match (seen_ff, byte) {
            (true, code) if code == soi => State::MarkerPrefix,
            (_, 0xFF) => State::Between(true),
            _ => State::Between(false),
        };
        if byte == 0xFF || self.state == State::MarkerPrefix { byte } else { 0 }
    }

    fn jpeg(&mut self, byte: u8, is_ls: bool) -> Result<u8, NotScrubbed> {
        match self.state {
            State::Between(seen_ff) => return Ok(self.between(byte, seen_ff, 0xD8)),
            State::MarkerPrefix if byte == 0xFF => self.state = State::MarkerCode,
            State::MarkerPrefix => return Err(NotScrubbed("no marker where one must be")),
            State::MarkerCode => self.state = self.after_jpeg_code(byte)?,
            State::LengthHigh(code) => self.state = State::LengthLow(code, byte),
            State::LengthLow(code, high) => self.begin_segment(code, high, byte)?,
            State::Segment { code, at, left } => {
                let out = self.jpeg_segment_byte(code, at, byte);
                self.state = match left - 1 {
                    0 => after_segment(code),
                    left => State::Segment { code, at: at + 1, left },
                };
                return Ok(out);
            }
            State::Scan(false) => self.state = State::Scan(byte == 0xFF),
            State::Scan(true) => {
                self.state = match byte {
                    0x00 | 0xD0..=0xD7 => State::Scan(false),
                    0x01..=0x7F if is_ls => State::Scan(false),
                    0xFF => State::Scan(true),
                    code => self.after_jpeg_code(code)?,
                }
            }
            State::Tile(_) => return Err(NotScrubbed("tile data in JPEG")),
        }
        Ok(byte)
    }

    fn after_jpeg_code(&mut self, code: u8) -> Result<State, NotScrubbed> {
        match code {
            0xFF => Ok(State::MarkerCode),
            0xD9 => {
                self.frames += 1;
                Ok(State::Between(false))
            }
            // SOF0 to SOF15 with DHT and DAC, SOS to EXP, APPn, SOF55, LSE, COM.
            0xC0..=0xCF | 0xDA..=0xDF | 0xE0..=0xEF | 0xF7 | 0xF8 | 0xFE => Ok(State::LengthHigh(code)),
            _ => Err(NotScrubbed("a marker that no picture needs")),
        }
    }

    fn begin_segment(&mut self, code: u8, high: u8, low: u8) -> Result<(), NotScrubbed> {
        self.is_known_form = true;
        let left =
            u32::from(u16::from_be_bytes([high, low])).checked_sub(2).ok_or(NotScrubbed("a segment's length"))?;
        self.state = match left {
            0 => after_segment(code),
            left => State::Segment { code, at: 0, left },
        };
        Ok(())
    }

    fn jpeg_segment_byte(&mut self, code: u8, at: u32, byte: u8) -> u8 {
        let at = at as usize;
        let form: &[u8] = match code {
            0xE0 => &JFIF,
            0xE8 => b"mrfx",
            0xEE => &ADOBE,
            0xE1..=0xEF | 0xFE => return 0,
            _ => return byte,
        };
        // The identifier tells the form: once it differs, the rest is foreign. What was passed on so far is constant.
        let identifier = if code == 0xE0 || code == 0xEE { 5 } else { 4 };
        self.is_known_form &= at >= identifier || form[at] == byte;
        match form.get(at) {
            Some(constant) if self.is_known_form => *constant,
            None if self.is_known_form && at == form.len() && code != 0xE0 && byte <= 5 => byte,
            _ => 0,
        }
    }

    fn jpeg2000(&mut self, byte: u8) -> Result<u8, NotScrubbed> {
        match self.state {
            State::Between(seen_ff) => {
                let out = self.between(byte, seen_ff, 0x4F);
                (self.in_tile, self.tile_length) = (false, 0);
                return Ok(out);
            }
            State::MarkerPrefix if byte == 0xFF => self.state = State::MarkerCode,
            State::MarkerPrefix => return Err(NotScrubbed("no marker where one must be")),
            State::MarkerCode => self.state = self.after_j2k_code(byte)?,
            State::LengthHigh(code) => self.state = State::LengthLow(code, byte),
            State::LengthLow(code, high) => self.begin_segment(code, high, byte)?,
            State::Segment { code, at, left } => {
                if code == 0x90 && (2..6).contains(&at) {
                    self.tile_length = self.tile_length << 8 | u64::from(byte);
                }
                self.state = match left - 1 {
                    0 => State::MarkerPrefix,
                    left => State::Segment { code, at: at + 1, left },
                };
                return Ok(if code == 0x64 { 0 } else { byte });
            }
            State::Tile(left) => self.state = if left > 1 { State::Tile(left - 1) } else { State::MarkerPrefix },
            State::Scan(false) => self.state = State::Scan(byte == 0xFF),
            State::Scan(true) => {
                self.state = match byte {
                    0xD9 => self.after_j2k_code(byte)?,
                    other => State::Scan(other == 0xFF),
                }
            }
        }
        Ok(byte)
    }

    fn after_j2k_code(&mut self, code: u8) -> Result<State, NotScrubbed> {
        match code {
            0xD9 => {
                self.frames += 1;
                Ok(State::Between(false))
            }
            0x90 => {
                // SOT: the tile part is counted from its marker, two bytes back.
                (self.tile_at, self.tile_length, self.in_tile) = (2, 0, true);
                Ok(State::LengthHigh(code))
            }
            0x93 if !self.in_tile => Err(NotScrubbed("tile data without a tile")),
            // SOD with a tile length of 0: data up to the end of the codestream.
            0x93 if self.tile_length == 0 => Ok(State::Scan(false)),
            0x93 => match self.tile_length.checked_sub(self.tile_at) {
                Some(0) => Ok(State::MarkerPrefix),
                Some(left) => Ok(State::Tile(left)),
                None => Err(NotScrubbed("a tile's length")),
            },
            // CAP, SIZ, COD, COC, TLM, PRF, PLM, PLT, CPF, QCD, QCC, RGN, POC, PPM, PPT, CRG, COM.
            0x50..=0x53 | 0x55..=0x59 | 0x5C..=0x61 | 0x63 | 0x64 => Ok(State::LengthHigh(code)),
            _ => Err(NotScrubbed("a marker that no picture needs")),
        }
    }
}

fn after_segment(code: u8) -> State {
    if code == 0xDA { State::Scan(false) } else { State::MarkerPrefix }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LS: Family = Family::Jpeg { is_ls: true };
    const JPEG: Family = Family::Jpeg { is_ls: false };

    fn scrubbed(family: Family, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, u32), NotScrubbed> {
        let mut out = bytes.to_vec();
        let mut scrubber = Scrubber::new(family);
        out.chunks_mut(piece).try_for_each(|piece| scrubber.feed(piece))?;
        Ok((out, scrubber.finish()?))
    }

    fn segment(code: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0xFF, code];
        out.extend_from_slice(&(payload.len() as u16 + 2).to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    fn join(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn words_in_jpeg_become_zeros_and_the_picture_stays_for_every_cut_into_pieces() {
        let scan = [0x11, 0xFF, 0x00, 0xFF, 0xD3, 0x22];
        let jfif = segment(0xE0, b"JFIF\0\x01\x02\x01\0\x48\0\x48\x01\x01abc");
        let adobe = segment(0xEE, b"Adobe\0\x65\x80\0\0\0\x01tail");
        let dirty = join(&[
            b"\xFF\xD8",
            &jfif,
            &segment(0xE1, b"Exif\0\0NAME"),
            &adobe,
            &segment(0xFE, b"comment"),
            &segment(0xDB, b"tables"),
            &segment(0xDA, b"scan"),
            &scan,
            &segment(0xFE, b"late"),
            &segment(0xDA, b"scan"),
            &scan,
            b"\xFF\xD9trailing\0",
            b"\xFF\xD8",
            &segment(0xE0, b"JFXXthumb"),
            &segment(0xDA, b"s"),
            &scan,
            b"\xFF\xD9",
        ]);
        let clean = join(&[
            b"\xFF\xD8",
            &segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0\0\0\0"),
            &segment(0xE1, &[0; 10]),
            &segment(0xEE, b"Adobe\0\x64\0\0\0\0\x01\0\0\0\0"),
            &segment(0xFE, &[0; 7]),
            &segment(0xDB, b"tables"),
            &segment(0xDA, b"scan"),
            &scan,
            &segment(0xFE, &[0; 4]),
            &segment(0xDA, b"scan"),
            &scan,
            b"\xFF\xD9",
            &[0; 9],
            b"\xFF\xD8",
            &segment(0xE0, b"JF\0\0\0\0\0\0\0"),
            &segment(0xDA, b"s"),
            &scan,
            b"\xFF\xD9",
        ]);
        for piece in 1..dirty.len() {
            assert_eq!(scrubbed(JPEG, &dirty, piece), Ok((clean.clone(), 2)), "pieces of {piece}");
        }
    }

    #[test]
    fn words_in_jpeg_2000_become_zeros_in_main_and_tile_headers() {
        let tile = |length: u32, data: &[u8]| {
            let mut sot = vec![0, 0];
            sot.extend_from_slice(&length.to_be_bytes());
            sot.extend_from_slice(&[0, 1]);
            join(&[&segment(0x90, &sot), &segment(0x64, b"\0\x01tile"), b"\xFF\x93", data])
        };
        let length = tile(0, b"da\xFFta").len() as u32;
        let dirty = |words: &[u8]| {
            let body = [tile(length, b"da\xFFta"), tile(0, b"more\xFF\x7F")].concat();
            join(&[b"\xFF\x4F", &segment(0x51, b"size"), &segment(0x64, words), &body, b"\xFF\xD9\0"])
        };
        let (out, frames) = scrubbed(Family::Jpeg2000, &dirty(b"\0\x01made by"), 3).unwrap();
        assert_eq!(frames, 1);
        let is_in = |words: &[u8]| out.windows(words.len()).any(|w| w == words);
        assert!(!is_in(b"made") && !is_in(b"tile") && is_in(b"da\xFFta") && is_in(b"more") && is_in(b"size"));
    }

    #[test]
    fn what_is_no_codestream_is_refused() {
        for (family, bytes) in [
            (JPEG, &b"\xFF\xD8words"[..]),
            (JPEG, b"\xFF\xD8\xFF\xF0\0\x04ab\xFF\xD9"),
            (JPEG, b"\xFF\xD8\xFF\xFE\0\x01"),
            (JPEG, b"\xFF\xD8\xFF\xDA\0\x02\x11"),
            (JPEG, b"\xFF\xD8\xFF\xDA\0\x02\x11\xFF\x22\xFF\xD9"),
            (Family::Jpeg2000, b"\xFF\x4F\xFF\x93data\xFF\xD9"),
            (Family::Jpeg2000, b"\xFF\x4F\xFF\x90\0\x0a\0\0\0\0\0\x05\0\x01\xFF\x93\xFF\xD9"),
        ] {
            assert!(scrubbed(family, bytes, 4).is_err(), "{bytes:?}");
        }
        assert_eq!(scrubbed(LS, b"\xFF\xD8\xFF\xDA\0\x02\x11\xFF\x22\xFF\xD9", 4).unwrap().1, 1);
        // A JP2 file is boxes around a codestream: everything before it is blanked, and it is then no frame at offset 0.
        assert_eq!(scrubbed(JPEG, b"words only", 4), Ok((vec![0; 10], 0)));
    }
}
